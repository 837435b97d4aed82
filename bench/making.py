"""One run of a race: told its steps, made or continued, and repeated where others depend on it.

Boundary: between ``experiment.run`` and those who choose the next run: ``race`` and workers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from timetrial.bench.claims import AlreadyFinishedError, Owner, SupersededError, TakenError
from timetrial.bench.experiment import run
from timetrial.bench.planning import is_suspect, runs_of, sets_budgets
from timetrial.bench.progress import Display
from timetrial.bench.resuming import run_directory, tidy
from timetrial.bench.workshop import Workshop, lacks_steps
from timetrial.framework.budget import StopReason
from timetrial.framework.config import RunConfig, Tracking
from timetrial.framework.errors import StorageError, reason_of
from timetrial.framework.records import RunResult
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.tracking.store.opening import Store


@dataclasses.dataclass(frozen=True)
class Made:
    """How a run of a race ended.

    Attributes:
        result: its result; None if it failed, or was finished before.
        error: why it failed; "" otherwise.
    """

    result: RunResult | None = None
    error: str = ""

    @property
    def is_suspect(self) -> bool:
        """True when its seconds are not credible; a diverged run is a result at any speed."""
        if self.result is None or self.result.reason is StopReason.DIVERGED:
            return False
        return bool(self.result.doubt)


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes runs of a race one after the other.

    Attributes:
        store: store of the record.
        workshop: keeps workload and program for the next run.
        display: progress.
        aside: as for ``experiment.run``; the caller settles the store's connection.
    """

    store: Store
    workshop: Workshop
    display: Display
    aside: bool = False

    def make(
        self,
        config: RunConfig,
        tags: Mapping[str, str],
        trials: Sequence[str],
        *,
        again: bool = False,
        owner: Owner | None = None,
        directory: Path | None = None,
    ) -> Made:
        """Makes or continues one run; an exception of the run is a result.

        A run that sets the seconds or steps of others is repeated at once if its seconds are
        suspect.

        Args:
            config: the run.
            tags: further tags of the run.
            trials: digests of the trials that tell it its steps.
            again: make it once more if it is over.
            owner: claim of the run, beside the lock on its directory.
            directory: directory of its checkpoints; None takes the usual one.

        Raises:
            TakenError, SupersededError, Interrupted: as for ``experiment.run``.
            StorageError: the disk takes no more.
        """
        steps = told_steps(trials, self.store, config.tracking)
        made = self._made(config, tags, steps, again, owner, directory)
        if made.is_suspect and _sets_others(config, steps, tags):
            self.display.again(1)
            made = self._made(config, tags, steps, True, owner, directory)
        return made

    def _made(
        self,
        config: RunConfig,
        tags: Mapping[str, str],
        steps: int | None,
        again: bool,
        owner: Owner | None,
        directory: Path | None,
    ) -> Made:
        directory = directory or run_directory(config)
        try:
            result = run(
                config,
                self.store,
                self.workshop,
                watch=self.display.run(config),
                tags=tags,
                expected_steps=steps,
                directory=directory,
                again=again,
                owner=owner,
                aside=self.aside,
            )
        except AlreadyFinishedError:
            return Made()
        except (StorageError, TakenError, SupersededError):
            raise
        except Exception as error:  # one failed run does not end the race
            self.display.failed(error)
            return Made(error=reason_of(error))
        tidy(config, directory)
        self.display.done(result, self.workshop.workload(config.workload).metric)
        return Made(result)


def _sets_others(config: RunConfig, steps: int | None, tags: Mapping[str, str]) -> bool:
    """True for a reference run, and for a first trial whose steps are told to later ones."""
    first_trial = steps is None and lacks_steps(OPTIMIZERS[config.optimizer.name], config)
    return schema.SETS_TIME_BUDGET in tags or first_trial


def told_steps(trials: Sequence[str], store: Store, tracking: Tracking) -> int | None:
    """Steps within the time budget according to a recorded trial; None if they must be measured.

    The trial is the first one that did not diverge: the steps made, or the steps told where the
    optimizer ended the trial itself. Trials with credible seconds come first.

    Args:
        trials: digests of the trials, see ``graph.Plan.first_trials``.
        store: store of the record.
        tracking: experiment of the trials.
    """
    recorded = (run for digest in trials for run in runs_of(store, tracking, digest))
    record = min(filter(sets_budgets, recorded), key=is_suspect, default=None)
    if record is None:
        return None
    ended_itself = record.reason == StopReason.COMPLETE.name
    return int(record.config["budget.expected_steps"]) if ended_itself else record.step
