"""Contract checks of a workload, for every entry of ``WORKLOADS``.

Boundary: each check takes a Subject and raises ContractError or AssertionError; nothing is written.
Checks depend on no data set and no model. Some need a setting of a usual name, such as
``eval_batch_size``, and do not apply without it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.bench.contracts import NotApplicableError, require
from timetrial.bench.contracts.resuming import from_disk, require_equal
from timetrial.framework.config import Choice
from timetrial.framework.entries import WorkloadEntry
from timetrial.framework.state import TrainState
from timetrial.framework.step import weighted_mean
from timetrial.framework.types import Direction, PyTree, Split
from timetrial.framework.update import make_train_step
from timetrial.framework.workload import Batch, Workload, spec_of
from timetrial.workloads import WORKLOADS

UPDATES: Final = 25
SMALL: Final = {
    "batch_size": 16,
    "eval_batch_size": 16,
    "train_examples": 40,
    "validation_examples": 33,
    "test_examples": 20,
}
"""Sizes for the checks, by setting: fast, and with a padded last batch."""

_ADAM: Final = optax.adam(5e-3)
_COUNTS: Final = (*SMALL, "step_hint", "eval_every_steps")


class Subject:
    """A workload under test; objects shared by checks are built once.

    Args:
        choice: its name in the registry, and settings.
    """

    def __init__(self, choice: Choice) -> None:
        self.name = choice.name
        self.settings: Any = choice.settings
        self.entry: WorkloadEntry = WORKLOADS[choice.name]

    def make(self, **changes: Any) -> Workload:
        """Builds the workload, with some settings changed."""
        return self.entry.make(dataclasses.replace(self.settings, **changes))

    def has(self, setting: str) -> bool:
        """True for the name of one of its settings."""
        return setting in {field.name for field in dataclasses.fields(self.settings)}

    @functools.cached_property
    def workload(self) -> Workload:
        """The workload itself."""
        return self.make()

    @functools.cached_property
    def init(self) -> Any:
        """Its compiled initialisation, a function of the key."""
        return jax.jit(self.workload.init)

    @functools.cached_property
    def trained(self) -> tuple[PyTree, PyTree]:
        """Parameters and model state after some updates with Adam."""
        state = self.updated(self.fresh(), UPDATES)
        return state.params, state.model_state

    def fresh(self, seed: int = 0) -> TrainState:
        """The state before the first update with Adam."""
        params, model_state = self.init(jax.random.key(seed))
        key = jax.random.key(seed + 1)
        return TrainState(jnp.int32(0), params, model_state, _ADAM.init(params), key)

    def updated(self, state: TrainState, updates: int) -> TrainState:
        """The state after further updates."""
        for t in range(int(state.step), int(state.step) + updates):
            state, _ = self._step(state, self.workload.train_batch(0, t), {})
        return state

    @functools.cached_property
    def _step(self) -> Any:
        return jax.jit(make_train_step(self.workload, _ADAM))


Check = Callable[[Subject], None]
Weighted = dict[str, float]


def evaluated(
    workload: Workload, params: PyTree, model_state: PyTree, split: Split
) -> tuple[Weighted, Weighted]:
    """Metrics of a split, and the total weight of each mean."""
    step = _eval_step(workload)
    results = jax.device_get(
        [step(params, model_state, batch) for batch in workload.eval_batches(split)]
    )
    sums = [s for s, _ in results]
    metrics = {name: weighted_mean([s[name] for s in sums]) for name in sums[0]}
    weights = {name: float(sum(s[name][1] for s in sums)) for name in sums[0]}
    return metrics | workload.finish([outputs for _, outputs in results]), weights


@functools.lru_cache(maxsize=4)
def _eval_step(workload: Workload) -> Any:
    return jax.jit(workload.eval_step)


def same(batch: Batch, other: Batch) -> bool:
    """True for batches of equal names and values."""
    return batch.keys() == other.keys() and all(np.array_equal(batch[k], other[k]) for k in batch)


def shapes(batch: Batch) -> dict[str, str]:
    """Dtype and shape of every array of a batch."""
    return {name: f"{values.dtype}{list(values.shape)}" for name, values in batch.items()}


def the_entry_describes_it(subject: Subject) -> None:
    """Name, metric, direction, splits and step hint match the entry and its settings."""
    workload, entry = subject.workload, subject.entry
    require(isinstance(workload, Workload), "make(settings) to return a Workload", type(workload))
    if ":" not in subject.name:
        require(workload.name == subject.name, f"name = {subject.name!r}", repr(workload.name))
    require(isinstance(workload.direction, Direction), "a Direction", repr(workload.direction))
    stated = (entry.metric, entry.direction)
    require(stated == (workload.metric, workload.direction), f"{stated} of the entry",
            (workload.metric, workload.direction))  # fmt: skip
    summary = entry.summary
    require(bool(summary) and "\n" not in summary, "a summary of one line", repr(summary))
    splits = tuple(workload.splits)
    known = len(set(splits)) == len(splits) and set(splits) <= set(Split)
    require(known and Split.VALIDATION in splits, f"splits out of {', '.join(Split)}", splits)
    require(workload.step_hint >= 1, "a step_hint >= 1", workload.step_hint)
    for name in ("step_hint", "eval_every_steps", "eval_every_seconds"):
        if subject.has(name):
            value = getattr(subject.settings, name)
            require(getattr(workload, name) == value, f"{name} = {value}", getattr(workload, name))


def batches_are_a_function_of_seed_and_step(subject: Subject) -> None:
    """Training batches depend on seed and step alone, in any order, and have one shape."""
    workload, other = subject.workload, subject.make()
    forward = [workload.train_batch(7, step) for step in range(6)]
    backward = [other.train_batch(7, step) for step in reversed(range(6))][::-1]
    for step, (batch, again) in enumerate(zip(forward, backward, strict=True)):
        require(same(batch, again), f"equal batches of update {step}", "others in another order")
        require(shapes(batch) == shapes(forward[0]), f"shapes {shapes(forward[0])}", shapes(batch))
    late = same(workload.train_batch(7, 10**7), other.train_batch(7, 10**7))
    require(late, "equal batches of update 10,000,000", "others from a second workload")
    require(not same(forward[0], forward[1]), "other batches at other steps", "equal ones")
    require(not same(forward[0], workload.train_batch(8, 0)), "other batches for other seeds",
            "equal ones")  # fmt: skip
    for name, values in forward[0].items():
        require(isinstance(values, np.ndarray), f"a numpy array {name}", type(values).__name__)
        require(bool(np.isfinite(values).all()), f"finite numbers in {name}", "others")


def changing_a_batch_changes_no_other(subject: Subject) -> None:
    """Writing into a training batch does not change later batches of the same step."""
    workload = subject.make()
    before = {name: values.copy() for name, values in workload.train_batch(0, 0).items()}
    for values in workload.train_batch(0, 0).values():
        if values.flags.writeable:
            values[...] = 0
    require(same(workload.train_batch(0, 0), before), "the same batch again", "a changed one")


def batches_ahead_are_those_of_every_step(subject: Subject) -> None:
    """``batches`` gives the batches of ``train_batch`` from any update on; the specs fit them."""
    workload = subject.workload
    for start in (0, 3):
        feed = workload.batches(5, start)
        for step in range(start, start + 3):
            made = next(feed)
            require(same(made, workload.train_batch(5, step)), f"the batch of {step}", "another")
        close = getattr(feed, "close", None)
        if close is not None:
            close()
    spec, found = workload.batch_spec(), spec_of(workload.train_batch(0, 0))
    require(spec == found, f"batch_spec {found}", spec)
    batch = next(iter(workload.eval_batches(workload.splits[0])))
    spec, found = workload.eval_batch_spec(), spec_of(batch)
    require(spec == found, f"eval_batch_spec {found}", spec)


def evaluation_batches_are_fixed_and_of_one_shape(subject: Subject) -> None:
    """Evaluation batches of all splits have one shape, and are the same at every call."""
    workload = subject.workload
    first = shapes(next(iter(workload.eval_batches(workload.splits[0]))))
    for split in workload.splits:
        batches = list(workload.eval_batches(split))
        require(len(batches) >= 1, f"at least one batch of {split}", len(batches))
        for batch, again in zip(batches, workload.eval_batches(split), strict=True):
            require(shapes(batch) == first, f"shapes {first} in {split}", shapes(batch))
            require(same(batch, again), f"the same batches of {split} again", "others")
            weight = batch.get("weight", np.ones(1))
            valid = bool(np.isfinite(weight).all() and (weight >= 0).all())
            require(valid, f"finite weights >= 0 in {split}", weight)


def it_learns(subject: Subject) -> None:
    """After 25 updates with Adam the loss is lower, in training and in evaluation."""
    workload, split = subject.workload, subject.workload.splits[0]
    start: tuple[PyTree, PyTree] = subject.init(jax.random.key(0))
    before, _ = evaluated(workload, *start, split)
    after, _ = evaluated(workload, *subject.trained, split)
    for name in ("loss", workload.metric):
        require(name in after, f"metric {name} from evaluation", ", ".join(after))
    require(after["loss"] < before["loss"], f"a {split} loss below {before['loss']}", after["loss"])
    loss, key = jax.jit(workload.loss), jax.random.key(2)
    batches = [workload.train_batch(0, t) for t in range(5)]
    first, last = (
        float(np.mean([loss(*at, batch, key)[0] for batch in batches]))
        for at in (start, subject.trained)
    )
    require(last < first, f"a training loss below {first} on 5 batches", last)


def metrics_do_not_depend_on_the_evaluation_batch_size(subject: Subject) -> None:
    """Evaluation batches of 7 and of 64 examples give the same metrics."""
    if not subject.has("eval_batch_size"):
        raise NotApplicableError("its settings have no eval_batch_size")
    params, model_state = subject.trained
    for size in (7, 64):
        workload = subject.make(eval_batch_size=size)
        for split in workload.splits[:2]:
            expected = evaluated(subject.workload, params, model_state, split)
            found = evaluated(workload, params, model_state, split)
            where = f"of {split} with eval_batch_size={size}"
            _require_close(f"metrics {where}", found[0], expected[0], 2e-5, 2e-6)
            _require_close(f"weights {where}", found[1], expected[1], 1e-6, 1e-12)


def _require_close(
    what: str, found: Weighted, expected: Weighted, relative: float, absolute: float
) -> None:
    close = found.keys() == expected.keys() and all(
        abs(found[k] - expected[k]) <= max(relative * abs(expected[k]), absolute) for k in found
    )
    require(close, f"{what} {expected}", found)


def padding_counts_for_nothing(subject: Subject) -> None:
    """Values of weight 0 do not change the sums of an evaluation batch."""
    workload = subject.workload
    split = Split.VALIDATION
    if subject.has("eval_batch_size") and _padded(workload, split) is None:
        workload = subject.make(eval_batch_size=7)
    batch = _padded(workload, split)
    if batch is None:
        raise NotApplicableError("no validation batch has an example of weight 0")
    changed = _other_padding(batch, workload, split)
    if same(batch, changed):
        raise NotApplicableError("no array of its batches has the leading shape of the weights")
    params, model_state = subject.trained
    step = _eval_step(workload)
    expected, sums = (step(params, model_state, each)[0] for each in (batch, changed))
    for name, pair in sums.items():
        np.testing.assert_allclose(pair, expected[name], rtol=1e-6, err_msg=name)


def _padded(workload: Workload, split: Split) -> Batch | None:
    """The last batch of a split that has examples of weight 0."""
    padded = [b for b in workload.eval_batches(split) if "weight" in b and (b["weight"] == 0).any()]
    return padded[-1] if padded else None


def _other_padding(batch: Batch, workload: Workload, split: Split) -> Batch:
    """The batch with mirrored values, still in their range, where the weight is 0."""
    changed, weight = dict(batch), batch["weight"]
    for name, values in batch.items():
        if name != "weight" and values.shape[: weight.ndim] == weight.shape:
            seen = np.concatenate([b[name] for b in workload.eval_batches(split)])
            mirrored = ~values if values.dtype == bool else seen.min(0) + seen.max(0) - values
            changed[name] = values.copy()
            changed[name][weight == 0] = mirrored[weight == 0]
    return changed


def initialisation_is_a_function_of_the_key(subject: Subject) -> None:
    """Equal keys give equal parameters, other keys different ones; the model state is a dict."""
    keys = [jax.random.key(seed) for seed in (0, 0, 1)]
    first, again, other = (subject.init(key) for key in keys)
    require(_equal(first, again), "equal parameters of equal keys", "others")
    require(not _equal(first, other), "other parameters of other keys", "equal ones")
    require(isinstance(first[1], dict), "a dict as model state", type(first[1]).__name__)


def _equal(tree: PyTree, other: PyTree) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, tree, other)))


def training_state_keeps_its_structure(subject: Subject) -> None:
    """The loss is a scalar, the model state keeps its shapes, and sums are pairs of scalars."""
    workload = subject.workload
    params, model_state = jax.eval_shape(workload.init, jax.random.key(0))
    batch = workload.train_batch(0, 0)
    loss, new = jax.eval_shape(workload.loss, params, model_state, batch, jax.random.key(1))
    require(loss.shape == (), "a scalar loss", loss.shape)
    require(new == model_state, f"a model state {model_state}", new)
    batch = next(iter(workload.eval_batches(workload.splits[-1])))
    sums, _ = jax.eval_shape(workload.eval_step, params, model_state, batch)
    require("loss" in sums, "a sum named loss", ", ".join(sums))
    found = {value.shape for pair in sums.values() for value in pair}
    require(found == {()}, "pairs of scalars as sums", found)


def a_run_from_a_checkpoint_is_bitwise_the_same(subject: Subject) -> None:
    """A state that is saved and read back gives the same updates to the last bit."""
    half = subject.updated(subject.fresh(), 2)
    resumed = subject.updated(from_disk(half, subject.fresh(seed=1)), 2)
    require_equal(subject.updated(half, 2), resumed)


def data_sets_have_digests(subject: Subject) -> None:
    """``datasets()`` gives the sha256 digest of each data set, as 64 hexadecimal digits."""
    found: Mapping[str, str] = subject.workload.datasets()
    for name, digest in found.items():
        valid = bool(re.fullmatch("[0-9a-f]{64}", digest))
        require(valid, f"64 hexadecimal digits for {name}", repr(digest))


def impossible_sizes_are_refused(subject: Subject) -> None:
    """A batch size, number of examples or step count of -1 raises an error with its name."""
    counts = [name for name in _COUNTS if subject.has(name)]
    if not counts:
        raise NotApplicableError(f"its settings have none of {', '.join(_COUNTS)}")
    for name in counts:
        try:
            subject.make(**{name: -1})
        except ValueError as error:
            require(name in str(error), f"a ValueError that names {name}", repr(str(error)))
        else:
            require(False, f"a ValueError for {name}=-1", "none")


def targets_are_finite(subject: Subject) -> None:
    """Fixed targets, if any, are finite numbers for splits of the workload."""
    for split, target in subject.entry.targets.items():
        require(split in subject.workload.splits, f"one of {subject.workload.splits}", split)
        require(math.isfinite(target), f"a finite target for {split}", target)


CHECKS: Final[tuple[Check, ...]] = (
    the_entry_describes_it,
    batches_are_a_function_of_seed_and_step,
    changing_a_batch_changes_no_other,
    batches_ahead_are_those_of_every_step,
    evaluation_batches_are_fixed_and_of_one_shape,
    it_learns,
    metrics_do_not_depend_on_the_evaluation_batch_size,
    padding_counts_for_nothing,
    initialisation_is_a_function_of_the_key,
    training_state_keeps_its_structure,
    a_run_from_a_checkpoint_is_bitwise_the_same,
    data_sets_have_digests,
    impossible_sizes_are_refused,
    targets_are_finite,
)
