"""Roles of parameters: by name and rank, and where workloads know more."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from tiny import TinyWorkload

from timetrial.bench.listing import describe
from timetrial.bench.workshop import Workshop
from timetrial.framework.budget import Budget
from timetrial.framework.config import Choice, RunConfig
from timetrial.framework.entries import Entry
from timetrial.framework.roles import Role, last_layer, roles_by_name, tensors
from timetrial.optimizers import OPTIMIZERS
from timetrial.workloads import WORKLOADS

CASES = [
    ("temperature", (), Role.SCALAR),
    ("Dense_0/kernel", (8, 4), Role.HIDDEN),
    ("Dense_0/bias", (4,), Role.BIAS),
    ("linear/w", (8, 4), Role.HIDDEN),
    ("linear/b", (4,), Role.BIAS),
    ("Conv_0/kernel", (3, 3, 8, 4), Role.CONVOLUTION),
    ("conv1d/w", (5, 8, 4), Role.CONVOLUTION),
    ("depthwise/kernel", (3, 3, 1, 1), Role.CONVOLUTION),
    ("embedding_table", (100, 8), Role.EMBEDDING),
    ("Embed_0/embedding", (100, 8), Role.EMBEDDING),
    ("pos_embedding", (1, 50, 8), Role.EMBEDDING),
    ("wte/weight", (100, 8), Role.EMBEDDING),
    ("BatchNorm_0/scale", (8,), Role.NORM),
    ("LayerNorm_3/bias", (8,), Role.NORM),
    ("bn1/gamma", (8,), Role.NORM),
    ("block/ln_2/bias", (8,), Role.NORM),
    ("RMSNorm_0/scale", (), Role.NORM),
    ("lm_head/kernel", (8, 100), Role.HEAD),
    ("logits/w", (8, 10), Role.HEAD),
    ("classifier/kernel", (1, 1, 8, 10), Role.HEAD),
    ("head/bias", (10,), Role.BIAS),
    ("MultiHeadDotProductAttention_0/query/kernel", (8, 2, 4), Role.HIDDEN),
    ("multi_head_attention/out/kernel", (2, 4, 8), Role.HIDDEN),
    ("cls", (1, 1, 8), Role.BIAS),
    ("", (8, 4), Role.HIDDEN),
]


@pytest.mark.parametrize(("path", "shape", "role"), CASES, ids=[case[0] for case in CASES])
def test_names_and_ranks_give_a_role(path: str, shape: tuple[int, ...], role: Role):
    tree = np.zeros(shape, np.float32)
    for name in reversed(path.split("/") if path else []):
        tree = {name: tree}
    shapes = jax.eval_shape(lambda x: x, tree)
    for given in (tree, shapes):
        assert jax.tree.leaves(roles_by_name(given)) == [role]


def test_the_tree_keeps_its_structure_and_names():
    tree = {"a": [np.zeros(2), (np.zeros((2, 2)), {})], "b": np.zeros(())}
    assert jax.tree.structure(roles_by_name(tree)) == jax.tree.structure(tree)
    assert tensors(tree) == ["a/0", "a/1/0", "b"]
    assert roles_by_name({}) == {}


def test_the_last_numbered_layer_is_the_head():
    names = [f"Dense_{i}" for i in range(12)]
    tree = {n: {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)} for n in [*names, "Conv_20"]}
    roles = last_layer(roles_by_name(tree), "Dense")
    heads = [n for n in tensors(tree) if roles[n.split("/")[0]][n.split("/")[1]] is Role.HEAD]
    assert heads == ["Dense_11/kernel"]  # not Dense_9, the last by text
    assert roles["Dense_11"]["bias"] is Role.BIAS
    with pytest.raises(ValueError, match="expected a layer Embed_0 at the top, got Conv_20"):
        last_layer(roles_by_name(dict(sorted(tree.items()))), "Embed")


HEADS = {
    "fashion_mnist_resnet": "Dense_0/kernel",
    "icbm_unet": "Conv_0/kernel",
    "assays_gnn": "Dense_8/kernel",
    "flights_dlrm": "Dense_7/kernel",
    "imagenet_resnet": "Dense_0/kernel",
    "fastmri": "Conv_0/kernel",
    "ogbg": "Dense_17/kernel",
    "criteo1tb": "Dense_7/kernel",
}


@pytest.mark.parametrize("name", WORKLOADS.built_in)
def test_every_workload_has_one_head_and_no_tensor_without_a_role(name: str):
    entry = WORKLOADS[name]
    workload = (entry.without_data or entry.make)(entry.settings())
    params, _ = jax.eval_shape(workload.init, jax.random.key(0))
    roles = jax.tree.leaves(workload.roles(params))
    found = dict(zip(tensors(params), roles, strict=True))
    assert [tensor for tensor, role in found.items() if role is Role.HEAD] == [HEADS[name]]
    embeddings = [tensor for tensor, role in found.items() if role is Role.EMBEDDING]
    assert embeddings == (["embedding_table"] if name in ("flights_dlrm", "criteo1tb") else [])
    ranks = dict(zip(found, (len(leaf.shape) for leaf in jax.tree.leaves(params)), strict=True))
    for tensor, role in found.items():
        assert (role in (Role.BIAS, Role.NORM)) == (ranks[tensor] == 1)


def test_the_list_shows_roles_of_a_workload_and_counts_of_all():
    text = describe("flights_dlrm")
    assert "embedding    embedding_table 20,608 x 8" in text
    assert "head         Dense_7/kernel 16 x 1" in text
    counts = describe("workload")
    assert "hidden 7, embedding 1, head 1, bias 8" in counts
    assert counts == describe("workloads")


def test_an_optimizer_is_told_the_roles_of_its_workload():
    class Own(TinyWorkload):
        def roles(self, params):
            return jax.tree.map(lambda p: Role.HEAD, params)

    told = []

    def make(settings, horizon):
        told.append(horizon.roles({"w": np.zeros((2, 2))}))
        return OPTIMIZERS["adam"].make(settings, horizon)

    adam = dataclasses.replace(OPTIMIZERS["adam"], make=make)

    @dataclasses.dataclass(frozen=True)
    class No:
        pass

    workshop = Workshop({"own": Entry("own", No, lambda settings: Own())}, {"adam": adam})
    choices = Choice("own", No()), Choice("adam", adam.settings())
    workshop.program(RunConfig(*choices, Budget(steps=3)))
    assert told == [{"w": Role.HEAD}]
