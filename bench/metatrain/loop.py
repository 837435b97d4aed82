"""The loop of a meta-training: outer steps, validations and checkpoints, in pieces.

Boundary: holds the state; the caller passes display and recording.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from timetrial.bench.metatrain.recording import MetatrainRecording
from timetrial.framework.records import Row
from timetrial.framework.state import TrainState
from timetrial.optimizers.metatraining import outer
from timetrial.optimizers.metatraining.outer import OuterStep
from timetrial.optimizers.metatraining.settings import knobs
from timetrial.optimizers.metatraining.stage import Stage

LOG_EVERY = 20
"""Outer steps between two recorded rows; no multiple of the usual number of families."""


@dataclasses.dataclass
class Accounts:
    """Seconds by account over all pieces: ``cpu`` of all threads, the others on the wall clock."""

    seconds: dict[str, float]
    _cpu: float = dataclasses.field(default_factory=time.process_time)

    def charge(self, account: str, since: float) -> None:
        """Adds the wall seconds since a time of ``time.perf_counter``."""
        self.seconds[account] = self.seconds.get(account, 0.0) + time.perf_counter() - since
        now = time.process_time()
        self.seconds["cpu"] = self.seconds.get("cpu", 0.0) + now - self._cpu
        self._cpu = now


@dataclasses.dataclass(frozen=True)
class OuterStepInfo:
    """Progress of a training after one outer step.

    Attributes:
        step, steps: outer steps made, and in all.
        metrics: of this outer step.
        seconds_per_step: mean over the last outer steps; None while all of them compiled.
    """

    step: int
    steps: int
    metrics: Mapping[str, float]
    seconds_per_step: float | None


class Training:
    """One stage of a meta-training in progress.

    Args:
        stage: the stage.
        mesh: devices.
        state: the state to start from, on its devices.
        recording: records rows, validations and checkpoints.
        seconds: seconds by account of earlier pieces.
    """

    def __init__(
        self,
        stage: Stage,
        mesh: Mesh,
        state: TrainState,
        recording: MetatrainRecording,
        seconds: Mapping[str, float],
    ) -> None:
        self.state = state
        self.stage = stage
        self.accounts = Accounts(dict(seconds))
        self._settings, self._mesh, self._recording = stage.settings, mesh, recording
        self._programs: dict[str, OuterStep] = {}
        self._recent: list[float] = []

    @property
    def evaluations(self) -> Sequence[Row]:
        """Validations so far, those of earlier pieces included."""
        return self._recording.evaluations

    @property
    def step(self) -> int:
        """Outer steps made."""
        return int(self.state.step)

    def run(
        self,
        stop: Callable[[], bool],
        show: Callable[[OuterStepInfo], None],
        say: Callable[[str], None],
        checkpoint_seconds: float,
    ) -> bool:
        """Trains until the end or until ``stop`` returns True; saves periodically and at the end.

        Args:
            stop: called between two steps.
            show: called after every outer step.
            say: called with lines to print.
            checkpoint_seconds: pause between two checkpoints.

        Returns:
            Whether all outer steps are made and validated.
        """
        saved_at = time.monotonic()
        step = self.step
        while not stop():
            if self._validation_is_due(step):
                self.save()  # a validation takes a minute or more, without saves
                if not self._validate(step, stop, say):
                    break
                self.save()
                saved_at = time.monotonic()
                continue
            if step >= self._settings.steps:
                break
            self._outer_step(step, show, say)
            step += 1
            if time.monotonic() - saved_at > checkpoint_seconds:
                self.save()
                saved_at = time.monotonic()
        self.save()
        return step >= self._settings.steps and not self._validation_is_due(step)

    def _validation_is_due(self, step: int) -> bool:
        last = self.evaluations[-1].step if self.evaluations else -1
        at_end = step == self._settings.steps
        return last != step and (at_end or step % self._settings.validate_every == 0)

    def _outer_step(
        self, step: int, show: Callable[[OuterStepInfo], None], say: Callable[[str], None]
    ) -> None:
        started, account = time.perf_counter(), "train"
        name = self._settings.families[step % len(self._settings.families)]
        if name not in self._programs:
            say(f"compiling {name}")
            self._programs[name] = outer.make_outer_step(self.stage, name, self._mesh)
            account = "compile"
        now = knobs(self._settings, step)
        self.state, found = self._programs[name](self.state, now)
        metrics = {f"batch/{key}_{name}": float(value) for key, value in found.items()}  # waits
        self.accounts.charge(account, started)
        if account == "train":
            self._recent = [*self._recent[-49:], time.perf_counter() - started]
        mean = sum(self._recent) / len(self._recent) if self._recent else None
        show(OuterStepInfo(step + 1, self._settings.steps, metrics, mean))
        if step % LOG_EVERY == 0:
            metrics |= {
                "metatrain/learning_rate": now.learning_rate,
                "metatrain/longest": now.longest,
                "metatrain/truncation": float(now.truncation),
                "metatrain/inner_steps": 1e3 * float(self.state.opt_state.unrolled),
                "metatrain/cpu_seconds": self.accounts.seconds["cpu"],
            }
            self._recording.log(Row(step + 1, self.accounts.seconds.get("train", 0.0), metrics))

    def _validate(self, step: int, stop: Callable[[], bool], say: Callable[[str], None]) -> bool:
        """Validates the running mean; returns False if it was stopped before the end."""
        started = time.perf_counter()
        vector = jnp.asarray(np.asarray(self.state.opt_state.mean))
        scores, selection = [], self.stage.selection
        for name in selection.families:
            say(f"validating on {name}")
            scores.append(selection.scores(vector, name))
            if stop():
                return False
        metrics = selection.summary(np.stack(scores))
        self.accounts.charge("validation", started)
        self.state = outer.keep_best(self.state, metrics["validation/score"])
        seconds = self.accounts.seconds.get("train", 0.0)
        self._recording.log_validation(Row(step, seconds, metrics))
        say(f"outer step {step}: validation score {metrics['validation/score']:.4f}")
        return True

    def save(self) -> None:
        """Writes the checkpoint."""
        self._recording.save(self.state, self.accounts.seconds)
