"""The parts of the measurement, in order of importance.

Boundary: a list; ``run`` starts them, ``child`` carries them out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Final

WORKLOADS: Final = ("imagenet_resnet", "fastmri", "ogbg", "criteo1tb")
FED: Final = ("fastmri", "criteo1tb")
MINI: Final = ("flights_dlrm", "assays_gnn", "fashion_mnist_resnet", "icbm_unet")

GROUPS: Final = (
    "tf32",
    "tests",
    "data",
    "repeats",
    "agreement",
    "bf16",
    "float32",
    "again",
    "plain",
)
"""Groups of parts, in order of importance."""

DETERMINISTIC: Final = "--xla_gpu_deterministic_ops=true"

UPDATES: Final = 30
"""Timed updates of a measurement."""

DRY_UPDATES: Final = 5

BUDGET_SECONDS: Final = 540.0
DRY_BUDGET_SECONDS: Final = 3600.0
DRY_LIMIT_SECONDS: Final = 900.0


@dataclasses.dataclass(frozen=True)
class Part:
    """What one child process does.

    Attributes:
        group: one of ``GROUPS``, or ``device``.
        kind: function of ``child``.
        arguments: its arguments, as JSON takes them.
        limit_seconds: longest time; a part that takes longer has failed.
        flags: more XLA flags.
        cached: may use compilations of earlier parts of the same command.
    """

    group: str
    kind: str
    arguments: Mapping[str, Any]
    limit_seconds: float
    flags: tuple[str, ...] = ()
    cached: bool = False

    @property
    def label(self) -> str:
        """Its name in messages."""
        values = [str(x) for x in self.arguments.values() if isinstance(x, str)]
        return " ".join([self.group, *values, *(["deterministic"] if self.flags else [])])


def device() -> Part:
    """What there is to measure; always the first part."""
    return Part("device", "device", {}, 90)


def plan(
    *, dry: bool, groups: Collection[str] = GROUPS, only: Collection[str] = WORKLOADS
) -> list[Part]:
    """All parts of the chosen groups and workloads, the most important first."""
    made: list[Part] = []
    for group in GROUPS:
        if group in groups:
            made += _group(group, dry, tuple(name for name in WORKLOADS if name in only))
    if dry:  # a dry run measures nothing, and may have to share its cores
        made = [dataclasses.replace(part, limit_seconds=DRY_LIMIT_SECONDS) for part in made]
    return made


def _group(group: str, dry: bool, names: tuple[str, ...]) -> list[Part]:
    if group == "tests":
        return [Part(group, "tests", {"names": list(names), "dry": dry}, 180, cached=not dry)]
    if group == "data":
        updates = DRY_UPDATES if dry else UPDATES
        return [
            Part(group, "wait", {"name": name, "reduced": dry, "updates": updates}, 60)
            for name in names
            if name in FED
        ]
    if group == "repeats":
        arguments = {"names": list(names[-2:] if dry else names), "optimizer": "adam"}
        return [Part(group, "repeats", arguments, 90, flags) for flags in ((), (DETERMINISTIC,))]
    if group == "agreement":
        return _agreement(dry) if names == WORKLOADS else []
    if group == "again":
        return [
            Part(group, "again", {**_measured(name, "adam", "tf32"), "reduced": dry}, 90)
            for name in (names[-1:] if dry else names)
        ]
    if group == "plain":
        return [
            _measurement(group, name, "velo_plain", "tf32", dry)
            for name in (names[-1:] if dry else names)
        ]
    return _measurements(group, dry, names)


def _measurements(precision: str, dry: bool, names: tuple[str, ...]) -> list[Part]:
    """Measurements at one precision; a dry one leaves out what another one covers."""
    optimizers = ("adam",) if precision == "float32" else ("adam", "velo")
    if dry and precision != "tf32":
        names, optimizers = names[-1:], ("adam",)
    return [
        _measurement(precision, name, optimizer, precision, dry)
        for name in names
        for optimizer in optimizers
    ]


def _measurement(group: str, name: str, optimizer: str, precision: str, dry: bool) -> Part:
    size = {"reduced": dry, "updates": DRY_UPDATES if dry else UPDATES}
    arguments = {**_measured(name, optimizer, precision), **size}
    return Part(group, "measure", arguments, 120, cached=not dry)


def _measured(name: str, optimizer: str, precision: str) -> dict[str, str]:
    return {"name": name, "optimizer": optimizer, "precision": precision}


def _agreement(dry: bool) -> list[Part]:
    optimizers, updates = (["adam", "velo"], 5) if dry else (["adam", "nadamw", "velo"], 50)
    return [
        Part(
            "agreement", "agreement", {"name": n, "optimizers": optimizers, "updates": updates}, 75
        )
        for n in (MINI[:1] if dry else MINI)
    ]
