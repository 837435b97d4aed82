"""AlgoPerf submissions for JAX, as they are, on the workloads of this package.

Boundary: runs the submission's file; loss, model and batches are the workload's.

The functions of a submission, and how they are called, are those of
https://github.com/mlcommons/algorithmic-efficiency (algoperf/spec.py, submission_runner.py).
``model_fn`` gives the mean loss in place of logits, and ``loss_fn`` takes it: so every workload
can be trained. The batch size is the workload's. What ``prepare_for_eval`` returns is evaluated;
training goes on from the state before it, while AlgoPerf's runner goes on from what it returns.
"""

from __future__ import annotations

import collections
import inspect
import keyword
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jax
import jax.numpy as jnp

from timetrial.framework.entries import Horizon
from timetrial.framework.errors import Interrupted, UserError
from timetrial.framework.roles import Role
from timetrial.framework.source import reason, run_file
from timetrial.framework.state import TrainState
from timetrial.framework.types import PyTree
from timetrial.framework.workload import Batch
from timetrial.framework.workload import Workload as OurWorkload
from timetrial.optimizers.adapters.algoperf_modules import (
    ForwardPassMode,
    LossType,
    NotProvidedError,
    ParameterType,
    ShapeTuple,
    Workload,
    importable,
)

REQUIRED: Final = ("init_optimizer_state", "update_params", "data_selection")
_OPTIONAL: Final = "prepare_for_eval"

_EXTRA: Final = ("inputs", "targets")  # names of a batch that submissions look up
_TYPES: Final = {
    Role.HIDDEN: ParameterType.WEIGHT,
    Role.HEAD: ParameterType.WEIGHT,
    Role.CONVOLUTION: ParameterType.CONV_WEIGHT,
    Role.EMBEDDING: ParameterType.EMBEDDING,
    Role.BIAS: ParameterType.BIAS,
    Role.SCALAR: ParameterType.BIAS,
}


class Submission:
    """A submission on one workload: an optimizer that makes whole updates.

    Args:
        file: path of the Python file.
        hyperparameters: those of the chosen point, or None.
        horizon: gives the step hint.
        workload: the workload to train.

    Raises:
        UserError: the file cannot be run, or lacks one of its functions.
    """

    def __init__(
        self,
        file: str,
        hyperparameters: Mapping[str, Any] | None,
        horizon: Horizon,
        workload: OurWorkload,
    ) -> None:
        self._file = file
        with self._told("cannot be run"), importable():
            module = run_file(file).module
        lacking = [name for name in REQUIRED if not callable(getattr(module, name, None))]
        if lacking:
            raise UserError(f"optimizer.file={file}: expected the functions {', '.join(REQUIRED)}"
                            f", got none named {', '.join(lacking)}")  # fmt: skip
        self._functions = {name: getattr(module, name) for name in REQUIRED}
        self._prepare = getattr(module, _OPTIONAL, None)
        self.evaluates_elsewhere = self._prepare is not None
        self._point = _hyperparameters(hyperparameters)
        self._workload = SubmittedWorkload(workload, horizon)
        with open(file, encoding="utf-8") as text:
            self._has_leading_axis = "pmap" in text.read()
        self._evaluations: list[tuple[int, dict[str, float]]] = []
        self._seconds = 0.0

    def init(self, params: PyTree, model_state: PyTree, key: jax.Array) -> Any:
        self._workload.describe(params, model_state)
        self._evaluations, self._seconds = [], 0.0
        return self._called(
            self._functions["init_optimizer_state"],
            workload=self._workload,
            model_params=self._replicated(params),
            model_state=self._replicated(model_state),
            hyperparameters=self._point,
            rng=_raw(key),
        )

    def update(self, state: TrainState, batch: Batch) -> TrainState:
        started, step = time.perf_counter(), int(state.step)
        params, model_state = self._replicated((state.params, state.model_state))
        rng = _raw(jax.random.fold_in(state.key, step))
        chosen = self._called(
            self._functions["data_selection"],
            workload=self._workload,
            input_queue=_once(self._divided(self._workload.given(batch))),
            optimizer_state=state.opt_state,
            current_param_container=params,
            model_state=model_state,
            hyperparameters=self._point,
            global_step=step,
            rng=rng,
        )
        opt_state, params, model_state = self._three(
            self._functions["update_params"],
            workload=self._workload,
            current_param_container=params,
            current_params_types=self._workload.model_params_types,
            model_state=model_state,
            hyperparameters=self._point,
            batch=chosen,
            loss_type=self._workload.loss_type,
            optimizer_state=state.opt_state,
            eval_results=self._evaluations,
            global_step=step,
            rng=rng,
            train_state=self._train_state(),
        )
        params, model_state = self._single((params, model_state))
        self._seconds += time.perf_counter() - started
        return TrainState(state.step + 1, params, model_state, opt_state, state.key)

    def eval_point(self, state: TrainState) -> tuple[PyTree, PyTree]:
        if self._prepare is None:
            return state.params, state.model_state
        step = int(state.step)
        params, model_state = self._replicated((state.params, state.model_state))
        _, params, model_state = self._three(
            self._prepare,
            workload=self._workload,
            current_param_container=params,
            current_params_types=self._workload.model_params_types,
            model_state=model_state,
            hyperparameters=self._point,
            loss_type=self._workload.loss_type,
            optimizer_state=state.opt_state,
            eval_results=self._evaluations,
            global_step=step,
            rng=_raw(jax.random.fold_in(state.key, step)),
        )
        found: tuple[PyTree, PyTree] = self._single((params, model_state))
        return found

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        self._evaluations.append((step, dict(metrics)))

    def _train_state(self) -> dict[str, Any]:
        return {
            "validation_goal_reached": False,
            "test_goal_reached": False,
            "is_time_remaining": True,
            "training_complete": False,
            "accumulated_submission_time": self._seconds,
        }

    def _three(self, function: Callable[..., Any], **given: Any) -> tuple[Any, Any, Any]:
        """Optimizer state, parameters and model state, as returned by a function."""
        found = self._called(function, **given)
        if not isinstance(found, tuple) or len(found) != 3:
            raise UserError(
                f"optimizer.file={self._file}: expected {function.__name__} to return (optimizer "
                f"state, parameters, model state), got {type(found).__name__}"
            )
        return found

    def _called(self, function: Callable[..., Any], **given: Any) -> Any:
        """Calls a function with the arguments that it names."""
        known = inspect.signature(function).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
            given = {name: value for name, value in given.items() if name in known}
        told = self._told(f"{function.__name__} failed")
        with told:
            return function(**given)

    def _told(self, what: str) -> _Told:
        return _Told(self._file, what)

    def _replicated(self, tree: PyTree) -> PyTree:
        """With a leading axis for the devices, which submissions with ``pmap`` expect."""
        return jax.tree.map(lambda leaf: leaf[None], tree) if self._has_leading_axis else tree

    def _divided(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self._replicated(batch) if self._has_leading_axis else batch

    def _single(self, tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[0], tree) if self._has_leading_axis else tree


class SubmittedWorkload(Workload):
    """A workload of ours with the interface that submissions use.

    Attributes:
        param_shapes: a ``ShapeTuple`` for every tensor.
        model_params_types: a ``ParameterType`` for every tensor.
        step_hint: number of updates that schedules are made for.
        loss_type, metrics_logger: None.
        workload_name: name of the workload.
    """

    def __init__(self, workload: OurWorkload, horizon: Horizon) -> None:
        self.step_hint = horizon.step_hint
        self.workload_name = workload.name
        self.loss_type: LossType | None = None
        self.metrics_logger = None
        self.param_shapes: PyTree = None
        self.model_params_types: PyTree = None
        self._ours = workload
        self._names = frozenset(workload.batch_spec())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = [key for key in (*vars(self), "model_fn", "loss_fn") if not key.startswith("_")]
        raise NotProvidedError(
            f"the submission asks for workload.{name}, which the workloads here do not have; "
            f"there are: {', '.join(sorted(known))}"
        )

    def describe(self, params: PyTree, model_state: PyTree) -> None:
        """Sets the shapes and types of the parameters."""
        batch_norm = bool(jax.tree.leaves(model_state))
        self.param_shapes = jax.tree.map(lambda leaf: ShapeTuple(tuple(leaf.shape)), params)
        self.model_params_types = jax.tree_util.tree_map_with_path(
            lambda path, role: _type_of(path, role, batch_norm), self._ours.roles(params)
        )

    def given(self, batch: Batch) -> dict[str, Any]:
        """A batch with the names that submissions look up."""
        values = {name: jnp.asarray(array) for name, array in batch.items()}
        extra = {"inputs": values.get("x"), "targets": values.get("y")}
        first = next(iter(values.values()))
        return {**{name: first if v is None else v for name, v in extra.items()}, **values}

    def model_fn(
        self,
        params: PyTree,
        augmented_and_preprocessed_input_batch: Mapping[str, Any],
        model_state: PyTree,
        mode: Any,
        rng: jax.Array,
        update_batch_norm: bool = True,
        **regularisation: Any,
    ) -> tuple[jax.Array, PyTree]:
        """The mean loss of a batch, in place of logits, and the model state.

        ``regularisation`` (``dropout_rate``, ...) is not used: it belongs to the workload here.
        """
        batch = {
            name: values
            for name, values in augmented_and_preprocessed_input_batch.items()
            if name in self._names
        }
        if mode == ForwardPassMode.TRAIN:
            key = jax.random.wrap_key_data(rng) if rng.dtype == jnp.uint32 else rng
            loss, new = self._ours.loss(params, model_state, batch, key)
            return loss, new if update_batch_norm else model_state
        if "weight" not in batch and "weight" in self._ours.eval_batch_spec():
            batch["weight"] = jnp.ones(len(next(iter(batch.values()))), jnp.float32)
        total, weight = self._ours.eval_step(params, model_state, batch)[0]["loss"]
        return total / weight, model_state

    def loss_fn(
        self,
        label_batch: jax.Array,
        logits_batch: jax.Array,
        mask_batch: jax.Array | None = None,
        label_smoothing: Any = 0.0,
    ) -> dict[str, jax.Array]:
        """Sum, number and values of the losses of a batch, from its mean loss.

        Raises:
            NotProvidedError: ``logits_batch`` is not the result of ``model_fn``.
        """
        if jnp.shape(logits_batch) != ():
            raise NotProvidedError(
                "the submission asks for the loss of its own logits; here loss_fn takes the "
                "result of model_fn, which is the mean loss"
            )
        number = label_batch.shape[0]
        return {
            "summed": logits_batch * number,
            "n_valid_examples": jnp.float32(number),
            "per_example": jnp.full(number, logits_batch),
        }


class _Told:
    """Turns errors of a submission into a UserError that names its file and line."""

    def __init__(self, file: str, what: str) -> None:
        self._file, self._what = file, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (Interrupted, KeyboardInterrupt)):
            return
        text = reason(error, self._file)
        if isinstance(error, ModuleNotFoundError):
            text += _advice(str(error.name))
        raise UserError(f"optimizer.file={self._file}: {self._what}: {text}") from error


def _advice(module: str) -> str:
    if module.split(".")[0] == "torch":
        return "; only submissions for JAX can be raced"
    return f"; it needs {module.split('.')[0]}, which is not installed here"


def _hyperparameters(given: Mapping[str, Any] | None) -> Any:
    """The hyperparameters as a named tuple, as AlgoPerf gives them."""
    if given is None:
        return None
    bad = [name for name in given if not name.isidentifier() or keyword.iskeyword(name)]
    if bad:
        raise UserError(f"optimizer.point: expected names of hyperparameters, got {bad[0]!r}")
    return collections.namedtuple("Hyperparameters", given)(**given)


def _type_of(path: Any, role: Role, batch_norm: bool) -> ParameterType:
    """AlgoPerf's type of a tensor, from its role."""
    if role is not Role.NORM:
        return _TYPES[role]
    kind = "BATCH" if batch_norm else "LAYER"
    end = "BIAS" if "bias" in jax.tree_util.keystr(path[-1:]).lower() else "SCALE"
    return ParameterType[f"{kind}_NORM_{end}"]


def _raw(key: jax.Array) -> jax.Array:
    """A key as AlgoPerf's runner gives it: an array of two numbers."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(key) if typed else key


def _once(batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The input queue of one update."""
    yield batch
    raise NotProvidedError("the submission asks for a second batch in one update; there is one")
