"""Pools: machines so alike that their seconds compare, described in one YAML file.

Boundary: the file and its check; ``admission`` compares a machine with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from timetrial.framework.convert import convert
from timetrial.framework.errors import ConfigError
from timetrial.framework.paths import user_path
from timetrial.framework.ranges import check
from timetrial.framework.yaml_files import read_yaml, write_sealed, yaml_of
from timetrial.tracking.record import schema

DIRECTORY: Final = Path("pools")
"""Directory of pools that are called by name, below the working directory."""

PACKAGES: Final = ("python", "jax", "jaxlib")
"""What a pool's machines have in the same version."""


@dataclasses.dataclass(frozen=True)
class PoolCalibration:
    """Time per step of the reference optimizer on a pool's machines, for one workload.

    Attributes:
        workload_settings: by dotted name; some of them change the time per step.
        optimizer: the reference optimizer.
        step_seconds: seconds per step, compilation and warm-up left out, > 0.
        spread: (largest - smallest) / ``step_seconds`` of the repetitions, >= 0.
        date: date of the measurement, as ISO 8601 (year-month-day).
    """

    workload_settings: Mapping[str, str]
    optimizer: str
    step_seconds: float
    spread: float
    date: str

    def __post_init__(self) -> None:
        check(self, step_seconds="> 0", spread=">= 0")


@dataclasses.dataclass(frozen=True)
class Pool:
    """Machines whose seconds compare with each other.

    Attributes:
        name: at most 64 letters, digits, ``.``, ``_`` and ``-``.
        device_platform: platform of the JAX devices: ``cpu``, ``gpu``, ...
        device_kind: their kind, as JAX names it.
        device_count: devices that the process of a run sees, >= 1.
        host_cpu: model of the processor.
        host_cores: cores that the process of a run may use, >= 1.
        driver: version of the GPU driver; "" is not compared (no GPU, or unknown).
        versions: versions of ``PACKAGES``.
        calibrations: time per step by workload, at least one.
    """

    name: str
    device_platform: str
    device_kind: str
    device_count: int
    host_cpu: str
    host_cores: int
    driver: str
    versions: Mapping[str, str]
    calibrations: Mapping[str, PoolCalibration]

    def __post_init__(self) -> None:
        _check_name(self.name)
        check(self, device_count=">= 1", host_cores=">= 1")
        if set(self.versions) != set(PACKAGES):
            got = ", ".join(self.versions) or "none"
            raise ValueError(f"versions: expected those of {', '.join(PACKAGES)}, got {got}")
        if not self.calibrations:
            raise ValueError("calibrations: expected those of at least one workload, got none")

    @property
    def machine(self) -> dict[str, str]:
        """What every machine of the pool has, by tag; without what is not compared."""
        found = {
            schema.DEVICE_PLATFORM: self.device_platform,
            schema.DEVICE_KIND: self.device_kind,
            schema.DEVICE_COUNT: str(self.device_count),
            schema.HOST_CPU: self.host_cpu,
            schema.HOST_CORES: str(self.host_cores),
            schema.DRIVER: self.driver,
        }
        found |= {f"{schema.VERSION_PREFIX}{name}": self.versions[name] for name in PACKAGES}
        return {key: text for key, text in found.items() if text}

    @property
    def tag(self) -> str:
        """``NAME@DIGEST``, with 8 hexadecimal digits of the sha256 of ``machine``.

        A workload may be added to the file without another tag.
        """
        return f"{self.name}@{hashlib.sha256(yaml_of(self.machine).encode()).hexdigest()[:8]}"

    def calibration(self, workload: str) -> PoolCalibration:
        """The calibration of a workload.

        Raises:
            ConfigError: the pool has none.
        """
        if workload not in self.calibrations:
            raise ConfigError(
                f"pool {self.name}: expected one of the workloads it was measured with "
                f"({', '.join(self.calibrations)}), got {workload}; to add it, on a machine of the "
                f"pool: timetrial pool {self.name} workloads={workload}"
            )
        return self.calibrations[workload]

    def identity(self, workload: str) -> dict[str, str]:
        """Tags that the runs of a workload have in common in this pool.

        Raises:
            ConfigError: the pool has no calibration of the workload.
        """
        step_seconds = f"{self.calibration(workload).step_seconds:.9g}"
        return {schema.POOL: self.tag, schema.POOL_STEP_SECONDS: step_seconds}


def pool_path(text: str) -> Path:
    """The file of a pool, from its name or the path of a YAML file; it may be missing.

    Raises:
        ConfigError: the name is not fit for a file name.
    """
    if text.endswith((".yaml", ".yml")):
        return user_path(text)
    try:
        _check_name(text)
    except ValueError as error:
        raise ConfigError(f"pool: {error}, or FILE.yaml") from error
    return DIRECTORY / f"{text}.yaml"


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]{0,63}", name, re.ASCII):
        raise ValueError(
            f"name: expected at most 64 letters, digits, '.', '_' and '-', got {name[:80]!r}"
        )


def pool_names() -> list[str]:
    """Names of the pools below the working directory."""
    return sorted(path.stem for path in DIRECTORY.glob("*.yaml"))


def load_pool(text: str) -> Pool:
    """Reads a pool.

    Args:
        text: NAME for the file ``pools/NAME.yaml`` below the working directory, or FILE.yaml.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    path = pool_path(text)
    if not path.is_file():
        known = ", ".join(pool_names()) or "none"
        raise ConfigError(
            f"pool {text}: expected a file {path}, found none. Known: {known}; to make it, on one "
            "of its machines: timetrial pool NAME suite=SUITE"
        )
    tree = read_yaml(path)
    try:
        pool: Pool = convert(tree, Pool, "")
    except ConfigError as error:
        where = "" if str(error).startswith(str(path)) else f"{path}: "
        raise ConfigError(f"{where}{error}") from error
    if path.parent == DIRECTORY and pool.name != path.stem:
        raise ConfigError(f"{path}: expected name: {path.stem}, got name: {pool.name}")
    return pool


def save_pool(pool: Pool, path: Path) -> None:
    """Writes a pool; creates its directory.

    Raises:
        ConfigError: it cannot be written.
    """
    head = (
        f"# Pool {pool.name}: machines whose seconds compare with each other.\n"
        f"# Does a machine belong to it? timetrial pool {pool.name} --check\n"
    )
    write_sealed(path, head, dataclasses.asdict(pool), "pool")
