"""The values that travel between the rooms: state, workload, budget, results and records.

Boundary: data and contracts only; no loop, no I/O, and no import of any other package of ours.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import jax
import numpy as np
import optax

PyTree = Any
"""Any nesting of dicts, tuples and dataclasses with arrays as leaves."""

Metrics = dict[str, float]
"""Value by name; evaluated metrics are named ``"<split>/<metric>"``."""

Batch = Mapping[str, np.ndarray]
"""One batch of examples on the host: named arrays whose first axis is the example."""

Split = str
"""Name of a fixed set of examples to evaluate on: ``train``, ``validation`` or ``test``."""

Sums = dict[str, tuple[jax.Array, jax.Array]]
"""Per metric: (weighted sum over the examples of a batch, sum of their weights), both scalars."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a training run needs to go on: the unit of checkpointing, donated by the step.

    Attributes:
        step: int32 scalar, number of updates made.
        params: trainable parameters.
        model_state: non-trainable variables (batch-norm statistics); ``{}`` where there are none.
        opt_state: state of the optimizer.
        key: PRNG key of the run; update ``t`` draws from ``fold_in(key, t)``.
    """

    step: jax.Array
    params: PyTree
    model_state: PyTree
    opt_state: PyTree
    key: jax.Array


class Direction(enum.Enum):
    """Whether a metric is better when it is smaller or when it is larger."""

    MINIMIZE = "minimize"
    MAXIMIZE = "maximize"

    def reached(self, value: float, target: float) -> bool:
        """True when ``value`` is at ``target`` or beyond it; NaN never is."""
        return value <= target if self is Direction.MINIMIZE else value >= target

    def best(self, values: Iterable[float]) -> float:
        """The best of ``values``; NaN is skipped, and NaN is returned when nothing is left."""
        finite = [v for v in values if not math.isnan(v)]
        if not finite:
            return math.nan
        return min(finite) if self is Direction.MINIMIZE else max(finite)


class Workload(abc.ABC):
    """One training problem: model, loss, metrics, data. Subclasses are final.

    A workload fixes all that must be equal for every optimizer: the model and its
    initialisation, the order of the batches, how often and on what is evaluated.

    Attributes:
        name: key of the workload in the registry.
        metric: the metric whose value decides the race (``accuracy``, ``ssim``, ...).
        direction: whether ``metric`` is minimised or maximised.
        step_hint: updates that AlgoPerf-style learning-rate schedules are laid out for.
        eval_every_steps: updates between two evaluations, or None.
        eval_every_seconds: charged seconds between two evaluations, or None.
        splits: the splits that ``eval_batches`` knows, in order of evaluation.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    direction: ClassVar[Direction]
    step_hint: int
    eval_every_steps: int | None
    eval_every_seconds: float | None = None
    splits: Sequence[Split] = ("train", "validation", "test")

    @abc.abstractmethod
    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Returns freshly initialised ``(params, model_state)``. Pure, jittable."""

    @abc.abstractmethod
    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        """Returns ``(mean training loss, new model_state)`` in training mode. Pure, jittable.

        ``key`` drives whatever is random inside the model (dropout).
        """

    @abc.abstractmethod
    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        """Returns ``(sums, outputs)`` of one evaluation batch in evaluation mode. Pure, jittable.

        ``sums`` holds every metric that is a weighted mean over examples, always with ``loss``.
        ``outputs`` goes, batch by batch and on the host, to ``finish``; it is ``{}`` where no
        metric needs it. Padding examples have weight 0.
        """

    def finish(self, outputs: Sequence[PyTree]) -> dict[str, float]:
        """Metrics that are no means over examples, from the outputs of all batches of a split."""
        return {}

    @abc.abstractmethod
    def train_batch(self, seed: int, step: int) -> Batch:
        """The batch of update ``step`` (0-based): a pure function of ``(seed, step)``, any order.

        Examples are reshuffled for every pass over the data; augmentation is included.
        """

    @abc.abstractmethod
    def eval_batches(self, split: Split) -> Sequence[Batch]:
        """The batches of a split: the same examples, in the same order, at every call.

        All batches have the same shapes; padding has weight 0 in ``batch["weight"]``.
        """

    @abc.abstractmethod
    def datasets(self) -> Mapping[str, str]:
        """Maps the name of each data set used to the sha256 digest of its file(s)."""


T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """One line of a registry.

    Attributes:
        summary: what it is, in one line, as ``timetrial list`` shows it.
        settings: frozen dataclass of everything a user may set, validated at construction.
        make: builds it from its settings.
    """

    summary: str
    settings: type[Any]
    make: Callable[..., T]


@dataclasses.dataclass(frozen=True)
class Horizon:
    """How long training is expected to last, as optimizers with a schedule must know it.

    Attributes:
        step_hint: the workload's step hint: what schedules are laid out for in both conditions.
        steps: updates that the budget allows: exact for a step budget, estimated for a time
            budget (``None`` while there is no estimate).
    """

    step_hint: int
    steps: int | None


@dataclasses.dataclass(frozen=True)
class OptimizerEntry(Entry[optax.GradientTransformation]):
    """One line of the registry of optimizers; ``make(settings, horizon)`` builds it.

    Attributes:
        needs_steps: must be told how many updates the budget allows.
        needs_feed: lives on the fed share of the budget that remains; raced under time budgets
            only, because under a step budget it is told the same as when it is prompted.
        variant: what tells runs of equal name apart, shown as ``name[variant]``; "" is nothing.
        notes: tags to record with a run, for what a user should know about it.
        last_step: updates after which it has nothing more to do, or None.
    """

    needs_steps: bool = False
    needs_feed: bool = False
    variant: Callable[[Any], str] = lambda settings: ""
    notes: Callable[[Any, Horizon], Mapping[str, str]] = lambda settings, horizon: {}
    last_step: Callable[[Any, Horizon], int | None] = lambda settings, horizon: None


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a run may use up: a number of updates or of charged seconds, exactly one of the two.

    Attributes:
        steps: updates allowed, > 0.
        seconds: seconds of training allowed, > 0, finite; evaluation and logging are not charged.
        charge_compile: also charge the compilation of the training step.
        also_seconds: with ``steps``: go on until this many seconds are used up as well, so that
            one run shows what both budgets would have given; it is evaluated where either ends.
        calibration: with ``seconds`` or ``also_seconds``: the file that they come from, recorded
            with the run.
        expected_steps: with ``seconds``: updates that they are expected to allow, for optimizers
            that must be told; measured when it is needed and not given.
    """

    steps: int | None = None
    seconds: float | None = None
    charge_compile: bool = False
    also_seconds: float | None = None
    expected_steps: int | None = None
    calibration: str | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(
                "a budget is either budget.steps or budget.seconds: expected exactly one, "
                f"got steps={self.steps}, seconds={self.seconds}"
            )
        for name, value in (("steps", self.steps), ("expected_steps", self.expected_steps)):
            if value is not None and value <= 0:
                raise ValueError(f"budget.{name}: expected a whole number > 0, got {value}")
        for name, limit in (("seconds", self.seconds), ("also_seconds", self.also_seconds)):
            if limit is not None and not 0 < limit < math.inf:
                raise ValueError(f"budget.{name}: expected finite seconds > 0, got {limit}")
        for name, other in (("also_seconds", "steps"), ("expected_steps", "seconds")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise ValueError(f"budget.{name} goes with budget.{other}, which is not given")
        if self.calibration is not None and self.limit_seconds is None:
            raise ValueError("budget.calibration goes with budget.seconds, which is not given")

    def shares(self, steps: int, seconds: float) -> list[float]:
        """Share used of each limit after ``steps`` updates and ``seconds`` charged; 1 is all."""
        limits = ((steps, self.steps), (seconds, self.seconds), (seconds, self.also_seconds))
        return [used / limit for used, limit in limits if limit is not None]

    def used(self, steps: int, seconds: float) -> float:
        """Share of the budget used: of its only limit, or of the one used less; 1 is all."""
        return min(self.shares(steps, seconds))

    def limits_reached(self, steps: int, seconds: float) -> int:
        """How many limits are used up: an evaluation is due where one is."""
        return sum(share >= 1 for share in self.shares(steps, seconds))

    @property
    def limit_seconds(self) -> float | None:
        """The limit in seconds, where there is one."""
        return self.seconds if self.seconds is not None else self.also_seconds

    @property
    def condition(self) -> str:
        """``"step"`` or ``"time"``: the paper's name for the kind of budget."""
        return "step" if self.steps is not None else "time"


class StopReason(enum.Enum):
    """Why a run ended; the value is the message."""

    BUDGET = "the budget is used up"
    COMPLETE = "the optimizer has made all its updates"
    TARGET = "the target is reached"
    DIVERGED = "the loss is no longer finite"
    INTERRUPTED = "interrupted by the user"
    PRUNED = "pruned by the study"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics at one moment of a run.

    Attributes:
        step: updates made.
        train_seconds: seconds charged so far.
        metrics: value by ``"<split>/<metric>"``, for example ``"validation/accuracy"``.
    """

    step: int
    train_seconds: float
    metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What ``Trainer.fit`` returns.

    Attributes:
        reason: why the run ended.
        step: updates made.
        seconds: seconds by account (``train``, ``eval``, ``log``, ``compile``, ...); they sum to
            the wall time of the run.
        evaluations: all evaluations, in order.
        state: the last state.
    """

    reason: StopReason
    step: int
    seconds: Mapping[str, float]
    evaluations: Sequence[Evaluation]
    state: TrainState


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """One recorded run as read back from a tracking store: the only input of scoring.

    Attributes:
        run_id: identity in the store it came from.
        workload, optimizer: registry names; ``optimizer`` is the label to show, which tells
            variants apart (``velo[embedded]``).
        seed: the run's seed.
        condition: ``"step"`` or ``"time"``.
        budget: limit of the budget, in steps or seconds.
        metric, direction: the workload's deciding metric and its direction.
        status: ``FINISHED``, ``FAILED``, ``KILLED`` or ``RUNNING``.
        reason: name of the ``StopReason``, or ``""`` when there is none.
        step, train_seconds: updates made and seconds charged in all.
        evaluations: in order of step.
        config: the flat configuration, as strings.
        tags: everything else that was recorded about the run.
    """

    run_id: str
    workload: str
    optimizer: str
    seed: int
    condition: str
    budget: float
    metric: str
    direction: Direction
    status: str
    reason: str
    step: int
    train_seconds: float
    evaluations: Sequence[Evaluation]
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Tracker(Protocol):
    """Where the numbers of one run go. Implementations live in ``tracking``."""

    def log(self, rows: Sequence[tuple[int, float, Mapping[str, float]]]) -> None:
        """Records rows ``(step, train_seconds, metrics)``; called while the clock is paused."""

    def finish(self, status: str, tags: Mapping[str, str], summary: Mapping[str, float]) -> None:
        """Ends the run with ``status`` (``FINISHED``, ``FAILED``, ``KILLED``), exactly once."""
