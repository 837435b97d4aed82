"""Contract checks of an optimizer, for every entry of ``OPTIMIZERS``.

Boundary: each check takes a Subject and raises ContractError or AssertionError; nothing is written.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.bench.contracts import NotApplicableError, require
from timetrial.bench.contracts.regression import Regression
from timetrial.bench.contracts.resuming import from_disk, require_equal
from timetrial.bench.tune import space as spaces
from timetrial.framework import callbacks as cb
from timetrial.framework.budget import Budget, StopReason
from timetrial.framework.config import Choice, RunConfig
from timetrial.framework.entries import Horizon, Optimizer, OptimizerEntry
from timetrial.framework.extra_inputs import REMAINING_FRACTION, of_step, taken
from timetrial.framework.records import RunResult
from timetrial.framework.state import TrainState
from timetrial.framework.step import Program
from timetrial.framework.trainer import Trainer
from timetrial.framework.types import Metrics, PyTree
from timetrial.optimizers import OPTIMIZERS
from timetrial.optimizers.schedules import sampled
from timetrial.workloads import WORKLOADS

STEPS: Final = 200
HORIZON: Final = Horizon(step_hint=STEPS, steps=STEPS)
PARAMS: Final = {
    "scalar": np.float32(0.3),
    "vector": np.linspace(-1, 1, 5, dtype=np.float32),
    "matrix": np.sin(np.arange(12, dtype=np.float32) ** 2).reshape(3, 4),
    "kernel": np.sin(np.arange(54, dtype=np.float32) ** 2).reshape(3, 3, 2, 3),
    "empty": {},
}
"""Parameters of every rank found in models; full rank, so that eigenvectors are determined."""

DTYPES: Final = (
    ("float32", False), ("bfloat16", False), ("float16", False), ("float32", True),
    ("float64", True), ("bfloat16", True),
)  # fmt: skip
"""Dtypes of parameters, and whether JAX computes with 64 bits."""

_MOST_UPDATES: Final = 32  # some optimizers average gradients over several updates


class Subject:
    """An optimizer under test.

    Args:
        choice: its name in the registry, and settings.
    """

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self.settings: Any = choice.settings
        self.entry: OptimizerEntry = OPTIMIZERS[choice.name]

    @functools.cached_property
    def built(self) -> Optimizer:
        """The optimizer for ``HORIZON``.

        Raises:
            ContractError: ``make`` returns something else.
        """
        built = self.entry.build(self.settings, HORIZON)
        made = built.tx
        expected = "make(settings, horizon) to return an optax.GradientTransformation"
        require(isinstance(made, optax.GradientTransformation), expected, type(made).__name__)
        return built

    @property
    def tx(self) -> optax.GradientTransformation:
        """Its transformation, for ``HORIZON``."""
        return self.built.tx

    @functools.cached_property
    def update(self) -> Any:
        """One compiled update on a quadratic: ``(params, state) -> (params, state)``."""
        return jax.jit(functools.partial(_step, self))

    @functools.cached_property
    def program(self) -> Program:
        """The program of a small regression problem."""
        workload = Regression(step_hint=STEPS, eval_every_steps=STEPS // 2)
        return Program(workload, dataclasses.replace(self.built, tx=self.tx))

    @functools.cached_property
    def trained(self) -> tuple[RunResult, RunResult]:
        """Two equal runs of ``STEPS`` updates on a small regression problem."""
        return self.run(), self.run()

    def run(self, *callbacks: cb.Callback, state: TrainState | None = None) -> RunResult:
        """A run of ``STEPS`` updates in all, from the start or from a state."""
        chosen = [cb.StopIfDiverged(), cb.FeedRemainingFraction(), *callbacks]
        start = self.program.init(0) if state is None else state
        return Trainer(self.program, Budget(steps=STEPS), chosen).fit(start)


Check = Callable[[Subject], None]


def _start() -> PyTree:
    return jax.tree.map(jnp.asarray, PARAMS)


def _step(
    subject: Subject,
    params: PyTree,
    state: PyTree,
    tx: Any = None,
) -> Any:
    """One update on a quadratic, by ``tx`` or the subject itself; returns ``(params, state)``."""

    def gradients(params: PyTree) -> tuple[jax.Array, PyTree]:
        leaves = jax.tree.leaves(params)
        terms = [jnp.sum(0.05 * p * p + 0.01 * p).astype(jnp.float32) for p in leaves]
        loss = sum(terms, jnp.float32(0.0))
        return loss, jax.tree.map(lambda p: 0.1 * p + 0.01, params)

    loss, grads = gradients(params)
    available = of_step(gradients, loss, grads) | {REMAINING_FRACTION: jnp.float32(1.0)}
    extra = taken(subject.tx, subject.built.takes, available)
    tx = tx or subject.tx
    if isinstance(tx, optax.GradientTransformation):
        tx = optax.with_extra_args_support(tx)  # MultiSteps is another class, and has it
    updates, state = tx.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


def _types(tree: PyTree) -> dict[str, str]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in leaves}


def _assert_close(tree: PyTree, other: PyTree) -> None:
    for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-5, atol=1e-7)


def settings_are_frozen_and_described(subject: Subject) -> None:
    """The settings are a frozen dataclass; the summary is one line."""
    settings, summary = subject.settings, subject.entry.summary
    name = next((field.name for field in dataclasses.fields(settings)), "any")
    try:
        setattr(settings, name, getattr(settings, name, None))
    except dataclasses.FrozenInstanceError:
        pass
    else:
        require(False, "settings with @dataclasses.dataclass(frozen=True)", "one that is not")
    require(bool(summary) and "\n" not in summary, "a summary of one line", repr(summary))


def records_text_and_finite_learning_rates(subject: Subject) -> None:
    """Variant and notes are text; learning rates, if any, are finite numbers."""
    entry, settings = subject.entry, subject.settings
    variant, notes = entry.variant(settings), dict(entry.notes(settings, HORIZON))
    require(isinstance(variant, str), "text from variant(settings)", repr(variant))
    texts = all(isinstance(text, str) for item in notes.items() for text in item)
    require(texts, "text by text from notes(settings, horizon)", notes)
    last = entry.last_step(settings, HORIZON)
    require(last is None or last >= 1, "last_step to be None or >= 1", last)
    rates = entry.learning_rates and entry.learning_rates(settings, HORIZON)
    if rates is not None:
        made = len(sampled(rates, STEPS, STEPS + 1))
        require(made == STEPS + 1, f"finite learning rates at {STEPS + 1} steps", f"{made} of them")


def takes_every_value_of_its_search_space(subject: Subject) -> None:
    """Both ends of every range and every choice of the search space are valid settings."""
    if subject.entry.space is None:
        raise NotApplicableError("it has no search space and cannot be tuned without study.space=")
    own = {key: v for key, v in subject.entry.space.items() if not key.startswith("workload.")}
    workload, entry = next(iter(WORKLOADS.built_in.items()))
    choice = Choice(workload, entry.settings())
    spaces.check(own, RunConfig(choice, subject.choice, Budget(steps=STEPS)))


def keeps_shapes_and_dtypes_and_moves_every_tensor(subject: Subject) -> None:
    """Updates change every parameter, but no shape or dtype of parameters or state."""
    params = _start()
    state = subject.tx.init(params)
    types, state_types = _types(params), _types(state)
    moved: set[str] = set()
    for update in range(_MOST_UPDATES):
        before, (params, state) = params, subject.update(params, state)
        require(_types(params) == types, f"parameters {types}", _types(params))
        require(_types(state) == state_types, f"a state {state_types}", _types(state))
        leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        for (path, new), old in zip(leaves, jax.tree.leaves(before), strict=True):
            name = jax.tree_util.keystr(path)
            require(bool(jnp.all(jnp.isfinite(new))), f"finite parameters {name}", new)
            moved |= set() if np.array_equal(new, old) else {name}
        if update >= 2 and moved == set(types):
            return
    stuck = ", ".join(sorted(set(types) - moved))
    require(False, f"every tensor to move within {_MOST_UPDATES} updates", f"{stuck} unmoved")


def updates_alike_compiled_one_by_one_and_under_scan(subject: Subject) -> None:
    """Four compiled updates, one by one and in one ``lax.scan``, give equal parameters."""
    tx = subject.tx

    def scanned(params: PyTree) -> PyTree:
        def body(carry: Any, _: None) -> tuple[Any, None]:
            return _step(subject, *carry), None

        return jax.lax.scan(body, (params, tx.init(params)), length=4)[0][0]

    params = _start()
    state = tx.init(params)
    for _ in range(4):
        params, state = subject.update(params, state)
    _assert_close(params, jax.jit(scanned)(_start()))


def vmap_over_seeds_equals_a_loop_over_seeds(subject: Subject) -> None:
    """Two updates under ``vmap`` over three sets of parameters equal those of each set alone."""
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p, p - 1]), _start())

    def two_updates(update: Any, params: PyTree, init: Any) -> PyTree:
        state = init(params)
        for _ in range(2):
            params, state = update(params, state)
        return params

    vmapped = jax.jit(jax.vmap(functools.partial(_step, subject)))
    together = two_updates(vmapped, many, jax.vmap(subject.tx.init))
    for i in range(3):
        one = jax.tree.map(lambda p, i=i: p[i], many)
        alone = two_updates(subject.update, one, subject.tx.init)
        _assert_close(alone, jax.tree.map(lambda p, i=i: p[i], together))


def _combined(tx: optax.GradientTransformation) -> Sequence[optax.GradientTransformation]:
    """A transformation after ``clip_by_global_norm``, and inside ``optax.masked``."""
    mask = {"scalar": False, "vector": True, "matrix": True, "kernel": False, "empty": {}}
    return optax.chain(optax.clip_by_global_norm(1.0), tx), optax.masked(tx, mask)


def works_in_a_chain_and_masked(subject: Subject) -> None:
    """Updates stay finite after ``clip_by_global_norm`` and inside ``optax.masked``."""
    start = _start()
    chained, masked = _combined(subject.tx)

    def updates(start: PyTree) -> Any:
        params, _ = _step(subject, start, chained.init(start), chained)
        return params, _step(subject, start, masked.init(start), masked)[1]

    for leaf in jax.tree.leaves(jax.jit(updates)(start)):
        require(bool(jnp.all(jnp.isfinite(leaf))), "finite numbers", leaf)


def keeps_the_types_of_its_state_for_parameters_of_any_dtype(subject: Subject) -> None:
    """The state consists of arrays; an update changes no dtype, under x64 or accumulation."""
    for leaf in jax.tree.leaves(subject.tx.init(_start())):
        require(isinstance(leaf, jax.Array), "arrays in the state", type(leaf).__name__)
    for dtype, x64 in DTYPES:
        for accumulated in (False, True):
            with jax.enable_x64(x64):
                _require_same_types(subject, dtype, accumulated, f"{dtype}, x64 {x64}")


def _require_same_types(subject: Subject, dtype: str, accumulated: bool, where: str) -> None:
    """Checks the types of parameters and state before and after an update; computes nothing."""
    tx: Any = subject.entry.build(subject.settings, HORIZON).tx
    if accumulated:
        tx, where = optax.MultiSteps(tx, 2), f"{where}, accumulated"
    params = jax.tree.map(lambda p: jax.ShapeDtypeStruct(np.shape(p), dtype), PARAMS)
    state = jax.eval_shape(tx.init, params)
    new, new_state = jax.eval_shape(functools.partial(_step, subject, tx=tx), params, state)
    require(_types(new) == _types(params), f"parameters ({where}) {_types(params)}", _types(new))
    old, changed = _types(state), _types(new_state)
    wrong = {name: changed.get(name) for name in old if old[name] != changed.get(name)}
    require(not wrong, f"a state ({where}) with { ({name: old[name] for name in wrong}) }", wrong)


def evaluates_at_parameters_of_the_same_shapes(subject: Subject) -> None:
    """``eval_params(opt_state, params)`` is jittable and has the parameters' shapes and dtypes."""
    params = _start()
    for tx in (subject.tx, *_combined(subject.tx)):
        found = jax.jit(subject.entry.eval_params)(tx.init(params), params)
        require(_types(found) == _types(params), f"parameters {_types(params)}", _types(found))


def evaluations_leave_the_training_unchanged(subject: Subject) -> None:
    """Training is bitwise the same with and without evaluations in between."""
    workload: Any = subject.program.workload
    evaluated, often = subject.trained[0], workload.eval_every_steps
    workload.eval_every_steps = None
    try:
        require_equal(evaluated.state, subject.run().state, "without evaluations")
    finally:
        workload.eval_every_steps = often


def training_lowers_the_loss_and_repeats_bitwise(subject: Subject) -> None:
    """The loss falls on a small regression problem; a second run is bitwise equal."""
    first, again = subject.trained
    reason = first.reason
    require(reason is StopReason.BUDGET, f"a run of {STEPS} updates", f"it ended as {reason.name}")
    before, after = (first.evaluations[i].metrics["train/loss"] for i in (0, -1))
    require(after < before, f"a loss below {before:.6g} after {STEPS} updates", f"{after:.6g}")
    for one, two in zip(*(jax.tree.leaves(r.state.params) for r in subject.trained), strict=True):
        require(np.array_equal(one, two), f"equal parameters {one} of two runs", two)
    require(first.evaluations[-1].metrics == again.evaluations[-1].metrics, "equal metrics", "not")


class _ThroughDisk(cb.Callback):
    """Saves and reads back the state at an evaluation."""

    def __init__(self, program: Program) -> None:
        self.states: list[TrainState] = []
        self._program = program

    def on_eval_end(self, info: cb.StepInfo, metrics: Metrics, state: TrainState) -> None:
        if info.step == STEPS // 2:
            self.states.append(from_disk(state, self._program.init(1)))


def a_run_from_a_checkpoint_is_bitwise_the_same(subject: Subject) -> None:
    """A state that is saved in the middle and read back gives the same run to the last bit."""
    saved = _ThroughDisk(subject.program)
    subject.run(saved)
    require_equal(subject.trained[0].state, subject.run(state=saved.states[0]).state)


CHECKS: Final[tuple[Check, ...]] = (
    settings_are_frozen_and_described,
    records_text_and_finite_learning_rates,
    takes_every_value_of_its_search_space,
    keeps_shapes_and_dtypes_and_moves_every_tensor,
    updates_alike_compiled_one_by_one_and_under_scan,
    vmap_over_seeds_equals_a_loop_over_seeds,
    works_in_a_chain_and_masked,
    keeps_the_types_of_its_state_for_parameters_of_any_dtype,
    evaluates_at_parameters_of_the_same_shapes,
    evaluations_leave_the_training_unchanged,
    training_lowers_the_loss_and_repeats_bitwise,
    a_run_from_a_checkpoint_is_bitwise_the_same,
)
