"""Judges whether the charged seconds of a run are credible: was the machine its own?

Pure: from measurements to a sentence. The limits come from measurements with and without other
processes; each one says which.
"""

from __future__ import annotations

import dataclasses
from typing import Final

LEAST_SECONDS: Final = 0.5
"""Shorter charged times are not judged by shares: the kernel counts CPU time in steps of 10 ms."""

MOST_OTHERS: Final = 0.15
"""Largest share of the usable cores for other processes beside a run on CPUs."""

MOST_OTHERS_BESIDE_ACCELERATOR: Final = 0.5
"""The same beside a run on an accelerator, whose own work on the cores is small."""

MOST_STEAL: Final = 0.05
"""Largest share of the usable cores that the hypervisor may take."""

LEAST_OF_USUAL: Final = 0.7
"""Smallest ratio of a run's CPU seconds per charged second to those of the calibration."""


@dataclasses.dataclass(frozen=True)
class ChargedTime:
    """What is known about the charged seconds of a run.

    Attributes:
        seconds: charged seconds.
        cpu_seconds: CPU seconds of the process meanwhile.
        platform: platform of the JAX devices: ``cpu``, ``gpu``, ...
        cores: number of cores that the process may use.
        others: share of these cores used by other processes, in [0, 1]; None if unknown.
        stolen: share of these cores taken by the hypervisor, in [0, 1]; None if unknown.
        usual_cpu: CPU seconds per charged second during the calibration; None without one.
        gpu_others: number of other processes on the GPU; None if unknown.
    """

    seconds: float
    cpu_seconds: float
    platform: str
    cores: int
    others: float | None = None
    stolen: float | None = None
    usual_cpu: float | None = None
    gpu_others: float | None = None


def doubt(charged: ChargedTime) -> str:
    """The first reason why charged seconds are not credible, as a sentence with its numbers.

    Returns:
        "" if nothing speaks against them. Unknown measurements speak against nothing.
    """
    if charged.gpu_others:
        return f"{charged.gpu_others:.0f} other processes computed on the GPU (allowed: none)."
    if charged.seconds < LEAST_SECONDS:
        return ""
    on_cpu = charged.platform == "cpu"
    cores = f"the {charged.cores} cores" if charged.cores > 1 else "the only core"
    meanwhile = f"during {charged.seconds:.3g} charged seconds"
    allowed = MOST_OTHERS if on_cpu else MOST_OTHERS_BESIDE_ACCELERATOR
    if charged.others is not None and charged.others > allowed:
        return (
            f"Other processes used {_percent(charged.others)} of {cores} {meanwhile} "
            f"(allowed: {_percent(allowed)})."
        )
    if charged.stolen is not None and charged.stolen > MOST_STEAL:
        return (
            f"The hypervisor took {_percent(charged.stolen)} of {cores} {meanwhile} "
            f"(allowed: {_percent(MOST_STEAL)})."
        )
    return _below_usual(charged) if on_cpu else ""


def _below_usual(charged: ChargedTime) -> str:
    """Judges the CPU seconds per charged second against those of the calibration."""
    usual, rate = charged.usual_cpu, charged.cpu_seconds / charged.seconds
    if usual is None or rate >= LEAST_OF_USUAL * usual:
        return ""
    return (
        f"The run had {rate:.2f} CPU seconds per charged second, {_percent(rate / usual)} of the "
        f"{usual:.2f} of its calibration (allowed: {_percent(LEAST_OF_USUAL)})."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
