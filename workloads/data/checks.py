"""Checks of a prepared data set: counts, digests, and what its records must hold.

Boundary: reads what ``preparing`` wrote; ``record_checks`` knows the records of each data set.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from timetrial.framework.machine import usable_cores
from timetrial.workloads.data.catalogue import DataSet
from timetrial.workloads.data.errors import DataError
from timetrial.workloads.data.prepared import file_digest
from timetrial.workloads.data.record_checks import RECORD_CHECKS, Failed


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: the check, in one or two words.
        passed: False when it failed; None when it was not made.
        text: what was found, or why it failed.
    """

    name: str
    passed: bool | None
    text: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "not made"}[self.passed]
        return f"{word:<9} {self.name}: {self.text}"


def check_counts(data: DataSet, root: Path) -> str:
    """Compares the number of examples with the official ones, unless this is a sample.

    Where bad records were left out, there may be fewer: a bad volume of fastMRI is one bad record
    and many slices.

    Raises:
        Failed: they differ.
    """
    manifests = data.manifests(root)
    found, skipped = data.examples(root), sum(len(one.skipped) for one in manifests)
    text = ", ".join(f"{split} {count:,}" for split, count in found.items())
    text += f" {data.unit}" + (f"; {skipped} bad ones left out" if skipped else "")
    if any(manifest.sample for manifest in manifests):
        return f"{text} (a sample: there are no official counts)"
    lacking = {split: count - found[split] for split, count in data.counts.items()}
    missing = sum(lacking.values())
    if min(lacking.values()) < 0 or missing < skipped or (missing and not skipped):
        official = ", ".join(f"{split} {count:,}" for split, count in data.counts.items())
        raise Failed(f"expected {official} {data.unit}, found {text}")
    return f"{text}, {missing} {data.unit} in all" if missing else text


def check_digests(data: DataSet, root: Path) -> str:
    """Compares the sha256 of every file with the manifest.

    Raises:
        Failed: files are missing or changed.
    """
    expected: dict[Path, str] = {}
    for name, manifest in zip(data.steps, data.manifests(root), strict=True):
        for shards in manifest.splits.values():
            expected |= {root / name / shard.file: shard.sha256 for shard in shards}
        arrays: dict[str, str] = manifest.settings.get("arrays", {})
        expected |= {root / name / file: digest for file, digest in arrays.items()}
    if missing := [path for path in expected if not path.is_file()]:
        raise Failed(f"expected {len(expected)} files, {len(missing)} are missing: {missing[0]}")
    with concurrent.futures.ThreadPoolExecutor(len(usable_cores())) as pool:
        digests = zip(expected, pool.map(file_digest, expected), strict=True)
        changed = [path for path, digest in digests if digest != expected[path]]
    if changed:
        raise Failed(f"{len(changed)} of {len(expected)} files have another sha256: {changed[0]}")
    return f"{len(expected)} files have the sha256 of the manifest"


def findings(
    data: DataSet, root: Path, starting: Callable[[str], object] = lambda name: None
) -> Iterator[Finding]:
    """Makes all checks of a data set that need no workload, one after the other.

    Args:
        data: the data set.
        root: root of the prepared data sets.
        starting: takes the name of each check before it is made.

    Raises:
        DataError: the data set is not prepared.
    """
    data.manifests(root)
    checks: dict[str, Callable[[], str]] = {
        "counts": lambda: check_counts(data, root),
        "digests": lambda: check_digests(data, root),
    }
    for name, check in RECORD_CHECKS[data.workload].items():
        checks[name] = lambda check=check: check(root)  # type: ignore[misc]
    for name, run in checks.items():
        starting(name)
        yield made(name, run)


def made(name: str, check: Callable[[], str]) -> Finding:
    """The finding of a check; any error fails it, so that the other checks are made, too."""
    try:
        return Finding(name, True, check())
    except (Failed, DataError) as error:
        return Finding(name, False, str(error))
    except Exception as error:  # a damaged file may break any library
        first = (str(error).splitlines() or [""])[0][:200]
        return Finding(name, False, f"{type(error).__name__}: {first}")
