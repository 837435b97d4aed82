"""Properties of the models at any setting: structure, initial values, losses."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from timetrial.workloads.models import dlrm, gnn, pooling, resnet, unet


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def init(model, x, seed=0):
    inputs = x if isinstance(x, tuple) else (x,)
    return jax.jit(lambda key: model.init(key, *inputs, train=False))(jax.random.key(seed))


# Jitted as a whole: one compilation instead of one per operation, none for shapes seen before.
@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "mutable"))
def apply(model, variables, x, train=False, mutable=False, key=None):
    rngs = {} if key is None else {"dropout": key}
    capture = mutable == "intermediates"
    inputs = x if isinstance(x, tuple) else (x,)
    return model.apply(
        variables, *inputs, train=train, rngs=rngs, mutable=mutable, capture_intermediates=capture
    )


def random_graphs(counts=((5, 7), (3, 0), (9, 20)), seed=0):
    """Graphs with (nodes, edges) as in ``counts``, without padding."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0] + [n for n, _ in counts])
    ends = [o + rng.integers(0, n, (2, e)) for o, (n, e) in zip(offsets, counts, strict=False)]
    senders, receivers = np.concatenate(ends, axis=1).astype(np.int32)
    return {
        "nodes": rng.normal(size=(offsets[-1], 9)).astype(np.float32),
        "edges": rng.normal(size=(len(senders), 3)).astype(np.float32),
        "senders": senders,
        "receivers": receivers,
        "n_node": np.array([n for n, _ in counts], np.int32),
        "n_edge": np.array([e for _, e in counts], np.int32),
    }


# --- ResNet ---


def test_resnet_starts_at_the_entropy_of_a_guess_and_as_shortcuts_only():
    model = resnet.make_model(
        stage_sizes=(2, 1), num_filters=8, num_classes=10, bottleneck=False, small_inputs=True
    )
    x = normal(16, 28, 28, 1)
    variables = init(model, x)
    logits = apply(model, variables, x)
    loss = jnp.mean(resnet.softmax_cross_entropy(logits, np.arange(16) % 10))
    assert float(loss) == pytest.approx(math.log(10), abs=0.02)
    params = variables["params"]
    assert params["Conv_init"]["kernel"].shape == (3, 3, 1, 8)
    assert not params["ResNetBlock_0"]["BatchNorm_1"]["scale"].any()
    assert params["ResNetBlock_0"]["BatchNorm_0"]["scale"].all()
    # Shape is kept in stage 1, changed at the start of stage 2.
    assert [f"ResNetBlock_{i}" for i in range(3) if "Conv_proj" in params[f"ResNetBlock_{i}"]] == [
        "ResNetBlock_2"
    ]
    # A change in a residual branch whose last scale is 0 changes nothing.
    params["ResNetBlock_0"]["Conv_1"]["kernel"] *= 2
    np.testing.assert_array_equal(logits, apply(model, variables, x))


def test_resnet_stem_of_small_inputs_keeps_the_resolution():
    x = normal(1, 28, 28, 1)
    for small, side in ((True, 28), (False, 7)):
        model = resnet.make_model(stage_sizes=(1,), num_filters=4, small_inputs=small)
        _, state = jax.eval_shape(lambda m=model: apply(m, init(m, x), x, mutable="intermediates"))
        block = state["intermediates"]["BottleneckResNetBlock_0"]["__call__"][0]
        assert block.shape == (1, side, side, 16)


def test_batch_norm_moves_its_statistics_a_tenth_towards_the_batch():
    model = resnet.make_model(stage_sizes=(1,), num_filters=4, num_classes=3, small_inputs=True)
    x = 5 + normal(8, 12, 12, 3)
    variables = init(model, x)
    _, state = apply(model, variables, x, train=True, mutable="batch_stats")
    kernel = variables["params"]["Conv_init"]["kernel"]
    y = np.asarray(nn.Conv(4, (3, 3), use_bias=False).apply({"params": {"kernel": kernel}}, x))
    after = state["batch_stats"]["BatchNorm_init"]
    np.testing.assert_allclose(after["mean"], 0.1 * y.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(after["var"], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-4)


def test_groups_of_batch_norm_are_batches_of_their_own():
    sizes = {"stage_sizes": (1,), "num_filters": 4, "num_classes": 3, "small_inputs": True}
    plain, grouped = (resnet.make_model(bn_groups=n, **sizes) for n in (1, 2))
    x = normal(8, 12, 12, 3) * np.linspace(1, 3, 8, dtype=np.float32)[:, None, None, None]
    variables = init(plain, x)
    assert jax.tree.structure(jax.eval_shape(lambda: init(grouped, x))) == jax.tree.structure(
        variables
    )
    logits, state = apply(grouped, variables, x, train=True, mutable="batch_stats")
    halves = [apply(plain, variables, half, train=True, mutable="batch_stats")
              for half in np.split(x, 2)]  # fmt: skip
    np.testing.assert_allclose(
        logits, np.concatenate([half for half, _ in halves]), rtol=1e-4, atol=1e-6
    )
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(new for _, new in halves))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), state, mean)
    np.testing.assert_allclose(
        apply(grouped, variables, x), apply(plain, variables, x), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ValueError, match="bn_groups: expected a divisor of 7 images, got 2"):
        apply(grouped, variables, x[:7], train=True, mutable="batch_stats")


@pytest.mark.parametrize("name", ["resnet", "unet", "dlrm", "gnn"])
def test_computation_in_bfloat16_keeps_float32_parameters_and_results(name):
    make, x = {
        "resnet": (functools.partial(resnet.make_model, stage_sizes=(1,), num_filters=4,
                                     small_inputs=True), normal(2, 8, 8, 3)),
        "unet": (functools.partial(unet.make_model, channels=4, num_pool_layers=1),
                 normal(2, 16, 16)),
        "dlrm": (functools.partial(dlrm.make_model, vocab_size=50, embed_dim=8, **DLRM_WIDTHS),
                 columns()),
        "gnn": (functools.partial(gnn.make_model, latent_dim=8, hidden_dims=(8,), num_outputs=3,
                                  num_message_passing_steps=1), random_graphs()),
    }[name]  # fmt: skip
    wide, narrow = make(), make(dtype=jnp.bfloat16)
    variables = init(wide, x)
    shapes = jax.eval_shape(lambda: init(narrow, x))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype(np.float32)}
    expected, found = (np.asarray(apply(model, variables, x)) for model in (wide, narrow))
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-5 < difference < 0.05


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_softmax_cross_entropy(smoothing):
    logits, labels = 3 * normal(7, 5), np.array([0, 4, 2, 2, 1, 3, 0])
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 5), smoothing)
    expected = optax.softmax_cross_entropy(logits, targets)
    actual = resnet.softmax_cross_entropy(jnp.asarray(logits), labels, smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_top1_correct():
    logits = np.float32([[1, 2, 3], [9, 2, 3], [1, 5, 3]])
    np.testing.assert_array_equal(resnet.top1_correct(logits, np.array([2, 1, 1])), [1, 0, 1])


# --- U-Net ---


@pytest.mark.parametrize(("pools", "size"), [(1, (9, 7)), (2, (21, 20)), (4, (16, 33))])
def test_unet_keeps_the_size_of_even_and_odd_images(pools, size):
    model = unet.make_model(channels=2, num_pool_layers=pools)
    x = normal(2, *size)
    out, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, train=False))
    assert out.shape == x.shape


def test_unet_upsampling_is_flax_conv_transpose():
    x = normal(2, 5, 4, 6)
    ours, theirs = unet.ConvTranspose(3), nn.ConvTranspose(3, (2, 2), (2, 2), use_bias=False)
    variables = theirs.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, variables, ours.init(jax.random.key(1), x))
    np.testing.assert_allclose(
        ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-6
    )


def test_unet_mirrors_the_row_and_column_that_pooling_dropped():
    # Even and odd differ only in the padding: with kernels that look at one pixel, the last row
    # of an odd image is computed from the row before the last of the up-sampled one.
    model = unet.make_model(channels=2, num_pool_layers=1)
    x = normal(1, 5, 5)
    variables = init(model, x)
    params = variables["params"]
    params["ConvBlock_2"]["Conv_0"]["kernel"] *= 0
    params["ConvBlock_2"]["Conv_0"]["kernel"] = (
        params["ConvBlock_2"]["Conv_0"]["kernel"].at[1, 1, 0, 0].set(1.0)
    )
    _, state = apply(model, variables, x, mutable="intermediates")
    up = state["intermediates"]["TransposeConvBlock_0"]["__call__"][0]
    padded = state["intermediates"]["ConvBlock_2"]["Conv_0"]["__call__"][0][..., 0]
    np.testing.assert_array_equal(padded[0, :4, :4], up[0, ..., 0])
    np.testing.assert_array_equal(padded[0, 4], padded[0, 2])
    np.testing.assert_array_equal(padded[0, :, 4], padded[0, :, 2])


def test_unet_drops_whole_channels():
    block = unet.ConvBlock(16, 0.5)
    x = normal(3, 6, 6, 2)
    variables = block.init(jax.random.key(0), x, train=False)
    out = block.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
    dropped = np.asarray(out == 0).mean((1, 2))
    assert set(np.unique(dropped)) == {0.0, 1.0}


def test_unet_refuses_images_that_it_cannot_halve_so_often():
    model = unet.make_model(channels=2, num_pool_layers=3)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        model.init(jax.random.key(0), normal(1, 7, 20), train=False)


def test_l1_loss_is_per_image():
    x, y = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    np.testing.assert_allclose(unet.l1_loss(x, y), np.abs(x - y).mean((1, 2)), rtol=1e-6)


# --- GNN ---


@pytest.fixture(scope="module")
def small_gnn():
    model = gnn.make_model(
        latent_dim=6, hidden_dims=(5,), num_message_passing_steps=2, num_outputs=4
    )
    return model, init(model, random_graphs())


def test_gnn_layers_and_widths():
    model = gnn.make_model(
        latent_dim=6, hidden_dims=(5, 7), num_message_passing_steps=2, num_outputs=4
    )
    graphs = random_graphs()
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), graphs, train=False))["params"]
    kernels = [params[f"Dense_{i}"]["kernel"].shape for i in range(15)]
    first = [(3 * 6 + 4, 5), (5, 7), (6 + 7 + 7 + 4, 5), (5, 7), (7 + 7 + 4, 5), (5, 7)]
    second = [(28, 5), (5, 7), (28, 5), (5, 7), (21, 5), (5, 7)]
    assert kernels == [(9, 6), (3, 6), *first, *second, (7, 4)]
    assert len(params) == 15 + 12


def test_gnn_sees_each_graph_alone_whatever_the_padding(small_gnn):
    model, variables = small_gnn
    graphs = random_graphs()
    logits = apply(model, variables, graphs)
    first = {
        "nodes": graphs["nodes"][:5],
        "edges": graphs["edges"][:7],
        "senders": graphs["senders"][:7],
        "receivers": graphs["receivers"][:7],
        "n_node": graphs["n_node"][:1],
        "n_edge": graphs["n_edge"][:1],
    }
    np.testing.assert_allclose(apply(model, variables, first), logits[:1], rtol=1e-4, atol=1e-5)
    padded = {
        "nodes": np.concatenate([graphs["nodes"], 100 * normal(4, 9)]),
        "edges": np.concatenate([graphs["edges"], 100 * normal(3, 3)]),
        "senders": np.append(graphs["senders"], [17, 17, 17]),
        "receivers": np.append(graphs["receivers"], [17, 17, 17]),
        "n_node": np.append(graphs["n_node"], [4, 0]),
        "n_edge": np.append(graphs["n_edge"], [3, 0]),
    }
    np.testing.assert_allclose(apply(model, variables, padded)[:3], logits, rtol=1e-4, atol=1e-5)


def test_gnn_does_not_see_the_numbering_but_the_direction(small_gnn):
    model, variables = small_gnn
    graphs = random_graphs(((6, 11),))
    logits = apply(model, variables, graphs)
    rng = np.random.default_rng(3)
    node, edge = rng.permutation(6), rng.permutation(11)
    place = np.argsort(node)
    renumbered = graphs | {
        "nodes": graphs["nodes"][node],
        "edges": graphs["edges"][edge],
        "senders": place[graphs["senders"][edge]],
        "receivers": place[graphs["receivers"][edge]],
    }
    np.testing.assert_allclose(apply(model, variables, renumbered), logits, rtol=1e-4, atol=1e-5)
    turned = graphs | {"senders": graphs["receivers"], "receivers": graphs["senders"]}
    assert np.abs(apply(model, variables, turned) - logits).max() > 1e-3


def test_gnn_dropout_only_in_training(small_gnn):
    model, variables = small_gnn
    graphs = random_graphs()
    first, second = (
        apply(model, variables, graphs, train=True, key=jax.random.key(k)) for k in (0, 1)
    )
    assert np.abs(first - second).max() > 1e-3
    with pytest.raises(Exception, match="dropout"):
        model.apply(variables, graphs, train=True)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_masked_binary_cross_entropy(smoothing):
    logits = 4 * normal(6, 5)
    labels = (normal(6, 5, seed=1) > 0).astype(np.float32)
    weights = (normal(6, 5, seed=2) > 0).astype(np.float32)
    weights[-1] = 0
    targets = (1 - smoothing) * labels + smoothing / 5
    expected = np.asarray(optax.sigmoid_binary_cross_entropy(logits, targets))
    labels[weights == 0] = np.nan
    losses, counts = gnn.masked_binary_cross_entropy(logits, labels, weights, smoothing)
    np.testing.assert_allclose(losses, (expected * weights).sum(1), rtol=1e-5)
    np.testing.assert_array_equal(counts, weights.sum(1))
    grads = jax.grad(
        lambda z: jnp.sum(gnn.masked_binary_cross_entropy(z, labels, weights, smoothing)[0])
    )(logits)
    np.testing.assert_allclose(
        grads, weights * (1 / (1 + np.exp(-logits)) - targets), rtol=1e-4, atol=1e-6
    )


# --- DLRM ---

DLRM_WIDTHS = {"mlp_bottom_dims": (12, 8), "mlp_top_dims": (16, 10, 1)}


def columns(rows=5, seed=0):
    ids = np.random.default_rng(seed).integers(0, 2**31, (rows, 26)).astype(np.int32)
    return normal(rows, 13, seed=seed), ids


@pytest.mark.parametrize("embed_dim", [8, 4])
def test_dlrm_by_its_definition(embed_dim):
    model = dlrm.make_model(vocab_size=50, embed_dim=embed_dim, **DLRM_WIDTHS)
    x = columns()
    variables = init(model, x)
    p = jax.tree.map(np.asarray, variables["params"])
    expected = []
    for bottom, ids in zip(*x, strict=True):
        for i in range(2):
            bottom = np.maximum(bottom @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"], 0)
        features = list(bottom.reshape(-1, embed_dim))
        features += [p["embedding_table"][int(c) % 50] for c in ids]
        dots = [features[i] @ f for i in range(len(features)) for f in features[i:]]
        z = np.concatenate([bottom, dots])
        for i in range(2, 5):
            z = z @ p[f"Dense_{i}"]["kernel"] + p[f"Dense_{i}"]["bias"]
            z = np.maximum(z, 0) if i < 4 else z
        expected.append(z)
    actual = apply(model, variables, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_dlrm_initial_values():
    model = dlrm.make_model(
        vocab_size=10_000, mlp_bottom_dims=(400, 32), mlp_top_dims=(500, 300, 1), embed_dim=32
    )
    p = jax.tree.map(np.asarray, init(model, columns(2))["params"])
    table = p["embedding_table"]
    assert table.min() >= 0
    assert table.max() < 0.01
    assert table.mean() == pytest.approx(0.005, rel=0.01)
    glorot = math.sqrt(6 / (400 + 32))
    assert 0.99 * glorot < np.abs(p["Dense_1"]["kernel"]).max() <= glorot
    assert p["Dense_0"]["bias"].std() == pytest.approx(400**-0.5, rel=0.1)
    assert p["Dense_2"]["kernel"].std() == pytest.approx(math.sqrt(2 / (410 + 500)), rel=0.02)
    assert p["Dense_3"]["bias"].std() == pytest.approx(300**-0.5, rel=0.15)
    # The logit's bias is N(0, 1): what makes the initial loss vary so much between seeds.
    small = dlrm.make_model(vocab_size=2, mlp_bottom_dims=(1,), mlp_top_dims=(1,), embed_dim=1)
    start = jax.jit(jax.vmap(lambda key: small.init(key, *columns(1), train=False)))
    keys = jax.vmap(jax.random.key)(np.arange(60))
    biases = start(keys)["params"]["Dense_1"]["bias"]
    assert np.std(biases) == pytest.approx(1, rel=0.3)


def test_dlrm_drops_units_before_the_last_layer():
    model = dlrm.make_model(vocab_size=50, embed_dim=8, dropout_rate=0.5, **DLRM_WIDTHS)
    x = columns()
    variables = init(model, x)
    key = jax.random.key(0)
    _, state = apply(model, variables, x, train=True, mutable="intermediates", key=key)
    layers = state["intermediates"]
    before = np.maximum(layers["Dense_3"]["__call__"][0], 0)
    after = layers["Dropout_0"]["__call__"][0]
    assert set(np.unique((after / before)[before > 0])) == {0.0, 2.0}


def test_binary_cross_entropy_takes_columns_and_keeps_small_losses():
    z, y = 3 * normal(9, 1), np.float32([[1], [0], [1], [0], [0], [1], [1], [1], [0]])
    expected = np.log1p(np.exp(np.where(y == 1, -z, z).astype(np.float64)))[:, 0]
    np.testing.assert_allclose(dlrm.binary_cross_entropy(z, y), expected, rtol=1e-5)
    np.testing.assert_allclose(dlrm.binary_cross_entropy(z[:, 0], y[:, 0]), expected, rtol=1e-5)
    sure = dlrm.binary_cross_entropy(np.float32([30, 1e5]), np.float32([1, 0]))
    np.testing.assert_allclose(sure, [math.exp(-30), 1e5], rtol=1e-5)


# --- bad settings ---


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (resnet.make_model, {"stage_sizes": ()}, r"stage_sizes: expected .* got \(\)"),
        (resnet.make_model, {"num_filters": 0}, "num_filters: expected .* got 0"),
        (unet.make_model, {"num_pool_layers": 0}, "num_pool_layers: expected .* got 0"),
        (unet.make_model, {"dropout_rate": 1.0}, r"dropout_rate: expected .*\[0, 1\), got 1.0"),
        (gnn.make_model, {"hidden_dims": (8, 0)}, r"hidden_dims: expected .* got \(8, 0\)"),
        (gnn.make_model, {"num_outputs": -1}, "num_outputs: expected .* got -1"),
        (gnn.make_model, {"dropout_rate": float("nan")}, "dropout_rate: expected .* got nan"),
        (dlrm.make_model, {"vocab_size": 0}, "vocab_size: expected .* got 0"),
        (dlrm.make_model, {"embed_dim": 100}, "multiple of embed_dim=100"),
        (dlrm.make_model, {"dropout_rate": -0.1}, "dropout_rate: expected .* got -0.1"),
    ],
)
def test_bad_settings_are_refused_at_construction(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


# --- Faster variants; all else about them is in tests/golden ---


@pytest.mark.parametrize("sides", [(8, 8), (7, 10), (1, 3)])
def test_max_pool_is_flaxs_also_among_equal_values(sides):
    x = np.random.default_rng(0).integers(0, 4, (2, *sides, 3)).astype(np.float32)

    def theirs(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    @functools.partial(jax.jit, static_argnums=0)
    def run(pool, x):
        y, pullback = jax.vjp(pool, x)
        return y, pullback(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape))[0]

    for actual, expected in zip(run(pooling.max_pool, x), run(theirs, x), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_fast_gnn_starts_with_the_same_parameters(small_gnn):
    (model, variables), graphs = small_gnn, random_graphs()
    fast = init(model.clone(fast=True), graphs)
    jax.tree.map(np.testing.assert_array_equal, fast, variables)
    logits = apply(model.clone(fast=True), variables, graphs)
    np.testing.assert_allclose(logits, apply(model, variables, graphs), rtol=1e-4, atol=1e-5)
