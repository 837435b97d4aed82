"""A workload from a flax model, a loss and arrays.

Boundary: supervised learning on arrays in memory; every other task is a subclass of ``Workload``.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from timetrial.framework.types import Direction, PyTree, Split
from timetrial.framework.workload import Batch, Sums, Workload
from timetrial.workloads.data.batching import check_batch_size, eval_batches, train_rows

Measure = Callable[[Any, Any], Any]
"""Of outputs and targets (N, ...): their mean, a scalar, or one value per example (N,) or more."""

Data = tuple[Any, Any]
"""Inputs ``x`` (N, ...) and targets ``y`` (N, ...), arrays of equally many examples."""

_ON: Final = ("train", "training", "is_training")
_OFF: Final = ("deterministic", "use_running_average")
"""Parameters of a model's ``__call__`` that are true in training, or false."""


def supervised(
    model: nn.Module,
    loss: Measure,
    train: Data,
    validation: Data,
    test: Data | None = None,
    *,
    metrics: Mapping[str, Measure] | None = None,
    direction: Direction | None = None,
    name: str = "",
    batch_size: int = 64,
    step_hint: int = 1000,
    eval_every_steps: int | None = 100,
    eval_every_seconds: float | None = None,
) -> Workload:
    """A workload from a flax model, a loss and arrays.

    Args:
        model: flax.linen module of ``x``. Its ``__call__`` may take ``train``, ``training``,
            ``is_training``, ``deterministic`` or ``use_running_average``, and draw from the rng
            ``dropout``. Collections beside ``params``, such as batch statistics, are kept.
        loss: of ``(outputs, y)``, as in ``optax.losses``; its mean over examples is trained on.
        train: inputs and targets ``(x, y)``. At most as many examples are evaluated as
            ``validation`` has.
        validation: the same for the split that decides.
        test: the same for a third split; None evaluates two.
        metrics: further measures by name; the first one decides the race, else the loss does.
        direction: whether the deciding metric is minimised or maximised; needed with ``metrics``.
        name: name in records, by default that of the model's class.
        batch_size: examples of an update, in [1, number of training examples].
        step_hint: length of learning-rate schedules, and the default budget, in updates, >= 1.
        eval_every_steps: updates between two evaluations, or None.
        eval_every_seconds: charged seconds between two evaluations, or None.

    Raises:
        ValueError: arrays of different lengths, a batch size that does not fit, a metric without
            direction.
        TypeError: the model is no flax.linen module.
    """
    _check(model, metrics, direction, step_hint)
    pairs = {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}
    data = {split: _arrays(split, pair) for split, pair in pairs.items() if pair is not None}
    made = _Supervised(model, loss, dict(metrics or {}), data, batch_size)
    made.name = name or type(model).__name__.lower()  # type: ignore[misc]
    made.direction = direction or Direction.MINIMIZE  # type: ignore[misc]
    made.step_hint = step_hint
    made.eval_every_steps, made.eval_every_seconds = eval_every_steps, eval_every_seconds
    return made


def _check(
    model: object,
    metrics: Mapping[str, Measure] | None,
    direction: Direction | None,
    step_hint: int,
) -> None:
    """Raises what ``supervised`` says of these arguments."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            "model: expected a flax.linen module (flax.nnx.bridge.to_linen makes one of an nnx "
            f"class), got {type(model).__name__}"
        )
    if metrics and direction is None:
        raise ValueError(
            "direction: expected Direction.MINIMIZE or Direction.MAXIMIZE with metrics, got None"
        )
    if step_hint < 1:
        raise ValueError(f"step_hint: expected a whole number >= 1, got {step_hint}")


def _arrays(split: Split, pair: Data) -> dict[str, np.ndarray]:
    x, y = (np.asarray(values) for values in pair)
    if not (x.ndim and y.ndim and 0 < len(x) == len(y)):
        raise ValueError(
            f"{split}: expected x and y of equally many examples, got shapes {x.shape}, {y.shape}"
        )
    return {"x": x, "y": y}


class _Supervised(Workload):
    """The workload of ``supervised``, whose arguments are checked."""

    def __init__(
        self,
        model: nn.Module,
        loss: Measure,
        metrics: Mapping[str, Measure],
        data: Mapping[Split, Mapping[str, np.ndarray]],
        batch_size: int,
    ) -> None:
        check_batch_size(batch_size, len(data[Split.TRAIN]["x"]))
        if batch_size < 1:
            raise ValueError(f"batch_size: expected a whole number >= 1, got {batch_size}")
        self.splits = tuple(data)
        self.metric = next(iter(metrics), "loss")  # type: ignore[misc]
        self._model, self._loss, self._data = model, loss, data
        self._measures = {**metrics, "loss": loss}
        self._batch_size = batch_size
        limit = len(data[Split.VALIDATION]["x"])
        self._eval_batches = {
            split: eval_batches(
                arrays,
                min(len(arrays["x"]), limit) if split is Split.TRAIN else len(arrays["x"]),
                min(256, max(len(arrays["x"]) for arrays in data.values())),
                what=split,
            )
            for split, arrays in data.items()
        }

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        keys = dict(zip(("params", "dropout"), jax.random.split(key), strict=True))
        first = jnp.asarray(self._data[Split.TRAIN]["x"][:1])
        variables = dict(self._model.init(keys, first, **self._mode(training=False)))
        return variables.pop("params"), variables

    def loss(
        self, params: PyTree, model_state: PyTree, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        outputs, new = self._model.apply(
            {"params": params, **model_state},
            jnp.asarray(batch["x"]),
            **self._mode(training=True),
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        return jnp.mean(self._loss(outputs, jnp.asarray(batch["y"]))), {**model_state, **new}

    def eval_step(self, params: PyTree, model_state: PyTree, batch: Batch) -> tuple[Sums, PyTree]:
        variables = {"params": params, **model_state}
        outputs = self._model.apply(
            variables, jnp.asarray(batch["x"]), **self._mode(training=False)
        )
        weight = jnp.asarray(batch["weight"])
        sums = {}
        for name, measure in self._measures.items():
            values = _by_example(measure, outputs, jnp.asarray(batch["y"]))
            sums[name] = (jnp.sum(values * weight), jnp.sum(weight))
        return sums, {}

    def train_batch(self, seed: int, step: int) -> Batch:
        data = self._data[Split.TRAIN]
        rows = train_rows(len(data["x"]), self._batch_size, seed, step)
        return {name: values[rows] for name, values in data.items()}

    def eval_batches(self, split: Split) -> Iterable[Batch]:
        return self._eval_batches[split]

    def datasets(self) -> Mapping[str, str]:
        return {str(split): _digest(arrays) for split, arrays in self._data.items()}

    def _mode(self, *, training: bool) -> dict[str, bool]:
        """The arguments of the model for training or evaluation."""
        known = inspect.signature(type(self._model).__call__).parameters
        on = {name: training for name in _ON if name in known}
        return on | {name: not training for name in _OFF if name in known}


def _by_example(measure: Measure, outputs: PyTree, y: jax.Array) -> jax.Array:
    """The measure of each example (N,), also where it returns the mean of a batch."""

    def of_one(output: PyTree, target: jax.Array) -> jax.Array:
        return jnp.mean(measure(jax.tree.map(lambda leaf: leaf[None], output), target[None]))

    values: jax.Array = jax.vmap(of_one)(outputs, y)
    return values


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype} {values.shape}\n".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
