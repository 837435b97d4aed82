"""Workers as jobs of Slurm: a job array, requeued when it is preempted or its time is over.

Boundary: submits, waits for and ends jobs; ``slurm_job`` runs in them, the queue says what is
finished. submitit (https://github.com/facebookincubator/submitit) is imported only to submit.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from timetrial.bench.launch.slurm_job import Work
from timetrial.framework import config as configuration
from timetrial.framework.config import Tracking
from timetrial.framework.errors import Interrupted, InterruptedAgain, UserError, reason_of
from timetrial.framework.files import make_directory
from timetrial.framework.signals import noted

POLL_SECONDS: Final = 2.0

END_SECONDS: Final = 5.0
"""Pause between two questions to Slurm while jobs end."""

TIME_LIMITS: Final = 1000
"""How often a job may be requeued at the end of its time; every time it has made progress."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class SlurmSettings:
    """Settings of the launcher ``slurm``.

    Attributes:
        workers: number of jobs in the array, one worker each, >= 1.
        parallel: jobs that run at the same time; 0 does not limit them.
        hours: time limit of a job, > 0; it is then requeued, and goes on.
        partition, account, qos, constraint: as for sbatch; empty leaves them to the site.
        gpus: GPUs of each worker.
        cpus: cores of each worker; 0 leaves it to the site.
        memory_gb: memory of each worker in GB; 0 leaves it to the site.
        exclusive: no other job on the node; null means true with a pool, whose seconds count.
        signal_seconds: time before the limit at which a worker saves its run, > 0; expected to be
            longer than the longest step and evaluation.
        pool: name or file of the pool of identical machines that the nodes belong to.
        folder: directory for the files of the jobs, which all nodes reach; empty takes
            tracking.root/slurm.
        cluster: slurm; local runs the jobs as processes of this machine, debug inside this one.
    """

    workers: int = 1
    parallel: int = 0
    hours: float = 24.0
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    gpus: int = 0
    cpus: int = 0
    memory_gb: float = 0.0
    exclusive: bool | None = None
    signal_seconds: int = 300
    pool: str = ""
    folder: str = ""
    cluster: Literal["slurm", "local", "debug"] = "slurm"

    def __post_init__(self) -> None:
        lows = {"workers": 1, "parallel": 0, "gpus": 0, "cpus": 0, "signal_seconds": 1}
        for name, low in lows.items():
            if getattr(self, name) < low:
                value = getattr(self, name)
                raise ValueError(f"{name}: expected a whole number >= {low}, got {value}")
        if not 0 < self.hours < math.inf:
            raise ValueError(f"hours: expected a finite number > 0, got {self.hours}")
        if not 0 <= self.memory_gb < math.inf:
            raise ValueError(f"memory_gb: expected a finite number >= 0, got {self.memory_gb}")
        if self.signal_seconds >= 3600 * self.hours:
            raise ValueError(
                f"signal_seconds: expected fewer than the {3600 * self.hours:g} of "
                f"launcher.hours={self.hours:g}, got {self.signal_seconds}"
            )

    @property
    def minutes(self) -> int:
        """Time limit of a job in minutes, as Slurm counts it."""
        return math.ceil(60 * self.hours)


class Slurm:
    """Starts workers as a job array of Slurm, and waits for them.

    Before preemption or the end of its time a job saves its run and is requeued; a job whose node
    fails is requeued by Slurm. Ctrl-C and SIGTERM end the jobs, with their runs saved; a second one
    kills them. SIGHUP, from a closed terminal, leaves the jobs running, and so does kill -9. The
    same command then submits workers again: those without work end at once.

    Args:
        settings: number and share of the workers.

    Raises:
        UserError: submitit is not installed.
    """

    def __init__(self, settings: SlurmSettings) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise UserError(
                'launcher=slurm: expected the package submitit; pip install "timetrial[slurm]"'
            )
        self.settings = settings
        self.workers = settings.workers
        self.leaves_machine = settings.cluster == "slurm"

    def launch(self, command: Sequence[str], logs: Path | None) -> None:
        """Runs ``timetrial COMMAND`` in every job; see ``Launcher``."""
        folder = folder_of(self.settings, command)
        work = [
            Work(list(command), index, str(logs or ""), os.getcwd())
            for index in range(self.settings.workers)
        ]
        executor = executor_of(self.settings, folder)
        with noted() as signalled:
            jobs = _submitted(executor, work)
            ids = ", ".join(_arrays(jobs))
            print(
                f"{len(jobs)} jobs submitted: {ids}; their files are in {folder}; those without "
                "work end at once",
                flush=True,
            )
            try:
                number, codes = self._wait(jobs, signalled)
                if number in (signal.SIGINT, signal.SIGTERM):
                    print(f"ending jobs {ids}; timetrial cancel does so, too", flush=True)
                    self._end(jobs)
                elif number:
                    print(f"jobs {ids} go on; timetrial cancel ends them", flush=True)
            except InterruptedAgain:
                for job in jobs:
                    job.cancel(check=False)
                raise
        if number:
            raise Interrupted(number)
        check_codes(codes, logs or folder)

    def _wait(self, jobs: Sequence[Any], signalled: Callable[[], int]) -> tuple[int, list[int]]:
        """Waits until all jobs have ended, or a signal comes.

        Once a worker has found no work left, jobs that have not begun are given up.

        Returns:
            The number of the signal, else 0; and the codes of the jobs that have ended.
        """
        left, codes = list(jobs), []
        while left and not signalled():
            ended = [job for job in left if job.done()]
            codes += [code_of(job) for job in ended]
            left = [job for job in left if job not in ended]
            unbegun = [job for job in left if not job.paths.stdout.exists()]
            if unbegun and self.leaves_machine and not {0, 1}.isdisjoint(codes):
                scancel("--state=PENDING", *(str(job.job_id) for job in unbegun))
                left = [job for job in left if job not in unbegun]
            pause = time.monotonic() + POLL_SECONDS
            while left and not signalled() and time.monotonic() < pause:
                time.sleep(0.1)
        return signalled() if left else 0, codes

    def _end(self, jobs: Sequence[Any]) -> None:
        """Ends jobs: waiting ones at once, running ones when their run is saved."""
        if self.leaves_machine:
            scancel("--state=PENDING", *_arrays(jobs))
            scancel("--state=RUNNING", "--signal=INT", *_arrays(jobs))
        else:
            for job in jobs:
                job.cancel(check=False)
        while not all(job.done(force_check=True) for job in jobs):
            time.sleep(END_SECONDS)


def folder_of(settings: SlurmSettings, command: Sequence[str]) -> Path:
    """Directory for the files of the jobs."""
    if settings.folder:
        return Path(settings.folder).expanduser().absolute()
    words = [word for word in command if word.startswith("tracking.root=")]
    root = configuration.parse(words).get("tracking", {}).get("root", Tracking().root)
    return Path(str(root)).expanduser().absolute() / "slurm"


def sbatch_parameters(settings: SlurmSettings) -> dict[str, Any]:
    """The parameters of submitit for Slurm."""
    exclusive = bool(settings.pool) if settings.exclusive is None else settings.exclusive
    wanted = {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gpus_per_node": settings.gpus,
        "cpus_per_task": settings.cpus,
        "mem": f"{math.ceil(1024 * settings.memory_gb)}MB" if settings.memory_gb else "",
        "exclusive": exclusive,
    }
    return {
        "job_name": "timetrial",
        "time": settings.minutes,
        "nodes": 1,
        "ntasks_per_node": 1,
        "signal_delay_s": settings.signal_seconds,
        "array_parallelism": settings.parallel or settings.workers,
        "additional_parameters": {"requeue": True},  # after the failure of a node
        **{name: value for name, value in wanted.items() if value},
    }


def executor_of(settings: SlurmSettings, folder: Path) -> Any:
    """The executor of submitit.

    Raises:
        UserError: this machine is not part of a Slurm cluster.
    """
    import submitit

    make_directory(folder)
    if settings.cluster == "debug":
        return submitit.DebugExecutor(folder)
    if settings.cluster == "local":
        local = submitit.LocalExecutor(folder, max_num_timeout=TIME_LIMITS)
        local.update_parameters(
            timeout_min=settings.minutes,
            signal_delay_s=settings.signal_seconds,
            gpus_per_node=settings.gpus,
        )
        return local
    try:
        slurm = submitit.SlurmExecutor(folder, max_num_timeout=TIME_LIMITS)
    except RuntimeError as error:
        raise UserError(
            "launcher=slurm: expected a machine that submits to Slurm, got one without srun; "
            "launcher=ray and timetrial worker need no Slurm"
        ) from error
    slurm.update_parameters(**sbatch_parameters(settings))
    return slurm


def _submitted(executor: Any, work: Sequence[Work]) -> list[Any]:
    """Submits the workers as one job array.

    Raises:
        UserError: Slurm refuses it.
    """
    try:
        with executor.batch():
            return [executor.submit(each) for each in work]
    except Exception as error:  # submitit's errors, and those of sbatch
        raise UserError(
            f"launcher=slurm: expected sbatch to take the jobs, got {reason_of(error)}"
        ) from error


def _arrays(jobs: Sequence[Any]) -> list[str]:
    """The numbers of jobs, one for a whole array."""
    return list(dict.fromkeys(str(job.job_id).split("_")[0] for job in jobs))


def scancel(*words: str) -> None:
    """Calls Slurm's scancel, which says itself why it fails."""
    try:
        subprocess.run(["scancel", *words], check=False)
    except OSError as error:
        _log.warning("scancel failed: %s", error)


def code_of(job: Any) -> int:
    """Exit code of an ended job's worker; negative if it was killed."""
    try:
        return int(job.result())
    except Exception as error:  # submitit's errors: no result, or what the job raised
        _log.warning("job %s failed: %s", job.job_id, reason_of(error))
        return -9


def check_codes(codes: Sequence[int], place: Path) -> None:
    """Raises UserError if every worker ended with bad input."""
    if codes and all(code == 2 for code in codes):
        raise UserError(f"every worker ended; see {place}")
