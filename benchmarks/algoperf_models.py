"""AlgoPerf's own JAX models and losses, imported from a checkout that the user names.

Boundary: imports and calls their code; holds none of it.

The checkout is one of https://github.com/mlcommons/algorithmic-efficiency; tried with commit
2c90454f (September 2025). Their modules import packages that neither the models nor the losses
need, such as PyTorch: mocks stand in for those. ``jraph`` is needed by the graph network.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks.reduced import Problem
from timetrial.framework.types import PyTree

Loss = Callable[[PyTree, PyTree, Mapping[str, jax.Array], jax.Array], tuple[jax.Array, PyTree]]
"""Mean loss and new model state, from parameters, model state, batch and random key."""

_WORKLOADS = "algoperf.workloads"
_UNUSED = (
    "algoperf.pytorch_utils",
    f"{_WORKLOADS}.criteo1tb.input_pipeline",
    f"{_WORKLOADS}.fastmri.input_pipeline",
    f"{_WORKLOADS}.imagenet_resnet.imagenet_v2",
    f"{_WORKLOADS}.imagenet_resnet.imagenet_jax.input_pipeline",
    f"{_WORKLOADS}.imagenet_resnet.imagenet_jax.randaugment",
    f"{_WORKLOADS}.ogbg.input_pipeline",
    f"{_WORKLOADS}.ogbg.metrics",
    "tensorflow_datasets",
    "torch",
    "torch.distributed",
    "torch.nn",
    "torch.nn.functional",
)


def prepare(checkout: Path) -> None:
    """Makes the package ``algoperf`` of a checkout importable.

    Raises:
        FileNotFoundError: the directory is no checkout.
        ModuleNotFoundError: jraph is missing.
    """
    package = checkout / "algoperf"
    if not (package / "workloads").is_dir():
        raise FileNotFoundError(
            f"--algoperf: expected a checkout of mlcommons/algorithmic-efficiency, got {checkout}"
        )
    if importlib.util.find_spec("jraph") is None:
        raise ModuleNotFoundError(
            "--algoperf: expected the package jraph; install it, e.g. with "
            "`pip install --no-deps --target DIR jraph`, and put DIR on PYTHONPATH"
        )
    root = types.ModuleType("algoperf")  # theirs asks for the version of an installation
    root.__path__ = [str(package)]
    sys.modules["algoperf"] = root
    for name in _UNUSED:
        sys.modules.setdefault(name, mock.MagicMock(name=name))


def inputs(problem: Problem) -> Mapping[str, np.ndarray]:
    """The batch in the arrays that their models take."""
    batch = dict(problem.batch)
    if problem.name == "criteo1tb":
        dense, ids = batch.pop("dense"), batch.pop("ids")
        return {**batch, "x": np.concatenate((dense, ids), axis=1, dtype=np.float32)}
    return batch


def params(problem: Problem, ours: PyTree) -> PyTree:
    """Our parameters under their names."""
    if problem.name != "ogbg":
        return ours
    names = {"Dense_0": "node_embedding", "Dense_1": "edge_embedding"}
    return {names.get(name, _two_less(name)): value for name, value in ours.items()}


def _two_less(layer: str) -> str:
    kind, _, index = layer.partition("_")
    return f"Dense_{int(index) - 2}" if kind == "Dense" else layer


def loss(problem: Problem) -> Loss:
    """Their model and loss at the size of a problem; ``prepare`` comes first."""
    return _LOSSES[problem.name](problem.size)


def _module(path: str) -> Any:
    return importlib.import_module(f"{_WORKLOADS}.{path}")


def _mean(sums: Mapping[str, Any]) -> jax.Array:
    result: jax.Array = sums["summed"] / sums["n_valid_examples"]
    return result


def _imagenet_resnet(size: Mapping[str, Any]) -> Loss:
    models = _module("imagenet_resnet.imagenet_jax.models")
    cls = _module("imagenet_resnet.imagenet_jax.workload").ImagenetResNetWorkload
    workload = mock.Mock(spec_set=["_num_classes"], _num_classes=size["classes"])
    model = models.ResNet(
        stage_sizes=size["stages"],
        block_cls=models.BottleneckResNetBlock,
        num_classes=size["classes"],
        num_filters=size["filters"],
    )

    def mean_loss(
        params: PyTree, state: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        logits, state = model.apply(
            {"params": params, **state}, batch["x"], mutable=["batch_stats"]
        )
        return _mean(cls.loss_fn(workload, batch["y"], logits)), state

    return mean_loss


def _fastmri(size: Mapping[str, Any]) -> Loss:
    module = _module("fastmri.fastmri_jax.workload")
    model = module.UNet(num_channels=size["channels"], num_pool_layers=size["pools"])

    def mean_loss(
        params: PyTree, state: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        rngs = {"dropout": key}
        images = model.apply({"params": params}, batch["x"], train=True, rngs=rngs)
        return _mean(module.FastMRIWorkload.loss_fn(None, batch["y"], images)), state

    return mean_loss


def _ogbg(size: Mapping[str, Any]) -> Loss:
    jraph = importlib.import_module("jraph")
    cls = _module("ogbg.ogbg_jax.workload").OgbgWorkload
    model = _module("ogbg.ogbg_jax.models").GNN(
        num_outputs=size["outputs"],
        latent_dim=size["latent"],
        hidden_dims=(size["latent"],),
        num_message_passing_steps=size["steps"],
    )
    arrays = ("nodes", "edges", "senders", "receivers", "n_node", "n_edge")
    workload = object.__new__(cls)

    def mean_loss(
        params: PyTree, state: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        graphs = jraph.GraphsTuple(globals=None, **{name: batch[name] for name in arrays})
        logits = model.apply({"params": params}, graphs, train=True, rngs={"dropout": key})
        return _mean(workload.loss_fn(batch["y"], logits, batch["weight"])), state

    return mean_loss


def _criteo1tb(size: Mapping[str, Any]) -> Loss:
    cls = _module("criteo1tb.criteo1tb_jax.workload").Criteo1TbDlrmSmallWorkload
    workload = object.__new__(cls)
    model = _module("criteo1tb.criteo1tb_jax.models").DlrmSmall(
        vocab_size=size["rows"],
        mlp_bottom_dims=size["bottom"],
        mlp_top_dims=size["top"],
        embed_dim=size["embed"],
    )

    def mean_loss(
        params: PyTree, state: PyTree, batch: Mapping[str, jax.Array], key: jax.Array
    ) -> tuple[jax.Array, PyTree]:
        # Without a rate there is no dropout, hence no mask of ones to draw.
        logits = model.apply({"params": params}, batch["x"], train=True, dropout_rate=None)
        return _mean(workload.loss_fn(batch["y"], logits)), state

    return mean_loss


_LOSSES: Mapping[str, Callable[[Mapping[str, Any]], Loss]] = {
    "imagenet_resnet": _imagenet_resnet,
    "fastmri": _fastmri,
    "ogbg": _ogbg,
    "criteo1tb": _criteo1tb,
}
