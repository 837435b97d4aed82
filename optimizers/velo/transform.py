"""VeLO as an optax transformation, with the weight decay and accumulation of its released wrapper.

Boundary: arguments and results of an update; ``core`` does the arithmetic.

**Prompt or feed.** The network reads the share of the training that is done. By default it is
``t / num_steps`` after t updates (the prompt, as in the paper). With ``remaining_fraction`` it is
``1 - remaining_fraction`` (the feed): under a time budget the number of steps is unknown, but the
time left is known. Even then ``num_steps`` is needed, as an estimate, in two places: the time
constants of the running means behind the loss features are spaced from 10 to ``num_steps`` updates,
and gradients are accumulated when it is above ``max_training_steps``. A factor of two in
``num_steps`` moves the time constants by at most a factor of two.

**Accumulation.** With A = ``accumulation_steps(num_steps, max_training_steps)`` > 1, gradients and
losses are averaged over A calls; the first A - 1 return zeros, and VeLO makes ``num_steps // A``
updates in all. The prompt counts these updates; the feed is that of the call that makes the update.

**Weight decay** is L2 regularisation inside the optimizer: every call adds ``w * p`` to the
gradient and ``w * sum(p**2)`` to the loss, for every tensor, biases included.

**Not a number.** There is no guard, as there was none when the weights were trained. One NaN loss
makes the running means NaN for good, and all parameters at that very update (an infinite one is cut
to twice the largest mean, as any outlier is). A NaN gradient makes its tensor NaN at that update
and all tensors at the next. Stop the run when the loss is not finite. Gradients are clipped to
[-1000, 1000].

**Kernels.** With ``kernels="auto"`` Pallas kernels read the tiles on a single NVIDIA GPU where they
compile; plain XLA does elsewhere and where the weights are traced. ``plain`` forbids kernels, which
have no derivative; ``pallas`` demands them, interpreted and slow on a CPU. Results differ by float
error; the state does not depend on the choice.

**State.** Only the averages grow with the model: 4 float32 per parameter (5 to 7 for vectors). They
are stored as tiles (see ``tiling``) whose number and order depend on all the shapes;
``tensor_averages`` gives them by tensor. Leaves without elements stay as they are.

Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from timetrial.optimizers import calls
from timetrial.optimizers.velo import core
from timetrial.optimizers.velo.loss_features import LossState, init_loss_state, update_loss_state
from timetrial.optimizers.velo.network import MetaParameters, read_meta_parameters
from timetrial.optimizers.velo.tiling.kernels import check_choice, chosen
from timetrial.optimizers.velo.tiling.tiles import Tiling, make_tiling
from timetrial.optimizers.velo.weights import find_weights

PyTree = Any

MAX_TRAINING_STEPS = 150_000
"""Longest training of the released wrapper without accumulation, in updates."""


class Accumulator(NamedTuple):
    """Gradients and losses kept for the next update of VeLO.

    Attributes:
        grads: float32 sum of the gradients, shaped like the parameters.
        loss: float32 scalar, sum of the losses.
        calls: int32 scalar, calls since the last update of VeLO.
    """

    grads: PyTree
    loss: jax.Array
    calls: jax.Array


class VeloState(NamedTuple):
    """State of ``velo``; float32 for parameters of any dtype, except for the counters.

    Attributes:
        updates: int32 scalar, updates made.
        num_steps: int32 scalar, updates expected in all.
        loss: running means of the loss.
        network: LSTM state and averages of the gradients.
        accumulator: ``None`` unless gradients are accumulated.
    """

    updates: jax.Array
    num_steps: jax.Array
    loss: LossState
    network: core.NetworkState
    accumulator: Accumulator | None


def accumulation_steps(num_steps: int, max_training_steps: int = MAX_TRAINING_STEPS) -> int:
    """Calls of ``update`` merged into one update of VeLO; 1 without accumulation.

    The released wrapper averages gradients and losses over so many calls that VeLO itself never
    makes more than ``max_training_steps`` updates. Between them the parameters do not change.
    """
    return max(1, math.ceil(num_steps / max_training_steps))


def velo(
    num_steps: int,
    *,
    meta_params: Mapping[str, Any] | None = None,
    weight_decay: float = 0.0,
    max_training_steps: int = MAX_TRAINING_STEPS,
    kernels: str = "plain",
) -> optax.GradientTransformationExtraArgs:
    """The learned optimizer VeLO; the module's docstring describes it.

    ``update(grads, state, params, *, value, remaining_fraction=None)`` needs the parameters and
    ``value``, the training loss. It returns ``new_params - params`` in their dtype. There is no
    learning rate; schedules or clipping around it change what it was trained for.

    Args:
        num_steps: N, expected number of calls of ``update``, >= 1; more calls are allowed.
        meta_params: the learned weights, a nested mapping with the released names and shapes, for
            any LSTM width and bank size. Concrete arrays become constants of the program that
            calls ``update`` (9 MB for the released sizes); traced ones do not, as in a function
            that is differentiated over them. None: those of ``weights.find_weights``.
        weight_decay: w >= 0.
        max_training_steps: updates above which gradients are accumulated, >= 1.
        kernels: auto, plain or pallas.

    Raises:
        ValueError: an argument is out of range.
        layout.WeightsError: ``meta_params`` is not a set of VeLO weights, or a file is damaged.
    """
    steps = {"num_steps": num_steps, "max_training_steps": max_training_steps}
    calls.check_numbers("velo", weight_decay, **steps)
    check_choice(kernels)
    weights = find_weights().meta_params if meta_params is None else meta_params
    theta, merged = read_meta_parameters(weights), accumulation_steps(**steps)

    def update(
        grads: PyTree,
        state: VeloState,
        params: PyTree = None,
        *,
        value: Any = None,
        remaining_fraction: Any = None,
        **_: Any,
    ) -> tuple[PyTree, VeloState]:
        call = calls.read_call("velo", grads, params, value, weight_decay, remaining_fraction)
        changes, state = _accumulated(theta, chosen(kernels, theta), merged, state, call)
        updates = [calls.rounded(*both) for both in zip(call.params, changes, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(params), updates), state

    init = functools.partial(_init, theta, num_steps // merged, merged > 1)
    return optax.GradientTransformationExtraArgs(init, update)


def _init(theta: MetaParameters, num_steps: int, accumulates: bool, params: PyTree) -> VeloState:
    """The state before the first call; ``num_steps`` counts updates of VeLO itself."""
    leaves = calls.float_leaves("velo", params, "params")
    waiting = None
    if accumulates:
        zeros = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.float32), params)
        waiting = Accumulator(zeros, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    return VeloState(
        updates=jnp.zeros((), jnp.int32),
        num_steps=jnp.asarray(num_steps, jnp.int32),
        loss=init_loss_state(num_steps),
        network=core.init_state(theta, _tiling(leaves)),
        accumulator=waiting,
    )


def tensor_averages(state: VeloState, params: PyTree) -> PyTree:
    """The averages of the gradients by tensor, in the paper's shapes.

    Args:
        state: state of ``velo``.
        params: a tree of the shapes given to ``init``.

    Returns:
        The tree of ``params`` with a dict for every tensor: ``momentum`` (shape + (3,)), ``rms``
        (shape + (1,)) and, with a trailing axis of 3, ``diagonal`` for rank below 2, otherwise
        ``row`` (shape without its largest axis d0) and ``column`` (without the next, d1).
    """
    leaves, treedef = jax.tree.flatten(params)
    averages = core.tensor_averages(_tiling(leaves), state.network, len(leaves))
    return jax.tree.unflatten(treedef, averages)


def _update_once(
    theta: MetaParameters, pallas: bool, state: VeloState, call: calls.Call
) -> tuple[list[jax.Array], VeloState]:
    """One update of the network itself; float32 changes of all leaves."""
    tiling = _tiling(call.params, pallas)
    if call.remaining is None:
        fraction = state.updates.astype(jnp.float32) / state.num_steps.astype(jnp.float32)
    else:
        fraction = 1.0 - call.remaining
    loss_state, features = update_loss_state(state.loss, call.loss)
    steps = [jnp.zeros(p.shape, jnp.float32) for p in call.params]
    network = state.network
    if len(tiling.leaves) > 0:
        found, network, _ = core.learned_update(
            theta, tiling, network, call.grads, call.params, features, fraction
        )
        for leaf, step in zip(tiling.leaves, found, strict=True):
            steps[leaf] = step
    return steps, state._replace(updates=state.updates + 1, loss=loss_state, network=network)


def _accumulated(
    theta: MetaParameters, pallas: bool, merged: int, state: VeloState, call: calls.Call
) -> tuple[list[jax.Array], VeloState]:
    """Updates at every ``merged``-th call, with the means of gradients and losses since."""
    waiting = state.accumulator
    if waiting is None:
        return _update_once(theta, pallas, state, call)
    held, treedef = jax.tree.flatten(waiting.grads)
    sums = [a + g.astype(jnp.float32) for a, g in zip(held, call.grads, strict=True)]
    total = waiting.loss + call.loss

    def apply() -> tuple[list[jax.Array], VeloState]:
        means = call._replace(grads=[a / merged for a in sums], loss=total / merged)
        steps, new = _update_once(theta, pallas, state, means)
        return steps, new._replace(accumulator=jax.tree.map(jnp.zeros_like, waiting))

    def wait() -> tuple[list[jax.Array], VeloState]:
        kept = Accumulator(jax.tree.unflatten(treedef, sums), total, waiting.calls + 1)
        zeros = [jnp.zeros(p.shape, jnp.float32) for p in call.params]
        return zeros, state._replace(accumulator=kept)

    made: tuple[list[jax.Array], VeloState] = jax.lax.cond(waiting.calls + 1 >= merged, apply, wait)
    return made


def _tiling(leaves: Sequence[Any], pallas: bool = False) -> Tiling:
    shapes = tuple(jnp.shape(leaf) for leaf in leaves)
    return make_tiling(shapes, pallas=pallas, divide=jax.device_count() > 1)
