"""The compiled program of a run: initialise, one update, one evaluation.

Boundary: pure functions of arrays and their compilation; no clock, budget or callback.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.framework import hosts, memory
from timetrial.framework.accumulation import loss_and_gradients
from timetrial.framework.devices import Devices
from timetrial.framework.entries import current_params
from timetrial.framework.feed import Feed
from timetrial.framework.memory import Memory
from timetrial.framework.types import Metrics, PyTree, Split, TrainState
from timetrial.framework.workload import Batch, Sums, Workload

Inputs = Mapping[str, np.ndarray]
"""Inputs of an update from callbacks, float32 scalars: ``{"remaining_fraction": 0.73}``."""

_COMPILE_FAST = {"xla_backend_optimization_level": 0}
# Initialisers run once and are mostly random numbers. LLVM optimises them for a long time: 16.3 s
# of CPU time for a U-Net of 19 tensors, 2.0 s without. The numbers are the same.

EVALUATIONS_AHEAD = 2
"""Evaluation batches under way at once; more would wait in the device's memory."""

NORM_APART: Final = 2**20
"""Parameters from which on the norm of the gradient is computed apart from the optimizer."""

EvalParams = Callable[[PyTree, PyTree], PyTree]
"""Parameters to evaluate, from ``(opt_state, params)``."""

TrainStep = Callable[[TrainState, Batch, Inputs], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    workload: Workload, tx: optax.GradientTransformation, microbatches: int = 1
) -> TrainStep:
    """Returns the pure function of one update: ``(state, batch, inputs) -> (state, metrics)``.

    Every optimizer is called alike: ``tx.update(grads, opt_state, params, value=loss, **inputs)``.
    Optimizers ignore extra arguments that they do not need. The metrics are ``loss``, the mean
    training loss before the update, and ``grad_norm``, the Euclidean norm of its gradient over all
    parameters.
    """
    update = optax.with_extra_args_support(tx).update
    gradients = loss_and_gradients(workload, microbatches)

    def train_step(
        state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, model_state), grads = gradients(state.params, state.model_state, batch, key)
        grads, norm = _with_norm(grads)
        updates, opt_state = update(grads, state.opt_state, state.params, value=loss, **inputs)
        new = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
            key=state.key,
        )
        return new, {"loss": loss, "grad_norm": norm}

    return train_step


def _with_norm(grads: PyTree) -> tuple[PyTree, jax.Array]:
    """The gradient and its Euclidean norm; of a large model computed apart from the optimizer.

    Otherwise XLA computes squares once for the norm and the optimizer, and stores them: 3 % of the
    CPU time of an update of a DLRM (docs/speed.md).
    """
    norm = optax.tree.norm(jax.tree.map(_not_half, grads))
    if sum(leaf.size for leaf in jax.tree.leaves(grads)) < NORM_APART:
        return grads, norm
    apart: tuple[PyTree, jax.Array] = jax.lax.optimization_barrier((grads, norm))
    return apart


def _not_half(leaf: jax.Array) -> jax.Array:
    """In float32 if half precision: squares of float16 are infinite from 256 on."""
    half = leaf.dtype in (jnp.float16, jnp.bfloat16)
    return leaf.astype(jnp.float32) if half else leaf


def all_finite(tree: PyTree) -> jax.Array:
    """Whether no number of a tree is NaN or infinite, a boolean scalar."""
    inexact = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in inexact], bool))


class Program:
    """The functions of one (workload, optimizer), compiled once and reused for all seeds.

    ``compile`` compiles ahead of time, so that compilation is timed separately from the first
    update. With ``JAX_DISABLE_JIT=1`` nothing is compiled and every operation runs by itself, for
    debugging. The seconds of such a run are not comparable with those of others.

    Args:
        workload: training problem.
        tx: optimizer.
        eval_params: parameters to evaluate, from ``(opt_state, params)``. Pure, jittable.
        devices: devices to compute on; by default the first one.
        microbatches: parts of a batch, see ``loss_and_gradients``.

    Attributes:
        compiled: True when the update and the evaluation are compiled.
        memory: memory that the run needs, once compiled; None without compilation.
        finite_params: False if parameters of the last evaluation were NaN or infinite.
    """

    def __init__(
        self,
        workload: Workload,
        tx: optax.GradientTransformation,
        eval_params: EvalParams = current_params,
        devices: Devices | None = None,
        microbatches: int = 1,
    ) -> None:
        self.workload = workload
        self.tx = tx
        self.eval_params = eval_params
        self.devices = devices or Devices()
        self.microbatches = microbatches
        # A workload that knows no shares can be trained on one host.
        self._share = (self.devices.share,) if self.devices.share.count > 1 else ()
        self.memory: Memory | None = None
        self.finite_params = True
        self._eval_params = eval_params
        self.compiled = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
        places = self.places
        self._init_model = jax.jit(
            self._fresh_model,
            out_shardings=(places.params, places.model_state, self.devices.whole),
            compiler_options=_COMPILE_FAST,
        )
        self._init_optimizer = jax.jit(
            tx.init, out_shardings=places.opt_state, compiler_options=_COMPILE_FAST
        )
        self._train_step: Any = None
        self._eval_step: Any = None
        self._all_finite: Any = None
        self._update_bytes = self._eval_bytes = 0

    def with_optimizer(
        self, tx: optax.GradientTransformation, eval_params: EvalParams = current_params
    ) -> Program:
        """A program of the same workload; shares all functions independent of the optimizer."""
        program = Program(self.workload, tx, eval_params, self.devices, self.microbatches)
        if program.places.params == self.places.params:
            program._init_model = self._init_model
            program._eval_step, program._eval_bytes = self._eval_step, self._eval_bytes
            program._all_finite = self._all_finite
        return program

    @functools.cached_property
    def places(self) -> TrainState:
        """The sharding of every array of the state, or one sharding for all of a part."""
        whole: Any = self.devices.whole
        if self.devices.count == 1:
            return TrainState(whole, whole, whole, whole, whole)
        shapes = jax.eval_shape(self._fresh_state, *_key_data(0))
        found: TrainState = self.devices.shardings(shapes, shapes.params)
        return found

    def _fresh_model(self, init_key: Any, key: Any) -> tuple[PyTree, PyTree, jax.Array]:
        params, model_state = self.workload.init(jax.random.wrap_key_data(init_key))
        return params, model_state, jax.random.wrap_key_data(key)

    def _fresh_state(self, init_key: Any, key: Any) -> TrainState:
        params, model_state, key = self._fresh_model(init_key, key)
        step = jnp.zeros((), jnp.int32)
        return TrainState(step, params, model_state, self.tx.init(params), key)

    def init(self, seed: int) -> TrainState:
        """The state before the first update; parameters depend on the seed only.

        Every array is made where it stays: nothing holds the whole of a divided one.

        Raises:
            UserError: the state does not fit into memory.
        """
        keys = _key_data(seed)
        if self.compiled:
            model = self._init_model.eval_shape(*keys)
            shapes = (*model, self._init_optimizer.eval_shape(model[0]))
            Memory(memory.bytes_of(shapes), 0, self.devices.limit).check()
        params, model_state, key = self._init_model(*keys)
        opt_state = self._init_optimizer(params)
        step = jax.device_put(np.zeros((), np.int32), self.devices.whole)
        return TrainState(step, params, model_state, opt_state, key)

    def feed(self, seed: int, start: int) -> Feed:
        """The batches from update ``start`` on, on the devices before they are asked for."""
        batches = self.workload.batches(seed, start, *self._share)
        return Feed(batches, self.devices.ahead, self.devices.place)

    def compile(self, state: TrainState, inputs: Inputs) -> None:
        """Compiles the update and the evaluation for these shapes; a second call does nothing.

        Args:
            state: a state of the run; only its shapes matter.
            inputs: inputs of an update; only the names matter.

        Raises:
            ConfigError: the batches cannot be divided among the devices.
        """
        if self._train_step is None:
            self._compile_update(state, inputs)
        if self._eval_step is None:
            batch = self.workload.eval_batch_spec()
            self.devices.check(batch, "evaluation batch")
            self._eval_step, self._eval_bytes = self._ahead(
                self.workload.eval_step,
                (state.params, state.model_state, batch),
                (self.places.params, self.places.model_state, self.devices.rows),
                self.devices.whole,
            )
            self._eval_bytes += self._batch_bytes(batch, EVALUATIONS_AHEAD)
        if self._all_finite is None:
            arguments = (state.params,), (self.places.params,)
            self._all_finite, _ = self._ahead(all_finite, *arguments, self.devices.whole)
        if self.compiled and self.memory is None:
            temporaries = max(self._update_bytes, self._eval_bytes)
            self.memory = Memory(memory.bytes_of(state), temporaries, self.devices.limit)

    def _compile_update(self, state: TrainState, inputs: Inputs) -> None:
        batch, places, devices = self.workload.batch_spec(), self.places, self.devices
        devices.check(batch, "training batch", self.microbatches)
        step = make_train_step(self.workload, self.tx, self.microbatches)
        if devices.share.count > 1:
            step = hosts.with_signal(step)
        given = {name: devices.rows if name == hosts.SIGNAL else devices.whole for name in inputs}
        self._train_step, self._update_bytes = self._ahead(
            step,
            (state, batch, inputs),
            (places, devices.rows, given),
            (places, devices.whole),
            donate=0,
        )
        self._update_bytes += self._batch_bytes(batch, 1 + devices.ahead)
        if self.eval_params is not current_params:
            self._eval_params, _ = self._ahead(
                self.eval_params,
                (state.opt_state, state.params),
                (places.opt_state, places.params),
                places.params,
            )

    def _batch_bytes(self, batch: PyTree, count: int) -> int:
        """Bytes of one device's part of so many batches of this shape."""
        return memory.bytes_of(batch) * count // self.devices.count

    def _ahead(
        self,
        function: Callable[..., Any],
        arguments: tuple[PyTree, ...],
        given: PyTree,
        made: PyTree,
        donate: int | None = None,
    ) -> tuple[Callable[..., Any], int]:
        """The function compiled for arguments of these shapes, and its temporary bytes.

        Without jit it is unchanged. ``given`` and ``made`` are shardings of arguments and results.
        """
        if not self.compiled:  # compiled functions take JAX arrays, never NumPy's
            return lambda *values: function(*jax.tree.map(jnp.asarray, values)), 0
        donated = () if donate is None else donate
        jitted = jax.jit(function, donate_argnums=donated, in_shardings=given, out_shardings=made)
        compiled = jitted.lower(*arguments).compile()
        return compiled, memory.temporary_bytes(compiled)

    def train_step(
        self, state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update. Donates the buffers of ``state``: do not use it afterwards."""
        result: tuple[TrainState, dict[str, jax.Array]] = self._train_step(state, batch, inputs)
        return result

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = lambda: False
    ) -> Metrics | None:
        """Metrics of all splits, ``{"<split>/<metric>": value}``; waits for the device.

        Args:
            state: state to evaluate.
            stopped: asked before each batch; True ends the evaluation without a result.
        """
        params = self._eval_params(state.opt_state, state.params)
        trees = [params] if self.eval_params is current_params else [params, state.params]
        finite = [self._all_finite(tree) for tree in trees]  # issued before the evaluation
        metrics: Metrics = {}
        for split in self.workload.splits:
            found = self._evaluate_split(params, state.model_state, split, stopped)
            if found is None:
                return None
            metrics.update(found)
        self.finite_params = all(map(bool, finite))
        return metrics

    def _evaluate_split(
        self, params: PyTree, model_state: PyTree, split: Split, stopped: Callable[[], bool]
    ) -> Metrics | None:
        results: list[tuple[Sums, PyTree]] = []
        under_way: deque[tuple[Sums, PyTree]] = deque()
        for batch in self.workload.evaluation(split, *self._share):
            if stopped():
                return None
            placed = self.devices.place(batch)
            under_way.append(self._eval_step(params, model_state, placed))
            if len(under_way) > EVALUATIONS_AHEAD:
                results.append(jax.device_get(under_way.popleft()))
        results += jax.device_get(list(under_way))
        values = {
            name: weighted_mean([sums[name] for sums, _ in results]) for name in results[0][0]
        }
        values |= self.workload.finish([outputs for _, outputs in results])
        return {f"{split}/{name}": value for name, value in values.items()}


def _key_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Data of the keys of initialisation and of the run; the same on every host."""
    init_key, key = jax.random.split(jax.random.key(seed))
    return np.asarray(jax.random.key_data(init_key)), np.asarray(jax.random.key_data(key))


def weighted_mean(sums: Sequence[tuple[Any, Any]]) -> float:
    """Mean from the (weighted sum, weight) of each batch, added up in float64.

    Float32 sums over millions of examples lose digits. A mean of batch means would weight the
    examples of a ragged last batch differently. Zero weight gives NaN.
    """
    total = sum(np.float64(value) for value, _ in sums)
    weight = sum(np.float64(weight) for _, weight in sums)
    return float(total / weight) if weight else float("nan")
