"""The names that a submission imports from AlgoPerf, without AlgoPerf.

Boundary: names and types for the import of a submission; nothing of AlgoPerf's is copied or needed.

The names are those of algoperf/spec.py and algoperf/jax_sharding_utils.py in
https://github.com/mlcommons/algorithmic-efficiency.
"""

from __future__ import annotations

import contextlib
import enum
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from timetrial.framework.errors import UserError

LossType = enum.Enum(
    "LossType",
    "SOFTMAX_CROSS_ENTROPY SIGMOID_CROSS_ENTROPY MEAN_SQUARED_ERROR CTC_LOSS MEAN_ABSOLUTE_ERROR",
    start=0,
)
ForwardPassMode = enum.Enum("ForwardPassMode", "TRAIN EVAL", start=0)
ParameterType = enum.Enum(
    "ParameterType",
    "WEIGHT BIAS CONV_WEIGHT BATCH_NORM_SCALE BATCH_NORM_BIAS LAYER_NORM_SCALE LAYER_NORM_BIAS "
    "EMBEDDING ATTENTION_Q ATTENTION_K ATTENTION_V ATTENTION_OUT ATTENTION_QKV ATTENTION_KV "
    "ATTENTION_BIAS",
    start=0,
)

_ANY: Final = (
    "Tensor", "Shape", "ParameterShapeTree", "ParameterKey", "ParameterContainer",
    "ParameterTypeTree", "RandomState", "OptimizerState", "Hyperparameters", "Timing", "Steps",
    "ModelAuxiliaryState", "ModelInitState", "UpdateReturn", "InitOptimizerFn", "UpdateParamsFn",
    "PrepareForEvalFn", "DataSelectionFn", "GetBatchSizeFn",
)  # fmt: skip
"""Aliases of ``spec``, for annotations only."""

_CHEX: Final = ("Array", "ArrayTree", "Numeric", "PRNGKey", "Scalar", "Shape", "ArrayDType")
"""Aliases of chex, which AlgoPerf installs, for annotations only."""

_PACKAGES: Final = ("algoperf", "algorithmic_efficiency")
"""Names of the package, newest first."""


class NotProvidedError(UserError, AttributeError):
    """A submission asks for something of AlgoPerf that is not here."""


class ShapeTuple:
    """A shape as a leaf of a tree.

    Attributes:
        shape_tuple: the shape.
    """

    def __init__(self, shape_tuple: tuple[int, ...]) -> None:
        self.shape_tuple = shape_tuple

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapeTuple) and self.shape_tuple == other.shape_tuple

    def __hash__(self) -> int:
        return hash(self.shape_tuple)


class Workload:
    """The class of AlgoPerf's workloads, for annotations and ``isinstance``."""


class _Module(ModuleType):
    """A module with some names; asking for another one says so."""

    def __init__(self, name: str, content: dict[str, Any], *, package: bool = False) -> None:
        super().__init__(name)
        if package:
            self.__path__: list[str] = []
        self._known = sorted(content)
        vars(self).update(content)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotProvidedError(
            f"the submission asks for {self.__name__}.{name}, which is not here; "
            f"there are: {', '.join(self._known)}"
        )


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Inside, AlgoPerf's modules can be imported; afterwards everything is as before."""
    mine = _modules()
    before = {name: sys.modules.get(name) for name in mine}
    sys.modules.update(mine)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def _modules() -> dict[str, ModuleType]:
    """AlgoPerf's modules by name; chex, too, where it is not installed."""
    found: dict[str, ModuleType] = {}
    for package in _PACKAGES:
        parts = {
            "spec": _Module(f"{package}.spec", _spec()),
            "jax_sharding_utils": _Module(f"{package}.jax_sharding_utils", _sharding()),
            "random_utils": _Module(f"{package}.random_utils", _random()),
        }
        found[package] = _Module(package, dict(parts), package=True)
        found |= {f"{package}.{name}": module for name, module in parts.items()}
    if importlib.util.find_spec("chex") is None:
        found["chex"] = _Module("chex", dict.fromkeys(_CHEX, Any))
    return found


def _spec() -> dict[str, Any]:
    return {
        "LossType": LossType,
        "ForwardPassMode": ForwardPassMode,
        "ParameterType": ParameterType,
        "ShapeTuple": ShapeTuple,
        "Workload": Workload,
        **dict.fromkeys(_ANY, Any),
    }


def _sharding() -> dict[str, Any]:
    """The functions of ``jax_sharding_utils``, on the first device alone."""

    def placed(*axes: str) -> NamedSharding:
        return NamedSharding(Mesh(jax.devices()[:1], ("batch",)), PartitionSpec(*axes))

    def put(*axes: str) -> Any:
        return lambda tree: jax.tree.map(lambda leaf: jax.device_put(leaf, placed(*axes)), tree)

    return {
        "get_replicate_sharding": placed,
        "get_batch_dim_sharding": lambda: placed("batch"),
        "replicate": put(),
        "shard_along_batch_dim": put("batch"),
        "display_shard_info": lambda array: None,
    }


def _random() -> dict[str, Any]:
    return {
        "PRNGKey": jax.random.PRNGKey,
        "split": jax.random.split,
        "fold_in": jax.random.fold_in,
        "bits": jax.random.bits,
    }
