from __future__ import annotations

import jax
import numpy as np
import pytest

from timetrial.workloads.data import embedded_data, molecules
from timetrial.workloads.models import gnn


@pytest.fixture(scope="module")
def data() -> molecules.Molecules:
    return molecules.load_molecules()["validation"]


def test_all_molecules_are_in_one_split():
    counts = [part.count for part in molecules.load_molecules().values()]
    assert sum(counts) == len(embedded_data.load("assays")["split"])
    assert counts[0] > 7 * counts[1]
    for part in molecules.load_molecules().values():
        assert ((part.labels == 1).sum(axis=0) > 20).all()
        assert (part.labels >= 0).any(axis=1).all()


def test_edges_go_both_ways_inside_a_molecule(data):
    for g in range(0, data.count, 97):
        edges = slice(data.first_edge[g], data.first_edge[g] + data.n_edge[g])
        pairs = list(zip(data.senders[edges], data.receivers[edges], strict=True))
        assert sorted(pairs) == sorted((b, a) for a, b in pairs)
        assert max(max(pair) for pair in pairs) == data.n_node[g] - 1
        assert len(set(pairs)) == len(pairs)


def test_features_are_in_the_range_of_ogb():
    raw = embedded_data.load("assays")
    assert (raw["nodes"].max(axis=0) < [119, 5, 12, 12, 10, 6, 6, 2, 2]).all()
    assert (raw["edges"].max(axis=0) < [5, 6, 2]).all()
    carbon = raw["nodes"][:, 0] == 5
    assert 0.6 < carbon.mean() < 0.8


def test_packing_is_the_graphs_one_after_the_other(data):
    rows = np.array([5, 0, 17])
    batch = molecules.pack(data, rows, molecules.Capacity(4, 256, 512))
    assert {name: values.shape for name, values in batch.items()} == {
        "nodes": (256, 9),
        "edges": (512, 3),
        "senders": (512,),
        "receivers": (512,),
        "n_node": (5,),
        "n_edge": (5,),
        "y": (5, 7),
        "weight": (5, 7),
    }
    assert batch["n_node"].sum() == 256
    assert batch["n_edge"].sum() == 512
    np.testing.assert_array_equal(batch["n_node"][:4], [*data.n_node[rows], 0])
    node = edge = 0
    for i, g in enumerate(rows):
        n, m = data.n_node[g], data.n_edge[g]
        nodes = slice(data.first_node[g], data.first_node[g] + n)
        edges = slice(data.first_edge[g], data.first_edge[g] + m)
        np.testing.assert_array_equal(batch["nodes"][node : node + n], data.nodes[nodes])
        np.testing.assert_array_equal(batch["edges"][edge : edge + m], data.edges[edges])
        senders = batch["senders"][edge : edge + m] - node
        np.testing.assert_array_equal(senders, data.senders[edges])
        receivers = batch["receivers"][edge : edge + m] - node
        np.testing.assert_array_equal(receivers, data.receivers[edges])
        np.testing.assert_array_equal(batch["weight"][i], data.labels[g] >= 0)
        np.testing.assert_array_equal(batch["y"][i], data.labels[g] == 1)
        node, edge = node + n, edge + m
    assert (batch["senders"][edge:] == node).all()
    assert (batch["receivers"][edge:] == node).all()
    assert not batch["nodes"][node:].any()
    assert not batch["weight"][3:].any()


def test_graphs_that_do_not_fit_are_left_out_whole(data):
    rows = np.arange(8)
    capacity = molecules.Capacity(8, int(data.n_node[:5].sum()) + 1, 10_000)
    batch = molecules.pack(data, rows, capacity)
    np.testing.assert_array_equal(batch["n_node"], [*data.n_node[:5], 0, 0, 0, 1])
    assert batch["weight"].any(axis=1).tolist() == [True] * 5 + [False] * 4
    by_edges = molecules.Capacity(8, 10_000, int(data.n_edge[:3].sum()))
    assert (molecules.pack(data, rows, by_edges)["n_node"][:8] > 0).sum() == 3


def test_usual_batches_fit():
    train = molecules.load_molecules()["train"]
    capacity = molecules.usual_capacity(train, 64)
    rng = np.random.default_rng(0)
    for _ in range(200):
        batch = molecules.pack(train, rng.permutation(train.count)[:64], capacity)
        assert (batch["n_node"][:64] > 0).all()
    assert capacity.nodes < 1.35 * 64 * train.n_node.mean()


def test_needed_capacity_is_just_enough(data):
    batches = [(data, np.arange(10)), (data, np.arange(10, 25))]
    capacity = molecules.needed_capacity(15, batches)
    packed = [molecules.pack(data, rows, capacity) for _, rows in batches]
    assert [(b["n_node"][:15] > 0).sum() for b in packed] == [10, 15]
    assert min(b["n_node"][-1] for b in packed) <= 64
    assert min(b["n_edge"][-1] for b in packed) < 64


def test_logits_of_a_molecule_do_not_depend_on_its_company(data):
    model = gnn.make_model(
        latent_dim=8, hidden_dims=(8,), num_message_passing_steps=2, num_outputs=7
    )
    together = molecules.pack(data, np.arange(6), molecules.Capacity(6, 512, 1024))
    alone = molecules.pack(data, np.array([4]), molecules.Capacity(1, 128, 256))
    variables = jax.jit(model.init, static_argnames="train")(jax.random.key(0), alone, train=False)
    apply = jax.jit(model.apply, static_argnames="train")
    np.testing.assert_allclose(
        apply(variables, together, train=False)[4],
        apply(variables, alone, train=False)[0],
        rtol=2e-4,
        atol=1e-5,
    )
