"""Registry entries: all that is known of a workload or an optimizer, in one place.

Boundary: data only; ``framework.registry`` looks up names.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import optax

from timetrial.framework.spaces import Space
from timetrial.framework.types import Direction, PyTree, Split
from timetrial.framework.workload import Workload

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """One line of a registry.

    Attributes:
        summary: description in one line, as ``timetrial list`` shows it.
        settings: frozen dataclass of everything a user may set, validated at construction.
        make: builds it from its settings.

    Raises:
        TypeError: the summary is no text, the settings no dataclass, or ``make`` no function.
    """

    summary: str
    settings: type[Any]
    make: Callable[..., T]

    def __post_init__(self) -> None:
        if not isinstance(self.summary, str):
            raise TypeError(f"summary: expected text, got {self.summary!r}")
        if not (isinstance(self.settings, type) and dataclasses.is_dataclass(self.settings)):
            raise TypeError(
                "settings: expected a class decorated with @dataclasses.dataclass(frozen=True), "
                f"got {self.settings!r}"
            )
        if not callable(self.make):
            raise TypeError(f"make: expected a function, got {self.make!r}")


@dataclasses.dataclass(frozen=True)
class Horizon:
    """Expected length of a training, for optimizers with a schedule.

    Attributes:
        step_hint: the workload's step hint; schedules are laid out over it in both conditions.
        steps: updates that the budget allows: exact for a step budget, estimated for a time
            budget (``None`` while there is no estimate).
    """

    step_hint: int
    steps: int | None


def current_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The parameters themselves: what most optimizers are evaluated at."""
    return params


@dataclasses.dataclass(frozen=True)
class OptimizerEntry(Entry[optax.GradientTransformation]):
    """One optimizer; ``make(settings, horizon)`` builds its optax transformation.

    Attributes:
        needs_steps: needs the number of updates that the budget allows.
        needs_feed: needs ``remaining_fraction`` at every update; raced under time budgets only,
            because a step budget tells it no more than a number of steps does.
        variant: of its settings; tables show ``name[variant]``. "" shows the name alone.
        notes: tags to record with a run, by settings and horizon.
        last_step: updates after which a run ends, or None.
        space: search space for tuning, by name of the setting; None cannot be tuned.
        learning_rates: learning rate by settings and horizon, as a number or a schedule; None (or
            a function that returns None) has no learning rate to draw.
        eval_params: parameters to evaluate, from ``(opt_state, params)``. Pure, jittable.
        learned: whether its update rule is learned.
        color: colour in plots, as ``#rrggbb``; "" leaves the choice to the report.
    """

    needs_steps: bool = False
    needs_feed: bool = False
    variant: Callable[[Any], str] = lambda settings: ""
    notes: Callable[[Any, Horizon], Mapping[str, str]] = lambda settings, horizon: {}
    last_step: Callable[[Any, Horizon], int | None] = lambda settings, horizon: None
    space: Space | None = None
    learning_rates: Callable[[Any, Horizon], float | optax.Schedule | None] | None = None
    eval_params: Callable[[PyTree, PyTree], PyTree] = current_params
    learned: bool = False
    color: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_takes(self.make, "settings", "horizon")
        if self.color and not re.fullmatch("#[0-9a-fA-F]{6}", self.color):
            raise ValueError(f'color: expected "" or #rrggbb, got {self.color!r}')


@dataclasses.dataclass(frozen=True)
class WorkloadEntry(Entry[Workload]):
    """One workload; ``make(settings)`` builds it. Metric and direction are its class's own.

    Attributes:
        targets: fixed targets of the metric, by split; empty where runs establish them.
    """

    targets: Mapping[Split, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_takes(self.make, "settings")

    @property
    def metric(self) -> str:
        """The metric whose value decides the race."""
        return self._stated.metric

    @property
    def direction(self) -> Direction:
        """Whether the metric is minimised or maximised."""
        return self._stated.direction

    @functools.cached_property
    def _stated(self) -> type[Workload] | Workload:
        """The class that ``make`` is or is annotated to return; else a workload of defaults."""
        cls = self.make if isinstance(self.make, type) else _returned(self.make)
        if hasattr(cls, "metric") and hasattr(cls, "direction"):
            return typing.cast("type[Workload]", cls)
        return self.make(self.settings())


def _check_takes(function: Callable[..., object], *names: str) -> None:
    """Raises TypeError for a function that cannot be called with so many arguments."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # written in C: known only when it is called
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        expected = f"make({', '.join(names)})"
        raise TypeError(f"make: expected {expected}, got make{signature}: {error}") from error


def _returned(function: Callable[..., object]) -> object:
    """What a function is annotated to return; None where that is not known."""
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):  # a name for type checkers only; no function of Python
        return None
