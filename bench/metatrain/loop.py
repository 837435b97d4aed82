"""The loop of a meta-training: outer steps, validations and checkpoints, in pieces.

Boundary: owns the state while it runs; what is shown and where it is recorded is handed in.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from timetrial.framework.checkpoint import Saved, save
from timetrial.framework.records import Row
from timetrial.framework.types import TrainState
from timetrial.optimizers.metatraining import outer
from timetrial.optimizers.metatraining.outer import OuterStep
from timetrial.optimizers.metatraining.pairs import Sizes
from timetrial.optimizers.metatraining.rules import Rule, velo_rule
from timetrial.optimizers.metatraining.settings import MetatrainSettings, knobs
from timetrial.optimizers.metatraining.validation import Validation
from timetrial.tracking.record.tracker import JournalTracker

LOG_EVERY = 20
"""Outer steps between two recorded rows; not a multiple of the usual number of families."""

Seconds = dict[str, float]


@dataclasses.dataclass
class Accounts:
    """Seconds by account, over all pieces; ``cpu`` is that of all threads, the others are wall."""

    seconds: Seconds
    _cpu: float = dataclasses.field(default_factory=time.process_time)

    def charge(self, account: str, since: float) -> None:
        """Adds the wall seconds since a moment of ``time.perf_counter``."""
        self.seconds[account] = self.seconds.get(account, 0.0) + time.perf_counter() - since
        now = time.process_time()
        self.seconds["cpu"] = self.seconds.get("cpu", 0.0) + now - self._cpu
        self._cpu = now


@dataclasses.dataclass(frozen=True)
class Moment:
    """How far a training is, for whoever shows it.

    Attributes:
        step, steps: outer steps made, and in all.
        metrics: of the last outer step.
        seconds_per_step: mean of the last outer steps; None while all of them had to compile.
    """

    step: int
    steps: int
    metrics: Mapping[str, float]
    seconds_per_step: float | None


class Training:
    """A meta-training in progress.

    Args:
        settings: what is trained.
        sizes: hidden and bank size.
        identity: what a checkpoint must belong to.
        path: the checkpoint.
        state: where it is, on its devices.
        tracker: records rows.
        seconds: of earlier pieces, by account.
        evaluations: of earlier pieces.
        mesh: devices.
        saved: called after every checkpoint.
    """

    def __init__(
        self,
        settings: MetatrainSettings,
        sizes: Sizes,
        identity: str,
        path: Path,
        state: TrainState,
        tracker: JournalTracker,
        seconds: Mapping[str, float],
        evaluations: Sequence[Row],
        mesh: Mesh,
        saved: Callable[[], None],
    ) -> None:
        self.state = state
        self._saved = saved
        self.evaluations = list(evaluations)
        self.accounts = Accounts(dict(seconds))
        self.saved_offset = 0
        self._settings, self._sizes, self._mesh = settings, sizes, mesh
        self._identity, self._path, self._tracker = identity, path, tracker
        self._programs: dict[str, OuterStep] = {}
        self._recent: list[float] = []

        def rule(vector: Any) -> Rule:
            return velo_rule(vector, *sizes)

        self._validation = Validation(
            rule, settings.families, settings.validation_tasks, settings.horizons
        )

    @property
    def step(self) -> int:
        """Outer steps made."""
        return int(self.state.step)

    def run(
        self,
        stop: Callable[[], bool],
        show: Callable[[Moment], None],
        say: Callable[[str], None],
        checkpoint_seconds: float,
    ) -> bool:
        """Goes on until the end, or until ``stop`` says so; saves now and then, and at the end.

        Returns:
            Whether all outer steps are made and validated.
        """
        saved_at = time.monotonic()
        step = self.step
        while not stop():
            if self._validation_is_due(step):
                self.save()  # it takes a minute or more, in which nothing else is saved
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
        self, step: int, show: Callable[[Moment], None], say: Callable[[str], None]
    ) -> None:
        started, account = time.perf_counter(), "train"
        name = self._settings.families[step % len(self._settings.families)]
        if name not in self._programs:
            say(f"compiling {name}")
            self._programs[name] = outer.make_outer_step(
                self._settings, name, self._sizes, self._mesh
            )
            account = "compile"
        now = knobs(self._settings, step)
        self.state, found = self._programs[name](self.state, now)
        metrics = {key: float(value) for key, value in found.items()}  # waits for the device
        self.accounts.charge(account, started)
        if account == "train":
            self._recent = [*self._recent[-49:], time.perf_counter() - started]
        mean = sum(self._recent) / len(self._recent) if self._recent else None
        shown = {f"batch/{key}_{name}": value for key, value in metrics.items()}
        show(Moment(step + 1, self._settings.steps, shown, mean))
        if step % LOG_EVERY == 0:
            shown |= {
                "metatrain/learning_rate": now.learning_rate,
                "metatrain/longest": now.longest,
                "metatrain/truncation": float(now.truncation),
                "metatrain/inner_steps": 1e3 * float(self.state.opt_state.unrolled),
                "metatrain/cpu_seconds": self.accounts.seconds["cpu"],
            }
            self._tracker.log([Row(step + 1, self.accounts.seconds.get("train", 0.0), shown)])

    def _validate(self, step: int, stop: Callable[[], bool], say: Callable[[str], None]) -> bool:
        """Validates the running mean; False where it was told to stop before it was done."""
        started = time.perf_counter()
        vector = jnp.asarray(np.asarray(self.state.opt_state.mean))
        scores = []
        for name in self._settings.families:
            say(f"validating on {name}")
            scores.append(self._validation.losses(vector, name)[1].mean(1))
            if stop():
                return False
        metrics = self._validation.summary(np.stack(scores))
        self.accounts.charge("validation", started)
        self.state = outer.keep_best(self.state, metrics["validation/score"])
        seconds = self.accounts.seconds.get("train", 0.0)
        self.evaluations.append(Row(step, seconds, metrics))
        self._tracker.log([self.evaluations[-1]])
        say(f"outer step {step}: validation score {metrics['validation/score']:.4f}")
        return True

    def save(self) -> None:
        """Writes the checkpoint."""
        jax.block_until_ready(self.state)
        offset = self._tracker.offset
        saved = Saved({}, self.accounts.seconds, self._tracker.path.name, offset, {})
        save(self._path, self.state, saved, self._identity)
        self.saved_offset = offset
        self._saved()
