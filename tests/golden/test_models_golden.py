"""The models against outputs of AlgoPerf's JAX models (fixtures/models_golden_tiny.npz).

The parameters there were perturbed after initialisation, so that zero-initialised parts matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from timetrial.workloads.models import dlrm, gnn, resnet, unet
from timetrial.workloads.tasks import metrics

FIXTURES = Path(__file__).parent.parent / "fixtures"
GOLDEN = dict(np.load(FIXTURES / "models_golden_tiny.npz"))
COUNTS = json.loads((FIXTURES / "param_counts.json").read_text())

GRAPH_KEYS = ("nodes", "edges", "senders", "receivers", "n_node", "n_edge")


def section(prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in GOLDEN.items() if k.startswith(prefix)}


def tree(prefix: str) -> Any:
    return traverse_util.unflatten_dict(section(prefix), sep="/")


def inputs(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def mean_graph_loss(logits: jax.Array) -> jax.Array:
    losses, counts = gnn.masked_binary_cross_entropy(
        logits, GOLDEN["ogbg/y"], GOLDEN["ogbg/weights"]
    )
    return jnp.sum(losses) / jnp.sum(counts)


# Name: model, its input, its mean loss given the logits.
TINY: dict[str, tuple[Any, Any, Callable[[jax.Array], jax.Array]]] = {
    "criteo1tb": (
        dlrm.make_model(
            vocab_size=4096,
            mlp_bottom_dims=(64, 32, 16),
            mlp_top_dims=(64, 64, 32, 16, 1),
            embed_dim=16,
        ),
        (GOLDEN["criteo1tb/x"][:, :13], GOLDEN["criteo1tb/x"][:, 13:].astype(np.int32)),
        lambda z: jnp.mean(dlrm.binary_cross_entropy(z, GOLDEN["criteo1tb/y"])),
    ),
    "fastmri": (
        unet.make_model(channels=4, num_pool_layers=2),
        GOLDEN["fastmri/x"],
        lambda z: jnp.mean(unet.l1_loss(z, GOLDEN["fastmri/y"])),
    ),
    "imagenet_resnet": (
        resnet.make_model(stage_sizes=(1, 1, 1, 1), num_filters=8, num_classes=10),
        GOLDEN["imagenet_resnet/x"],
        lambda z: jnp.mean(resnet.softmax_cross_entropy(z, GOLDEN["imagenet_resnet/y"])),
    ),
    "ogbg": (
        gnn.make_model(
            latent_dim=8,
            hidden_dims=(8,),
            num_message_passing_steps=2,
            num_outputs=6,
            dropout_rate=0.0,
        ),
        {key: GOLDEN[f"ogbg/x/{key}"] for key in GRAPH_KEYS},
        mean_graph_loss,
    ),
}

# Full size: model, shape and type of its input.
FULL = {
    "criteo1tb": (
        dlrm.make_model(),
        (jax.ShapeDtypeStruct((2, 13), jnp.float32), jax.ShapeDtypeStruct((2, 26), jnp.int32)),
    ),
    "fastmri": (unet.make_model(), jax.ShapeDtypeStruct((2, 320, 320), jnp.float32)),
    "imagenet_resnet": (resnet.make_model(), jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)),
    "ogbg": (
        gnn.make_model(),
        {
            "nodes": jax.ShapeDtypeStruct((27, 9), jnp.float32),
            "edges": jax.ShapeDtypeStruct((56, 3), jnp.float32),
            "senders": jax.ShapeDtypeStruct((56,), jnp.int32),
            "receivers": jax.ShapeDtypeStruct((56,), jnp.int32),
            "n_node": jax.ShapeDtypeStruct((2,), jnp.int32),
            "n_edge": jax.ShapeDtypeStruct((2,), jnp.int32),
        },
    ),
}
NUM_PARAMS = {
    "criteo1tb": 539_267_457,
    "fastmri": 7_756_097,
    "imagenet_resnet": 25_557_032,
    "ogbg": 3_554_176,
}


# For elements that almost cancel out, as a share of the tensor's largest. Batch norm over four
# images amplifies rounding: the reference's gradients themselves are 4e-5 off those in float64.
CANCELLED = {"imagenet_resnet": 2e-5}


def assert_close(actual: Any, expected: Any, what: str) -> None:
    atol = CANCELLED.get(what.partition("/")[0], 1e-6) * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=atol, err_msg=what)


def assert_trees_close(actual: Any, prefix: str) -> None:
    flat = traverse_util.flatten_dict(actual, sep="/")
    expected = section(prefix)
    assert flat.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(flat[name], value, prefix + name)


VARIANTS = [
    *((name, False) for name in TINY),
    *((name, True) for name in TINY if name != "fastmri"),
]
"""Name, and whether the model has its argument ``fast``; the U-Net has none."""


def variant(name: str, fast: bool) -> Any:
    model = TINY[name][0]
    return model.clone(fast=True) if fast else model


@pytest.fixture(autouse=True)
def _full_precision():
    # On GPUs, products would otherwise be rounded to TF32.
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize(("name", "fast"), VARIANTS)
def test_evaluation(name, fast):
    _, x, loss = TINY[name]
    model = variant(name, fast)
    variables = {"params": tree(f"{name}/params/")}
    if stats := tree(f"{name}/batch_stats/"):
        variables["batch_stats"] = stats
    logits = jax.jit(lambda variables: model.apply(variables, *inputs(x), train=False))(variables)
    assert_close(logits, GOLDEN[f"{name}/eval_logits"], f"{name}/logits")
    assert_close(loss(logits), GOLDEN[f"{name}/eval_loss"], f"{name}/loss")


@pytest.mark.parametrize(("name", "fast"), VARIANTS)
def test_training(name, fast):
    _, x, loss = TINY[name]
    model = variant(name, fast)
    stats = tree(f"{name}/batch_stats/")
    extra = {"batch_stats": stats} if stats else {}

    @jax.jit
    def run(params):
        def total(params):
            variables = {"params": params, **extra}
            logits, new = model.apply(variables, *inputs(x), train=True, mutable=["batch_stats"])
            return loss(logits), (logits, new)

        return jax.value_and_grad(total, has_aux=True)(params)

    (value, (logits, new)), grads = run(tree(f"{name}/params/"))
    assert_close(logits, GOLDEN[f"{name}/train_logits"], f"{name}/logits")
    assert_close(value, GOLDEN[f"{name}/train_loss"], f"{name}/loss")
    assert_trees_close(grads, f"{name}/grads/")
    if stats:
        assert_trees_close(new["batch_stats"], f"{name}/batch_stats_after/")


def test_ssim():
    arrays = (GOLDEN[f"ssim/{k}"] for k in ("logits", "targets", "mean", "std", "volume_max"))
    # Computed as mean of squares less square of mean there: 1e-6 of rounding on a scale of 1.
    np.testing.assert_allclose(metrics.ssim(*arrays), GOLDEN["ssim/value"], rtol=1e-4, atol=1e-6)


def shapes(collection: Any) -> dict[str, list[int]]:
    flat = traverse_util.flatten_dict(collection, sep="/")
    return {name: list(leaf.shape) for name, leaf in flat.items()}


def initial_shapes(name: str, fast: bool = False) -> Any:
    model, x = FULL[name]
    model = model.clone(fast=True) if fast else model
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), *inputs(x), train=False), x)


@pytest.mark.parametrize(("name", "fast"), VARIANTS)
def test_full_size_names_and_shapes(name, fast):
    variables = initial_shapes(name, fast)
    assert shapes(variables["params"]) == COUNTS["fork"][name]["shapes"]
    assert shapes(variables.get("batch_stats", {})) == COUNTS["fork"][name].get(
        "batch_stats_shapes", {}
    )
    sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
    assert sum(sizes) == NUM_PARAMS[name] == COUNTS["fork"][name]["params"]


@pytest.mark.parametrize("name", FULL)
def test_full_size_under_the_newest_names(name):
    newest = {}
    for path, shape in shapes(initial_shapes(name)["params"]).items():
        layer, _, rest = path.partition("/")
        kind, _, index = layer.partition("_")
        if name == "ogbg" and kind == "Dense":
            names = ("node_embedding", "edge_embedding")
            layer = names[int(index)] if int(index) < 2 else f"Dense_{int(index) - 2}"
        newest["/".join([layer, rest] if rest else [layer])] = shape
    assert newest == COUNTS["newest"][name]["shapes"]
