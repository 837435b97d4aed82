"""Judges whether the charged seconds of a run are credible: was the machine its own?

Pure: from measurements to a sentence. The limits come from measurements with and without other
processes; each one says which.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Final

LEAST_SECONDS: Final = 0.5
"""Shorter charged times are not judged by shares: the counting error is too large."""

MOST_OTHERS: Final = 0.05
"""Largest share of the usable cores for other processes beside a run on CPUs.

Measured on 2 cores with four workloads: 0.005 on the idle machine; 0.43 to 0.58 with one process
per core that computes all the time, when charged seconds were 1.1 to 1.9 times as long. With two
that compute 2 of every 20 ms (0.07 to 0.10) they were already 1.0 to 1.4 times as long.
"""

MOST_OTHERS_BESIDE_ACCELERATOR: Final = 0.5
"""The same beside a run on an accelerator, whose work on the cores is small. Not measured."""

MOST_STEAL: Final = 0.05
"""Largest share of the usable cores that the hypervisor may take; it acts like other processes."""

LEAST_OF_USUAL: Final = 0.7
"""Smallest ratio of a run's CPU seconds per charged second to those of the calibration.

Measured as above: 0.9 to 1.2 undisturbed, with five optimizers against heavy ball on the same
workload; 0.5 to 0.78 beside one process per core.
"""


def allowed_others(platform: str, core_seconds: float) -> float:
    """Largest measured share of other processes that is credible.

    The kernel counts CPU time by sampling each core at least 100 times per second. A share p of n
    samples has a standard deviation of sqrt(p (1 - p) / n) <= 0.5 / sqrt(n). Three of them are
    added to the limit, so that one undisturbed run in a thousand is marked at most.

    Args:
        platform: platform of the JAX devices: ``cpu``, ``gpu``, ...
        core_seconds: observed seconds times the number of cores, > 0.
    """
    limit = MOST_OTHERS if platform == "cpu" else MOST_OTHERS_BESIDE_ACCELERATOR
    return limit + 3 * 0.5 / math.sqrt(100 * core_seconds)


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
    allowed = allowed_others(charged.platform, charged.seconds * charged.cores)
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
