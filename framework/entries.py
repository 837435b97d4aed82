"""Registry entries: the description of one workload or one optimizer.

Boundary: data only; ``framework.registry`` looks up names.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from timetrial.framework.errors import ConfigError
from timetrial.framework.roles import Roles, roles_by_name
from timetrial.framework.spaces import Space
from timetrial.framework.types import Direction, PyTree, Split

if TYPE_CHECKING:  # they load JAX, which lists of entries do not need
    import jax
    import optax

    from timetrial.framework.state import TrainState
    from timetrial.framework.workload import Batch, Workload

T = TypeVar("T")


def available() -> str:
    """The ``unavailable`` of an entry that can run everywhere."""
    return ""


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """One line of a registry.

    Attributes:
        summary: one-line description, shown by ``timetrial list``.
        settings: frozen dataclass of all settings, validated at construction.
        make: builds the workload or optimizer from its settings.

    Raises:
        TypeError: the summary is not text, the settings are not a dataclass, or ``make`` is not a
            function.
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

    @property
    def line(self) -> str:
        """Its line in lists."""
        return self.summary


@dataclasses.dataclass(frozen=True)
class Horizon:
    """What an optimizer is told of a training: its expected length, and the roles of tensors.

    Attributes:
        step_hint: step hint of the workload: length of schedules in both conditions.
        steps: updates within the budget: exact for a step budget, estimated for a time budget
            (``None`` before the estimate).
        roles: maps parameters to their roles; the workload's.
    """

    step_hint: int
    steps: int | None
    roles: Roles = roles_by_name


def current_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """The parameters themselves; most optimizers are evaluated at them."""
    return params


EvalParams = Callable[[PyTree, PyTree], PyTree]
"""Parameters to evaluate, from ``(opt_state, params)``. Pure, jittable."""


class WholeStep(Protocol):
    """An optimizer that makes whole updates: loss, gradient, parameters and model state.

    Attributes:
        evaluates_elsewhere: whether ``eval_point`` gives anything but the point of the state.
    """

    evaluates_elsewhere: bool

    def init(self, params: PyTree, model_state: PyTree, key: jax.Array) -> Any:
        """State of the optimizer before the first update; it need not consist of arrays."""

    def update(self, state: TrainState, batch: Batch) -> TrainState:
        """The state after one update; may donate the arrays of the given one."""

    def eval_point(self, state: TrainState) -> tuple[PyTree, PyTree]:
        """Parameters and model state to evaluate; leaves the given state as it is."""

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes note of an evaluation after ``step`` updates."""


def no_transformation(settings: Any, horizon: Horizon) -> optax.GradientTransformation:
    """The ``make`` of an optimizer that has ``step`` instead.

    Raises:
        ConfigError: always.
    """
    raise ConfigError("optimizer: it makes whole updates, and has no optax transformation")


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimizer built for one training, and how it is called.

    Attributes:
        tx: its optax transformation; ``optax.identity()`` where ``step`` makes the updates.
        takes, eval_params, norm_refresh: as in OptimizerEntry.
        step: makes whole updates instead of ``tx``.
    """

    tx: optax.GradientTransformation
    takes: tuple[str, ...] | None = None
    eval_params: EvalParams = current_params
    norm_refresh: int = 0
    step: WholeStep | None = None

    @property
    def evaluates_elsewhere(self) -> bool:
        """Whether it is evaluated at other parameters than those it trains."""
        if self.step is not None:
            return self.step.evaluates_elsewhere
        return self.eval_params is not current_params


@dataclasses.dataclass(frozen=True)
class OptimizerEntry(Entry["optax.GradientTransformation"]):
    """One optimizer; ``make(settings, horizon)`` builds its optax transformation.

    Attributes:
        needs_steps: True when it needs the number of updates within the budget.
        needs_feed: True when it needs ``remaining_fraction`` at every update. It is raced under
            time budgets only: under a step budget the number of steps is the same information.
        variant: name of the variant, from the settings. Tables show ``name[variant]``, or the
            name alone for "".
        notes: tags to record with a run, from settings and horizon.
        last_step: number of updates at which a run ends, or None.
        steps_from: name of the optimizer whose first trial under a time budget tells the number of
            steps, for an optimizer that ends its own trials early; "" is the optimizer itself.
        space: search space for tuning, by name of the setting; None excludes it from tuning.
        learning_rates: learning rate from settings and horizon, a number or a schedule. Without
            it, or where it returns None, no learning rate is plotted.
        takes: extra inputs of its update, see ``framework.extra_inputs``; the others are not
            passed. None reads them from the signature of its update, closures only if named.
        eval_params: parameters to evaluate, from ``(opt_state, params)``. Pure, jittable. Their
            cost is charged; training goes on from the parameters themselves.
        norm_refresh: training batches in training mode before an evaluation at ``eval_params``, so
            that batch-norm statistics fit them, >= 0; charged, and for the evaluation only.
        sets_targets: True when its runs may set the targets of a race.
        learned: True when the update rule is learned.
        color: colour in plots, as ``#rrggbb``; "" takes one from the palette of the report.
        unavailable: the reason why the optimizer cannot run here, such as missing weights, in one
            line; "" when it can. Suites leave it out then.
        step: instead of ``make``: builds an optimizer that makes whole updates, from settings,
            horizon and workload. Its runs are marked as foreign: no checkpoint, no tuning, one
            device.
        workload_settings: settings of the workload that belong to the optimizer's own, such as
            dropout; they replace defaults of the workload, and a warning tells what it lacks.
    """

    make: Callable[..., optax.GradientTransformation] = no_transformation
    needs_steps: bool = False
    needs_feed: bool = False
    variant: Callable[[Any], str] = lambda settings: ""
    notes: Callable[[Any, Horizon], Mapping[str, str]] = lambda settings, horizon: {}
    last_step: Callable[[Any, Horizon], int | None] = lambda settings, horizon: None
    steps_from: str = ""
    space: Space | None = None
    learning_rates: Callable[[Any, Horizon], float | optax.Schedule | None] | None = None
    takes: tuple[str, ...] | None = None
    eval_params: EvalParams = current_params
    norm_refresh: int = 0
    sets_targets: bool = True
    learned: bool = False
    color: str = ""
    unavailable: Callable[[], str] = available
    step: Callable[[Any, Horizon, Workload], WholeStep] | None = None
    workload_settings: Callable[[Any], Mapping[str, float]] = lambda settings: {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.make is no_transformation) != (self.step is not None):
            raise TypeError("make: expected either make or step, got both or none")
        _check_takes(self.make, "settings", "horizon")
        if self.color and not re.fullmatch("#[0-9a-fA-F]{6}", self.color):
            raise ValueError(f'color: expected "" or #rrggbb, got {self.color!r}')
        if not (isinstance(self.norm_refresh, int) and self.norm_refresh >= 0):
            raise ValueError(f"norm_refresh: expected a whole number >= 0, got {self.norm_refresh}")
        names: Any = self.takes or ()
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f'takes: expected names as in ("value",), got {self.takes!r}')

    @property
    def is_foreign(self) -> bool:
        """Whether it makes whole updates by itself."""
        return self.step is not None

    def build(self, settings: Any, horizon: Horizon, workload: Workload | None = None) -> Optimizer:
        """The optimizer for one training; ``workload`` matters only where ``step`` is given."""
        if self.step is not None and workload is not None:
            from optax import identity

            return Optimizer(identity(), step=self.step(settings, horizon, workload))
        tx = self.make(settings, horizon)
        return Optimizer(tx, self.takes, self.eval_params, self.norm_refresh)


@dataclasses.dataclass(frozen=True)
class WorkloadEntry(Entry["Workload"]):
    """One workload; ``make(settings)`` builds it. Its class gives metric and direction.

    Attributes:
        targets: fixed targets of the metric, by split; empty when runs establish them.
        unavailable: the reason why the workload cannot run here, such as missing data, in one line;
            "" when it can.
        without_data: builds the workload from its settings for its shapes alone; None where
            ``make`` does.
    """

    targets: Mapping[Split, float] = dataclasses.field(default_factory=dict)
    unavailable: Callable[[], str] = available
    without_data: Callable[[Any], Workload] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_takes(self.make, "settings")

    @property
    def line(self) -> str:
        """Its line in lists: the summary, with the metric if that can be read."""
        with contextlib.suppress(Exception):  # a plug-in may raise anything
            return f"{self.summary} ({self.goal})"
        return self.summary

    @property
    def goal(self) -> str:
        """Metric and direction in words."""
        better = "lower" if self.direction is Direction.MINIMIZE else "higher"
        return f"{self.metric}, {better} is better"

    @property
    def metric(self) -> str:
        """The deciding metric."""
        return self._stated.metric

    @property
    def direction(self) -> Direction:
        """Direction of the metric: minimised or maximised."""
        return self._stated.direction

    @functools.cached_property
    def _stated(self) -> type[Workload] | Workload:
        """The class of the workload, from the way to build it; else a default instance."""
        build = self.without_data or self.make
        cls = build if isinstance(build, type) else _returned(build)
        if hasattr(cls, "metric") and hasattr(cls, "direction"):
            return typing.cast("type[Workload]", cls)
        return self.make(self.settings())


def _check_takes(function: Callable[..., object], *names: str) -> None:
    """Raises TypeError when the function does not take these arguments."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # written in C, without a signature
        return
    try:
        signature.bind(*names)
    except TypeError as error:
        expected = f"make({', '.join(names)})"
        raise TypeError(f"make: expected {expected}, got make{signature}: {error}") from error


def _returned(function: Callable[..., object]) -> object:
    """The return annotation of a function; None when it is unknown."""
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):  # a name for type checkers only; not a Python function
        return None
