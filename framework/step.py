"""The compiled program of a run: initialise, one update, one evaluation.

Boundary: compilation and evaluation; ``update`` defines an update. No clock, budget or callback.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.framework import hosts, memory
from timetrial.framework.compilation import Executable, Key, Source, compile_ahead, quiet_cache
from timetrial.framework.devices import Devices
from timetrial.framework.entries import Optimizer
from timetrial.framework.feed import Feed
from timetrial.framework.memory import Memory
from timetrial.framework.state import StepMetrics, TrainState
from timetrial.framework.types import Metrics, PyTree, Split
from timetrial.framework.update import Inputs, all_finite, make_norm_refresh, make_train_step
from timetrial.framework.workload import Batch, Sums, Workload

_COMPILE_FAST = {"xla_backend_optimization_level": 0}
# Initialisers run once and are mostly random numbers. LLVM optimises them for a long time: 16.3 s
# of CPU time for a U-Net of 19 tensors, 2.0 s without. The numbers are the same.

EVALUATIONS_AHEAD = 2
"""Evaluation batches under way at once; more would wait in the device's memory."""

Point = tuple[PyTree, PyTree]
"""Parameters and model state to evaluate."""


class Program:
    """The functions of one (workload, optimizer), compiled once and reused for all seeds.

    ``compile`` compiles ahead of time, so that compilation is timed separately from the first
    update. With ``JAX_DISABLE_JIT=1`` nothing is compiled and every operation runs by itself, for
    debugging. The seconds of such a run are not comparable with those of others.

    Args:
        workload: training problem.
        optimizer: the optimizer, or its optax transformation alone.
        devices: devices to compute on; by default the first one.
        microbatches: parts of a batch, see ``loss_and_gradients``.

    Attributes:
        compiled: True when the update and the evaluation are compiled.
        sources: where the executables of the last ``compile`` came from.
        memory: memory that the run needs, once compiled; None without compilation.
        finite_params: False if parameters of the last evaluation were NaN or infinite.
        waits: True when ``train_step`` returns after the update has ended.
    """

    waits = False

    def __init__(
        self,
        workload: Workload,
        optimizer: Optimizer | optax.GradientTransformation,
        devices: Devices | None = None,
        microbatches: int = 1,
    ) -> None:
        self.workload = workload
        self.optimizer = optimizer if isinstance(optimizer, Optimizer) else Optimizer(optimizer)
        self.tx = tx = self.optimizer.tx
        self.devices = devices or Devices()
        self.microbatches = microbatches
        # A workload that knows no shares can be trained on one host.
        self._share = (self.devices.share,) if self.devices.share.count > 1 else ()
        self.memory: Memory | None = None
        self.finite_params = True
        self._eval_params: Any = self.optimizer.eval_params
        self._refresh: Any = None
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
        self.sources: set[Source] = set()
        self._known: dict[Key, Executable] = {}  # of the program before, until compiled
        self._made: dict[Key, Executable] = {}

    def with_optimizer(self, optimizer: Optimizer) -> Program:
        """A program of the same workload; shares all functions independent of the optimizer.

        It also shares those that turn out to be the same, such as the update of an optimizer whose
        number of steps is a part of its state.
        """
        program = Program(self.workload, optimizer, self.devices, self.microbatches)
        if program.places.params == self.places.params:
            program._init_model = self._init_model
            program._eval_step, program._eval_bytes = self._eval_step, self._eval_bytes
            program._all_finite = self._all_finite
        program._known = self._made
        return program

    @functools.cached_property
    def places(self) -> TrainState:
        """The sharding of every array of the state, or one sharding for all of a part."""
        whole: Any = self.devices.whole
        if self.devices.count == 1:
            return TrainState(whole, whole, whole, whole, whole)
        shapes = jax.eval_shape(self._fresh_state, *key_data(0))
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
        keys = key_data(seed)
        if self.compiled:
            model = self._init_model.eval_shape(*keys)
            shapes = (*model, self._init_optimizer.eval_shape(model[0]))
            Memory(memory.bytes_of(shapes), 0, self.devices.limit).check()
        with quiet_cache():
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
        shared = self._train_step is not None or self._eval_step is not None
        self.sources = {Source.SHARED} if shared and self.compiled else set()
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
        self._known = {}

    def _compile_update(self, state: TrainState, inputs: Inputs) -> None:
        batch, places, devices = self.workload.batch_spec(), self.places, self.devices
        devices.check(batch, "training batch", self.microbatches)
        step = make_train_step(self.workload, self.tx, self.microbatches, self.optimizer.takes)
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
        if self.optimizer.evaluates_elsewhere:
            self._compile_eval_point(state, batch)

    def _compile_eval_point(self, state: TrainState, batch: PyTree) -> None:
        """Compiles what makes the point to evaluate of a state."""
        places, devices = self.places, self.devices
        self._eval_params, _ = self._ahead(
            self.optimizer.eval_params,
            (state.opt_state, state.params),
            (places.opt_state, places.params),
            places.params,
        )
        if self.optimizer.norm_refresh and jax.tree.leaves(state.model_state):
            self._refresh, _ = self._ahead(
                make_norm_refresh(self.workload, self.microbatches),
                (state.params, state.model_state, batch, state.key, state.step),
                (places.params, places.model_state, devices.rows, devices.whole, devices.whole),
                places.model_state,
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
        executable = compile_ahead(
            function,
            arguments,
            self._known,
            donate_argnums=donated,
            in_shardings=given,
            out_shardings=made,
        )
        self._made[executable.key] = executable
        self.sources.add(executable.source)
        return executable.function, memory.temporary_bytes(executable.function)

    def train_step(
        self, state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, StepMetrics]:
        """One update. Donates the buffers of ``state``: do not use it afterwards."""
        result: tuple[TrainState, StepMetrics] = self._train_step(state, batch, inputs)
        return result

    def eval_point(self, state: TrainState) -> Point:
        """The parameters and the model state to evaluate a state at; may not have ended yet.

        Both are those of the state, unless the optimizer is evaluated elsewhere. Then batch-norm
        statistics are refreshed there, by the first training batches of seed 0.
        """
        if not self.optimizer.evaluates_elsewhere:
            return state.params, state.model_state
        params = self._eval_params(state.opt_state, state.params)
        model_state = state.model_state
        if self._refresh is not None:
            feed = self.feed(0, 0)
            try:
                for count in range(self.optimizer.norm_refresh):
                    batch, number = next(feed), np.int32(count)
                    model_state = self._refresh(params, model_state, batch, state.key, number)
            finally:
                feed.close()
        return params, model_state

    def evaluate(
        self,
        state: TrainState,
        stopped: Callable[[], bool] = lambda: False,
        point: Point | None = None,
    ) -> Metrics | None:
        """Metrics of all splits, ``{"<split>/<metric>": value}``; waits for the device.

        Args:
            state: state to evaluate.
            stopped: asked before each batch; True ends the evaluation without a result.
            point: ``eval_point(state)``, where the caller has it.
        """
        params, model_state = point or self.eval_point(state)
        trees = [params, state.params] if self.optimizer.evaluates_elsewhere else [params]
        finite = [self._all_finite(tree) for tree in trees]  # issued before the evaluation
        metrics: Metrics = {}
        for split in self.workload.splits:
            found = self._evaluate_split(params, model_state, split, stopped)
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


def key_data(seed: int) -> tuple[np.ndarray, np.ndarray]:
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
