"""Shares of a machine for workers beside each other: GPUs and cores.

Pure, except ``slots_here``, which asks this machine.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence

from timetrial.framework.errors import UserError
from timetrial.framework.gpus import visible_gpus
from timetrial.framework.machine import usable_cores


@dataclasses.dataclass(frozen=True)
class Slot:
    """One worker's share.

    Attributes:
        index: number of the worker, from 0.
        gpus: GPUs as CUDA names them, numbers or UUIDs; empty hides none.
        cores: numbers of its cores; empty shares all.
    """

    index: int
    gpus: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the worker's process; CUDA and OpenMP read them at their start."""
        found: dict[str, str] = {}
        if self.gpus:
            found["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        if self.cores:
            found["OMP_NUM_THREADS"] = str(len(self.cores))
        return found


def slots_here(workers: int, gpus: int, cpus: int) -> list[Slot]:
    """Divides this machine; the arguments are those of ``LocalSettings``.

    Raises:
        UserError: it has too few GPUs or cores.
    """
    return divided(workers, gpus, cpus, gpu_names(os.environ), sorted(usable_cores()))


def gpu_names(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, as CUDA names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    return [str(gpu.ordinal) for gpu in visible_gpus()]


def divided(
    workers: int, gpus: int, cpus: int, all_gpus: Sequence[str], all_cores: Sequence[int]
) -> list[Slot]:
    """Divides GPUs and cores among workers.

    Args:
        workers: number of workers; 0 takes one per GPU (or per ``gpus``), else one per core (or per
            ``cpus``).
        gpus: GPUs of each worker; 0 takes one where ``workers`` is 0 and there are GPUs.
        cpus: cores of each worker; 0 divides them among workers with GPUs.
        all_gpus: names of the GPUs.
        all_cores: numbers of the cores.

    Raises:
        UserError: there are too few.
    """
    if workers == 0 and all_gpus:
        gpus = gpus or 1
        workers = len(all_gpus) // gpus
    elif workers == 0:
        workers = len(all_cores) // max(1, cpus)
    if workers * gpus > len(all_gpus) or workers == 0:
        raise UserError(
            f"launcher: expected {max(1, workers)} workers with {gpus} GPUs each, got a machine "
            f"with {len(all_gpus)} GPUs"
        )
    if gpus and not cpus:
        cpus = max(1, len(all_cores) // workers)
    if workers * cpus > len(all_cores) and cpus > 1:
        raise UserError(
            f"launcher.cpus={cpus}: expected at most {len(all_cores) // workers} for {workers} "
            f"workers on {len(all_cores)} cores"
        )
    shared = workers * cpus > len(all_cores)
    return [
        Slot(
            index,
            tuple(all_gpus[index * gpus : (index + 1) * gpus]),
            () if shared else tuple(all_cores[index * cpus : (index + 1) * cpus]),
        )
        for index in range(workers)
    ]
