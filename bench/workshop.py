"""What a run is made of: its workload, optimizer and compiled program.

Boundary: configuration in, objects out; ``experiment`` trains with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from timetrial.bench.timing.estimate import estimate_steps
from timetrial.framework.checkpoint import Saved
from timetrial.framework.config import Choice, ConfigError, RunConfig
from timetrial.framework.devices import of_run
from timetrial.framework.entries import Entry, Horizon, OptimizerEntry
from timetrial.framework.hosts import first_hosts
from timetrial.framework.parallel import Train
from timetrial.framework.signals import errors_of_plugins
from timetrial.framework.step import Program
from timetrial.framework.whole_step import WholeStepProgram
from timetrial.framework.workload import Workload
from timetrial.optimizers import OPTIMIZERS
from timetrial.tracking.record import schema
from timetrial.workloads import WORKLOADS


class Workshop:
    """Builds workloads and compiled programs, and keeps the last of each for the next run.

    Runs that differ only in the seed share one compiled program. Suites make such runs one after
    the other. Memory never holds more than one program, and the one before it while it compiles.
    A run that is charged for its compilation shares nothing.

    Args:
        workloads: workload entries by name.
        optimizers: optimizer entries by name.
    """

    def __init__(
        self,
        workloads: Mapping[str, Entry[Workload]] = WORKLOADS,
        optimizers: Mapping[str, OptimizerEntry] = OPTIMIZERS,
    ) -> None:
        self.workloads = workloads
        self.optimizers = optimizers
        self._workload: tuple[Choice, Workload] | None = None
        self._program: tuple[tuple[Choice, Choice, Horizon, Train], Program] | None = None

    def workload(self, choice: Choice) -> Workload:
        """The workload of a configuration."""
        if self._workload is None or self._workload[0] != choice:
            with settings_errors("workload"):
                self._workload = (choice, self.workloads[choice.name].make(choice.settings))
        return self._workload[1]

    def horizon(self, config: RunConfig) -> Horizon:
        """Expected length of a run, in steps."""
        steps = config.budget.steps or config.budget.expected_steps
        workload = self.workload(config.workload)
        return Horizon(workload.step_hint, steps, workload.roles)

    def program(self, config: RunConfig) -> Program:
        """The program of a configuration; the last one, already compiled, if it fits."""
        workload, horizon = self.workload(config.workload), self.horizon(config)
        key = (config.workload, config.optimizer, horizon, config.train)
        if self._program is None or self._program[0] != key or config.budget.charge_compile:
            entry = self.optimizers[config.optimizer.name]
            with settings_errors("optimizer"):
                optimizer = entry.build(config.optimizer.settings, horizon, workload)
            known = self._shareable(config, workload)
            if known is not None and optimizer.step is None:
                program = known.with_optimizer(optimizer)
            else:
                devices = of_run(config.train, workload.devices)
                parts = config.train.microbatches
                make = Program if optimizer.step is None else WholeStepProgram
                program = make(workload, optimizer, devices, parts)
            self._program = (key, program)
        return self._program[1]

    def _shareable(self, config: RunConfig, workload: Workload) -> Program | None:
        """The last program, if one of this configuration may share its functions."""
        if self._program is None or config.budget.charge_compile:
            return None
        key, program = self._program
        return program if key[3] == config.train and program.workload is workload else None


@contextmanager
def settings_errors(what: str) -> Iterator[None]:
    """Turns a ValueError from building into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run ready to start: its configuration and the objects built from it.

    Attributes:
        config: includes the number of steps the optimizer is built for, if it needs one.
        workload, entry, horizon, program: built from the configuration.
        told: tags with the source of the number of steps the optimizer is built for.
    """

    config: RunConfig
    workload: Workload
    entry: OptimizerEntry
    horizon: Horizon
    program: Program
    told: Mapping[str, str]

    def notes(self) -> dict[str, str]:
        """Notes of a checkpoint, so that a resumed run is told the same."""
        return {**self.told, _TOLD: str(self.config.budget.expected_steps or "")}


_TOLD = "expected_steps"  # note of a checkpoint: the number of steps the optimizer is built for


def prepared(
    config: RunConfig, workshop: Workshop, saved: Saved | None, expected_steps: int | None
) -> Setup | Exception:
    """The objects of a run, or the error of building them, which the run records."""
    try:
        with errors_of_plugins("while the run was built"):
            return prepare(config, workshop, saved, expected_steps)
    except Exception as error:
        return error


def prepare(
    config: RunConfig, workshop: Workshop, saved: Saved | None, expected_steps: int | None
) -> Setup:
    """Builds the objects of a run.

    Args:
        config: configuration of the run.
        workshop: keeps workload and program for the next run.
        saved: checkpoint to resume from; its number of steps is used again.
        expected_steps: as for ``run``.
    """
    entry = workshop.optimizers[config.optimizer.name]
    told: Mapping[str, str] = {}
    if saved is not None:
        told = {key: text for key, text in saved.notes.items() if key != _TOLD}
        expected_steps = int(saved.notes[_TOLD]) if saved.notes[_TOLD] else None
    elif lacks_steps(entry, config):
        expected_steps, told = tell_steps(config, workshop, expected_steps)
    else:
        expected_steps = config.budget.expected_steps
    budget = dataclasses.replace(config.budget, expected_steps=expected_steps)
    config = dataclasses.replace(config, budget=budget)
    program, horizon = workshop.program(config), workshop.horizon(config)
    return Setup(config, program.workload, entry, horizon, program, told)


def lacks_steps(entry: OptimizerEntry, config: RunConfig) -> bool:
    """True when the optimizer needs a number of steps that the configuration does not give."""
    budget = config.budget
    return entry.needs_steps and budget.seconds is not None and budget.expected_steps is None


def tell_steps(
    config: RunConfig, workshop: Workshop, expected_steps: int | None
) -> tuple[int, dict[str, str]]:
    """Number of steps that fit the time budget, measured unless given; and tags with its source."""
    if expected_steps is not None:
        return expected_steps, {schema.EXPECTED_STEPS_SOURCE: "steps of the first trial"}
    estimate = estimate_steps(guessed_program(config, workshop), config.budget.seconds or 0.0)
    rates = ", ".join(f"{seconds:.6g}" for seconds in estimate.step_seconds)
    return first_hosts(estimate.steps), {
        schema.EXPECTED_STEPS_SOURCE: f"measured seconds per step: {rates}"
    }


def guessed_program(config: RunConfig, workshop: Workshop) -> Program:
    """The program of a configuration, built for the step hint where the steps are unknown."""
    budget = config.budget
    if lacks_steps(workshop.optimizers[config.optimizer.name], config):
        budget = dataclasses.replace(budget, expected_steps=workshop.horizon(config).step_hint)
    return workshop.program(dataclasses.replace(config, budget=budget))
