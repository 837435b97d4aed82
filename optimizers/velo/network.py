"""The per-tensor network: an LSTM maps a tensor's statistics to its step size and its MLP.

Boundary: pure arithmetic on (tensors, features) matrices; knows neither parameters nor shapes.

Architecture: Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760. Matrix products ask for the highest precision: they are small,
and with TF32 the trajectory would depend on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.velo import layout
from timetrial.optimizers.weights.layouts import VELO, Layout

_BANK_SCALE = 100.0


class Affine(NamedTuple):
    """A linear layer ``x @ weight + bias``."""

    weight: jax.Array
    bias: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.dot(x, self.weight, precision=jax.lax.Precision.HIGHEST) + self.bias


class MetaParameters(NamedTuple):
    """VeLO's learned weights, float32; H is the LSTM's width, K the size of the bank.

    Attributes:
        hidden, cell: (1, H) LSTM state of every tensor before the first update.
        maximum: 30 to H; the maximum of its ReLU over the tensors is shared by all of them.
        own: 30 to H, from the tensor's own features.
        lstm: 2 H to 4 H, gates in the order input, candidate, forget, output.
        controls: H to K, weights of the bank entries in a tensor's MLP.
        step_size: H to 1, the multiplier of the tensor's step.
        bank: (K, 159), each row the weights of one MLP 30-4-4-3: those of the first layer (30, 4),
            its biases, those of the second one (4, 4), and so on.
    """

    hidden: jax.Array
    cell: jax.Array
    maximum: Affine
    own: Affine
    lstm: Affine
    controls: Affine
    step_size: Affine
    bank: jax.Array


def read_meta_parameters(tree: Mapping[str, Any]) -> MetaParameters:
    """Checks names and shapes of weights and arranges them for the network.

    Args:
        tree: nested mapping with the released names (``"rnn/linear"`` is one key); NumPy or JAX
            arrays, traced ones too.

    Raises:
        layout.WeightsError: a name or a shape is wrong.
    """
    flat = float32_leaves(tree, VELO)

    def affine(name: str) -> Affine:
        return layer(flat, name)

    return MetaParameters(
        hidden=flat["lstm_init_state", "hidden"],
        cell=flat["lstm_init_state", "cell"],
        maximum=affine("linear_1"),
        own=affine("linear_2"),
        lstm=affine("rnn/linear"),
        controls=affine("rnn_to_controls"),
        step_size=affine("step_size"),
        bank=bank_of(flat),
    )


def bank_of(flat: Mapping[layout.Path, Any]) -> Any:
    """The bank of per-parameter networks, (K, 159), from their weights by path."""
    groups = [f"w0__{j}" for j in range(len(layout.FEATURE_WIDTHS))]
    names = [*groups, "b0", "w1", "b1", "w2", "b2"]
    leaves = [flat["ff_mod_stack", "~", name] for name in names]
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
    return (jnp if traced else np).concatenate([a.reshape(a.shape[0], -1) for a in leaves], axis=1)


def float32_leaves(tree: Mapping[str, Any], expected: Layout) -> dict[layout.Path, Any]:
    """Weights by path as float32 arrays, names and shapes checked.

    Raises:
        layout.WeightsError: a name, a shape or a dtype is wrong.
    """
    flat = {path: _float32(path, leaf) for path, leaf in expected.flatten(tree).items()}
    expected.check({path: tuple(leaf.shape) for path, leaf in flat.items()})
    return flat


def layer(flat: Mapping[layout.Path, Any], name: str) -> Affine:
    """A layer of the per-tensor network, from weights by path."""
    return Affine(flat["rnn_params", name, "w"], flat["rnn_params", name, "b"])


def _float32(path: layout.Path, leaf: Any) -> Any:
    if not hasattr(leaf, "shape") or not jnp.issubdtype(leaf.dtype, jnp.floating):
        kind = getattr(leaf, "dtype", type(leaf).__name__)
        raise layout.WeightsError(f"{layout.show(path)}: expected an array of floats, got {kind}")
    if isinstance(leaf, jax.core.Tracer):
        return leaf.astype(jnp.float32)
    return np.asarray(leaf, np.float32)


class Lstm(Protocol):
    """The layers of an LSTM step; see ``MetaParameters``."""

    @property
    def maximum(self) -> Affine: ...
    @property
    def own(self) -> Affine: ...
    @property
    def lstm(self) -> Affine: ...


def lstm_step(
    theta: Lstm, features: jax.Array, hidden: jax.Array, cell: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step of the LSTM for all tensors at once.

    Args:
        theta: the learned weights.
        features: (n, 30) statistics of every tensor, n >= 1; 18 columns with Celo's layers.
        hidden: (n, H) LSTM state.
        cell: (n, H) LSTM state.

    Returns:
        The new ``(hidden, cell)``.
    """
    shared = jnp.max(jax.nn.relu(theta.maximum(features)), axis=0, keepdims=True)
    mixed = theta.own(features) + shared
    gates = theta.lstm(jnp.concatenate([mixed, hidden], axis=1))
    i, g, f, o = jnp.split(gates, 4, axis=1)
    cell = jax.nn.sigmoid(f + 1.0) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def mlp_weights(theta: MetaParameters, controls: jax.Array) -> jax.Array:
    """Mixes the MLP of every tensor from the bank: 100 times the mean of its weighted entries.

    Args:
        theta: the learned weights.
        controls: (n, K) weights of the bank entries.
    """
    scaled = controls * (_BANK_SCALE / theta.bank.shape[0])
    return jnp.dot(scaled, theta.bank, precision=jax.lax.Precision.HIGHEST)
