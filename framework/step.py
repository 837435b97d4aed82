"""The compiled program of a run: initialise, one update, one evaluation.

Boundary: pure functions of arrays and their compilation; no clock, budget or callback.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from timetrial.framework.entries import current_params
from timetrial.framework.types import Metrics, PyTree, Split, TrainState
from timetrial.framework.workload import Batch, Sums, Workload

Inputs = Mapping[str, np.ndarray]
"""Inputs of an update from callbacks, float32 scalars: ``{"remaining_fraction": 0.73}``."""

_COMPILE_FAST = {"xla_backend_optimization_level": 0}
# Initialisers run once and are mostly random numbers. LLVM optimises them for a long time: 16.3 s
# of CPU time for a U-Net of 19 tensors, 2.0 s without. The numbers are the same.

EVALUATIONS_AHEAD = 2
"""Evaluation batches under way at once; more would wait in the device's memory."""

EvalParams = Callable[[PyTree, PyTree], PyTree]
"""Parameters to evaluate, from ``(opt_state, params)``."""

TrainStep = Callable[[TrainState, Batch, Inputs], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(workload: Workload, tx: optax.GradientTransformation) -> TrainStep:
    """Returns the pure function of one update: ``(state, batch, inputs) -> (state, metrics)``.

    Every optimizer is called alike: ``tx.update(grads, opt_state, params, value=loss, **inputs)``.
    Optimizers ignore extra arguments that they do not need. The metrics are ``loss``, the mean
    training loss before the update, and ``grad_norm``, the Euclidean norm of its gradient over all
    parameters.
    """
    update = optax.with_extra_args_support(tx).update

    def train_step(
        state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(state.key, state.step)
        (loss, model_state), grads = jax.value_and_grad(workload.loss, has_aux=True)(
            state.params, state.model_state, batch, key
        )
        updates, opt_state = update(grads, state.opt_state, state.params, value=loss, **inputs)
        new = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            opt_state=opt_state,
            key=state.key,
        )
        return new, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

    return train_step


class Program:
    """The functions of one (workload, optimizer), compiled once and reused for all seeds.

    ``compile`` compiles ahead of time, so that compilation is timed separately from the first
    update. With ``JAX_DISABLE_JIT=1`` nothing is compiled and every operation runs by itself, for
    debugging. The seconds of such a run are not comparable with those of others.

    Args:
        workload: training problem.
        tx: optimizer.
        eval_params: parameters to evaluate, from ``(opt_state, params)``. Pure, jittable.

    Attributes:
        compiled: True when the update and the evaluation are compiled.
    """

    def __init__(
        self,
        workload: Workload,
        tx: optax.GradientTransformation,
        eval_params: EvalParams = current_params,
    ) -> None:
        self.workload = workload
        self.tx = tx
        self.eval_params = eval_params
        self._eval_params = eval_params
        self.compiled = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
        self._init_model = jax.jit(workload.init, compiler_options=_COMPILE_FAST)
        self._init_optimizer = jax.jit(tx.init, compiler_options=_COMPILE_FAST)
        self._train_step: Any = None
        self._eval_step: Any = None

    def with_optimizer(
        self, tx: optax.GradientTransformation, eval_params: EvalParams = current_params
    ) -> Program:
        """A program of the same workload; shares all functions independent of the optimizer."""
        program = Program(self.workload, tx, eval_params)
        program._init_model = self._init_model
        program._eval_step = self._eval_step
        return program

    def init(self, seed: int) -> TrainState:
        """The state before the first update; parameters depend on the seed only."""
        init_key, key = jax.random.split(jax.random.key(seed))
        params, model_state = self._init_model(init_key)
        opt_state = self._init_optimizer(params)
        return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, key)

    def compile(self, state: TrainState, inputs: Inputs) -> None:
        """Compiles the update and the evaluation for these shapes; a second call does nothing.

        Args:
            state: a state of the run; only its shapes matter.
            inputs: inputs of an update; only the names matter.
        """
        if self._train_step is None:
            batch = self.workload.batch_spec()
            step = make_train_step(self.workload, self.tx)
            self._train_step = self._ahead(step, state, batch, inputs, donate=0)
            if self.eval_params is not current_params:
                chosen = self._ahead(self.eval_params, state.opt_state, state.params)
                self._eval_params = chosen
        if self._eval_step is None:
            batch = self.workload.eval_batch_spec()
            arguments = (state.params, state.model_state, batch)
            self._eval_step = self._ahead(self.workload.eval_step, *arguments)

    def _ahead(
        self, function: Callable[..., Any], *arguments: PyTree, donate: int | None = None
    ) -> Callable[..., Any]:
        """The function compiled for arguments of these shapes; unchanged without jit."""
        if not self.compiled:  # compiled functions take JAX arrays, never NumPy's
            return lambda *given: function(*jax.tree.map(jnp.asarray, given))
        donated = () if donate is None else donate
        return jax.jit(function, donate_argnums=donated).lower(*arguments).compile()

    def train_step(
        self, state: TrainState, batch: Batch, inputs: Inputs
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update. Donates the buffers of ``state``: do not use it afterwards."""
        result: tuple[TrainState, dict[str, jax.Array]] = self._train_step(state, batch, inputs)
        return result

    def evaluate(self, state: TrainState) -> Metrics:
        """Metrics of all splits, ``{"<split>/<metric>": value}``; waits for the device."""
        params = self._eval_params(state.opt_state, state.params)
        metrics: Metrics = {}
        for split in self.workload.splits:
            metrics.update(self._evaluate_split(params, state.model_state, split))
        return metrics

    def _evaluate_split(self, params: PyTree, model_state: PyTree, split: Split) -> Metrics:
        results: list[tuple[Sums, PyTree]] = []
        under_way: deque[tuple[Sums, PyTree]] = deque()
        for batch in self.workload.evaluation(split):
            under_way.append(self._eval_step(params, model_state, batch))
            if len(under_way) > EVALUATIONS_AHEAD:
                results.append(jax.device_get(under_way.popleft()))
        results += jax.device_get(list(under_way))
        values = {
            name: weighted_mean([sums[name] for sums, _ in results]) for name in results[0][0]
        }
        values |= self.workload.finish([outputs for _, outputs in results])
        return {f"{split}/{name}": value for name, value in values.items()}


def weighted_mean(sums: Sequence[tuple[Any, Any]]) -> float:
    """Mean from the (weighted sum, weight) of each batch, added up in float64.

    Float32 sums over millions of examples lose digits. A mean of batch means would weight the
    examples of a ragged last batch differently. Zero weight gives NaN.
    """
    total = sum(np.float64(value) for value, _ in sums)
    weight = sum(np.float64(weight) for _, weight in sums)
    return float(total / weight) if weight else float("nan")
