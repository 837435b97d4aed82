"""Names and shapes of the learned weights of VeLO, Celo, Celo-Adam and Celo2.

Boundary: pure; names and shapes, no arrays, no files.

VeLO: Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760. Celo and Celo-Adam: Moudgil et al., "Celo: Training Versatile
Learned Optimizers on a Compute Diet", 2025, https://arxiv.org/abs/2501.12670. Celo2: Moudgil,
Knyazev and Belilovsky, "Celo2: Towards Learned Optimization Free Lunch", 2026,
https://arxiv.org/abs/2602.19142. The names are those of the published files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from timetrial.optimizers.weights import trees
from timetrial.optimizers.weights.trees import Path, WeightsError, show

Shapes = dict[Path, tuple[int, ...]]

FEATURE_WIDTHS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
"""Inputs of the per-parameter network by feature group; group j has the weights ``w0__j``."""

MLP_WIDTH = 4
"""Hidden units of the per-parameter network of VeLO and Celo; Celo2 has twice as many."""

MLP_OUTPUTS = 3
"""Outputs of the per-parameter network."""

VELO_FEATURES = 30
"""Inputs of VeLO's LSTM."""

CELO_FEATURES = 18
"""Inputs of the LSTM of Celo and Celo-Adam."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Names and shapes of the weights of one rule.

    Attributes:
        title: name of the rule in messages.
        optimizers: registry entries that take such weights.
        paths: all tensors, in the order of the published file.
        shapes_for: the shapes that the sizes in the found ones imply, and these sizes in words;
            raises a WeightsError where a shape gives no sizes.
    """

    title: str
    optimizers: tuple[str, ...]
    paths: tuple[Path, ...]
    shapes_for: Callable[[Mapping[Path, tuple[int, ...]]], tuple[Shapes, str]]

    def flatten(self, tree: Mapping[str, Any]) -> dict[Path, Any]:
        """Leaves by path, in order of ``paths``.

        Raises:
            WeightsError: the names are not those of this layout.
        """
        return trees.flatten(tree, self.paths, self.title)

    def check(self, found: Mapping[Path, tuple[int, ...]]) -> None:
        """Checks the shape of every tensor in ``paths``.

        Raises:
            WeightsError: they do not agree; names the first tensor that does not fit.
        """
        expected, sizes = self.shapes_for(found)
        for path, shape in expected.items():
            if found[path] != shape:
                raise WeightsError(
                    f"{show(path)}: expected shape {shape}{sizes}, got {found[path]}"
                )


def per_parameter_shapes(width: int, bank: tuple[int, ...] = ()) -> Shapes:
    """Shapes of the per-parameter network, sorted by name.

    Args:
        width: hidden units.
        bank: leading axes, ``(K,)`` for a bank of K networks.
    """
    shapes: dict[str, tuple[int, ...]] = {
        **{f"w0__{j}": (*bank, inputs, width) for j, inputs in enumerate(FEATURE_WIDTHS)},
        "w1": (*bank, width, width),
        "w2": (*bank, width, MLP_OUTPUTS),
        "b0": (*bank, width),
        "b1": (*bank, width),
        "b2": (*bank, MLP_OUTPUTS),
    }
    return {("ff_mod_stack", "~", name): shapes[name] for name in sorted(shapes)}


def lstm_shapes(inputs: int, hidden_size: int, controls: int | None) -> Shapes:
    """Shapes of the LSTM and the layers around it.

    Args:
        inputs: features of a tensor, or of the training.
        hidden_size: H.
        controls: outputs of ``rnn_to_controls``; ``None`` without that layer.
    """
    H = hidden_size
    layers = {
        "linear": (inputs, H),
        "linear_1": (inputs, H),
        "linear_2": (inputs, H),
        "rnn/linear": (2 * H, 4 * H),
        **({} if controls is None else {"rnn_to_controls": (H, controls)}),
        "step_size": (H, 1),
    }
    shapes: Shapes = {("lstm_init_state", name): (1, H) for name in ("hidden", "cell")}
    for name, (rows, columns) in layers.items():
        shapes["rnn_params", name, "b"] = (columns,)
        shapes["rnn_params", name, "w"] = (rows, columns)
    return shapes


def velo_shapes(hidden_size: int, bank_size: int) -> Shapes:
    """Shapes of VeLO's weights; see ``velo.layout.shapes``."""
    return {
        **per_parameter_shapes(MLP_WIDTH, (bank_size,)),
        **lstm_shapes(VELO_FEATURES, hidden_size, bank_size),
    }


def celo_shapes(hidden_size: int) -> Shapes:
    """Shapes of Celo's weights, 37,089 numbers with the published H = 64."""
    return {
        **per_parameter_shapes(MLP_WIDTH, (1,)),
        **lstm_shapes(CELO_FEATURES, hidden_size, 1),
    }


def celo_adam_shapes(hidden_size: int) -> Shapes:
    """Shapes of Celo-Adam's weights, 36,865 numbers with the published H = 64."""
    return lstm_shapes(CELO_FEATURES, hidden_size, None)


def celo2_shapes() -> Shapes:
    """Shapes of Celo2's weights, 347 numbers."""
    return per_parameter_shapes(2 * MLP_WIDTH)


def velo_sizes(found: Mapping[Path, tuple[int, ...]]) -> tuple[int, int]:
    """Hidden size H and bank size K of VeLO's weights, both >= 1.

    Raises:
        WeightsError: ``rnn_to_controls/w`` gives none.
    """
    controls = found["rnn_params", "rnn_to_controls", "w"]
    if len(controls) != 2 or min(controls) < 1:
        raise WeightsError(
            "rnn_params/rnn_to_controls/w: expected shape (hidden size, bank size), both >= 1, "
            f"got {controls}"
        )
    return controls[0], controls[1]


def _velo(found: Mapping[Path, tuple[int, ...]]) -> tuple[Shapes, str]:
    H, K = velo_sizes(found)
    sizes = f"hidden size {H} and bank size {K}, from rnn_params/rnn_to_controls/w"
    return velo_shapes(H, K), f" ({sizes})"


def _by_hidden_size(
    shapes: Callable[[int], Shapes],
) -> Callable[[Mapping[Path, tuple[int, ...]]], tuple[Shapes, str]]:
    """``Layout.shapes_for`` of weights with an LSTM and no other size."""

    def shapes_for(found: Mapping[Path, tuple[int, ...]]) -> tuple[Shapes, str]:
        state = found["lstm_init_state", "hidden"]
        if len(state) != 2 or state[0] != 1 or state[1] < 1:
            raise WeightsError(
                "lstm_init_state/hidden: expected shape (1, hidden size), hidden size >= 1, "
                f"got {state}"
            )
        return shapes(state[1]), f" (hidden size {state[1]}, from lstm_init_state/hidden)"

    return shapes_for


VELO = Layout("VeLO", ("velo",), tuple(velo_shapes(1, 1)), _velo)
CELO = Layout("Celo", ("celo",), tuple(celo_shapes(1)), _by_hidden_size(celo_shapes))
CELO_ADAM = Layout(
    "Celo-Adam", ("celo_adam",), tuple(celo_adam_shapes(1)), _by_hidden_size(celo_adam_shapes)
)
CELO2 = Layout(
    "Celo2", ("celo2", "celo2_base"), tuple(celo2_shapes()), lambda found: (celo2_shapes(), "")
)


def layout_of(shapes: Mapping[Path, tuple[int, ...]]) -> Layout | None:
    """The rule that a file is of, from its keys and a few shapes; ``None`` if it is of none.

    A damaged file of a rule is still one of that rule.

    Args:
        shapes: shapes by path, as far as they can be read.
    """
    groups = {path[0] for path in shapes}
    if groups == {"ff_mod_stack"}:
        first = shapes.get(("ff_mod_stack", "~", "w0__0"), ())
        return CELO2 if len(first) == 2 else None
    if groups == {"lstm_init_state", "rnn_params"}:
        return CELO_ADAM
    if groups == {"ff_mod_stack", "lstm_init_state", "rnn_params"}:
        own = shapes.get(("rnn_params", "linear_2", "w"), ())
        return {VELO_FEATURES: VELO, CELO_FEATURES: CELO}.get(own[0] if own else 0)
    return None
