"""What one process knows of the attempts at the points of a study; reads only what changed.

Boundary: reads the study's storage and adds trials to it; ``ledger`` decides which.

A read costs as much as there are trials that run, began or ended since the last one, however many
wait or have ended. Of waiting trials only those to be claimed are read again: other workers may
have them. So the cost per trial does not grow with the number of trials.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

POINT = "point"
"""User attribute of a trial: number of its point, from 0."""


class Attempts:
    """The attempts at every point of one study; every method needs the database's lock.

    Args:
        storage: storage of the study.
        study_id: identity of the study in it.
        trials: all trials, in order of their numbers.
    """

    def __init__(self, storage: BaseStorage, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        self._storage = storage
        self._study_id = study_id
        self._trials: list[FrozenTrial] = []
        self._running: set[int] = set()
        self._waiting: set[int] = set()
        self._by_point: dict[int, list[int]] = {}
        self._changed: set[int] = set()
        self._untried = 0
        for trial in trials:
            self._add(trial)

    def refresh(self) -> None:
        """Reads the trials that run, began or ended since the last time."""
        states = (TrialState.RUNNING,)
        running = self._storage.get_all_trials(self._study_id, deepcopy=False, states=states)
        now = {trial.number: trial for trial in running}
        for number in sorted(self._running - now.keys()):
            self.read(number)
        for number in sorted(now.keys() & set(range(len(self._trials)))):
            self._note(now[number])
        while (trial_id := self._id_of(len(self._trials))) is not None:
            self._add(now.get(len(self._trials)) or self._storage.get_trial(trial_id))

    def read(self, number: int) -> FrozenTrial:
        """A trial as it is now in the storage."""
        trial = self._storage.get_trial(self._trials[number]._trial_id)
        self._note(trial)
        return trial

    def add(self, trial: FrozenTrial) -> None:
        """Adds a trial to the study; its number and identity are set by the storage."""
        number = len(self._trials)
        trial_id = self._storage.create_new_trial(self._study_id, trial)
        if self._id_of(number) == trial_id:  # else another program was faster: see ``refresh``
            trial = copy.copy(trial)
            trial.number, trial._trial_id = number, trial_id
            self._add(trial)

    def started(self, trial: FrozenTrial) -> None:
        """Notes that a waiting trial runs now."""
        trial = copy.copy(trial)
        trial.state = TrialState.RUNNING
        self._note(trial)

    def running(self) -> list[FrozenTrial]:
        """The trials that ran at the last ``refresh``, those of other programs too."""
        return [self._trials[number] for number in sorted(self._running)]

    def now(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """The same trials, as last read."""
        return [self._trials[trial.number] for trial in trials]

    def waiting(self, points: int) -> list[FrozenTrial]:
        """The trials of the first points that waited when last read; lowest points first."""
        found = [self._trials[number] for number in self._waiting]
        ours = [trial for trial in found if trial.user_attrs.get(POINT, points) < points]
        return sorted(ours, key=lambda trial: (trial.user_attrs[POINT], trial.number))

    def at(self, point: int) -> list[FrozenTrial]:
        """The attempts at a point, in order."""
        return [self._trials[number] for number in self._by_point.get(point, ())]

    def tried(self, points: int, *, changed: bool) -> list[int]:
        """Those of the first points that have attempts, in order.

        Args:
            points: number of these points.
            changed: leave out points without a change since they were ``settled``.
        """
        return sorted(p for p in (self._changed if changed else self._by_point) if p < points)

    def settled(self, point: int) -> None:
        """Notes that a point has been looked at."""
        self._changed.discard(point)

    def untried(self) -> int:
        """The lowest point without an attempt."""
        while self._untried in self._by_point:
            self._untried += 1
        return self._untried

    def _id_of(self, number: int) -> int | None:
        """Identity of a trial; None without such a trial."""
        try:
            find = self._storage.get_trial_id_from_study_id_trial_number
            return int(find(self._study_id, number))
        except KeyError:
            return None

    def _add(self, trial: FrozenTrial) -> None:
        if trial.number != len(self._trials):
            raise ValueError(f"expected trial {len(self._trials)}, got trial {trial.number}")
        self._trials.append(trial)
        if POINT in trial.user_attrs:
            self._by_point.setdefault(trial.user_attrs[POINT], []).append(trial.number)
        self._note(trial)

    def _note(self, trial: FrozenTrial) -> None:
        number, point = trial.number, trial.user_attrs.get(POINT)
        self._trials[number] = trial
        for state, numbers in (
            (TrialState.RUNNING, self._running),
            (TrialState.WAITING, self._waiting),
        ):
            (numbers.add if trial.state is state else numbers.discard)(number)
        if point is not None:
            self._changed.add(point)


_known: weakref.WeakKeyDictionary[optuna.Study, Attempts] = weakref.WeakKeyDictionary()


def attempts_of(study: optuna.Study, storage: BaseStorage) -> Attempts:
    """What this process knows of a study; the first call reads all of its trials."""
    found = _known.get(study)
    if found is None:
        study_id = storage.get_study_id_from_name(study.study_name)
        found = _known[study] = Attempts(storage, study_id, study.get_trials(deepcopy=False))
    return found
