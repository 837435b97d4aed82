"""Names, order and shapes of VeLO's meta-parameters, for any hidden size H and bank size K.

Pure: names and shapes; no I/O, no arithmetic of the optimizer.

The network is that of Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up",
2022 (https://arxiv.org/abs/2211.09760); the names are those of the checkpoint released with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from timetrial.framework.errors import UserError

Path = tuple[str, ...]
"""Keys from the top of the tree down to one tensor. ``rnn/linear`` is a single key."""

Leaf = TypeVar("Leaf")

FEATURE_WIDTHS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
"""Inputs of the per-parameter network by feature group; group j has the weights ``w0__j``."""

TENSOR_FEATURES = 30
"""Inputs of the per-tensor network."""

MLP_WIDTH = 4
"""Hidden units of the per-parameter network."""

MLP_OUTPUTS = 3
"""Outputs of the per-parameter network."""


class WeightsError(UserError, ValueError):
    """A file or a tree of arrays that is no usable set of VeLO weights; the message says why."""


def show(path: Sequence[str]) -> str:
    """A path as messages show it; long or unprintable keys are cut and escaped."""
    keys = (k if k.isprintable() and len(k) <= 40 else repr(k[:40])[1:-1] for k in path)
    return "/".join(keys)


def shapes(hidden_size: int, bank_size: int) -> dict[Path, tuple[int, ...]]:
    """Shape of every tensor, in the order of the released container.

    Args:
        hidden_size: H, width of the per-tensor LSTM, >= 1 (512 in the released weights).
        bank_size: K, number of per-parameter networks in the bank, >= 1 (256 released).

    Returns:
        33 shapes by path; together 8 H^2 + 100 H + H K + 160 K + 1 numbers (2,320,385 for the
        released sizes).
    """
    H, K, W = hidden_size, bank_size, MLP_WIDTH
    bank: dict[str, tuple[int, ...]] = {
        **{f"w0__{j}": (K, width, W) for j, width in enumerate(FEATURE_WIDTHS)},
        "w1": (K, W, W),
        "w2": (K, W, MLP_OUTPUTS),
        "b0": (K, W),
        "b1": (K, W),
        "b2": (K, MLP_OUTPUTS),
    }
    layers = {
        "linear": (TENSOR_FEATURES, H),
        "linear_1": (TENSOR_FEATURES, H),
        "linear_2": (TENSOR_FEATURES, H),
        "rnn/linear": (2 * H, 4 * H),
        "rnn_to_controls": (H, K),
        "step_size": (H, 1),
    }
    ordered: dict[Path, tuple[int, ...]] = {
        ("ff_mod_stack", "~", name): bank[name] for name in sorted(bank)
    }
    ordered |= {("lstm_init_state", name): (1, H) for name in ("hidden", "cell")}
    for name, (rows, columns) in layers.items():
        ordered["rnn_params", name, "b"] = (columns,)
        ordered["rnn_params", name, "w"] = (rows, columns)
    return ordered


PATHS: tuple[Path, ...] = tuple(shapes(1, 1))
"""Paths of all tensors, in container order."""

GROUPS = frozenset(path[0] for path in PATHS)
"""Keys at the top of the tree."""


def flatten(tree: Mapping[str, Any]) -> dict[Path, Any]:
    """Leaves of a nested mapping by path, in container order.

    Raises:
        WeightsError: a name is missing or unexpected, or a map is in the place of a tensor, or
            the reverse.
    """
    flat: dict[Path, Any] = {}
    _walk(tree, (), flat)
    return {path: flat[path] for path in PATHS}


def _walk(node: Any, prefix: Path, flat: dict[Path, Any]) -> None:
    depth = len(prefix)
    expected = list(dict.fromkeys(p[depth] for p in PATHS if p[:depth] == prefix and p != prefix))
    if not expected:
        if isinstance(node, Mapping):
            raise WeightsError(f"{show(prefix)}: expected a tensor, got a map")
        flat[prefix] = node
        return
    where = show(prefix) or "top level"
    if not isinstance(node, Mapping):
        raise WeightsError(
            f"{where}: expected a map with {some(expected)}, got {type(node).__name__}"
        )
    missing = [name for name in expected if name not in node]
    unexpected = [show([str(name)]) for name in node if name not in expected]
    if missing or unexpected:
        raise WeightsError(
            f"{where}: names differ from VeLO's: missing {some(missing)}, "
            f"unexpected {some(unexpected)}"
        )
    for name in expected:
        _walk(node[name], (*prefix, name), flat)


def some(names: Sequence[str]) -> str:
    """At most four names as messages show them, and how many there are."""
    shown = ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")
    return shown or "none"


def one_line(text: object, limit: int = 200) -> str:
    """The text of others (a server, a library) as messages show it: printable and short."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:limit]


def nest(flat: Mapping[Path, Leaf]) -> dict[str, Any]:
    """The nested dict whose leaves by path are ``flat``."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def sizes(found: Mapping[Path, tuple[int, ...]]) -> tuple[int, int]:
    """Hidden size H and bank size K that all the shapes agree on.

    Args:
        found: shape of every tensor in ``PATHS``.

    Raises:
        WeightsError: the shapes fit no (H, K); names the first tensor that does not fit.
    """
    controls = found["rnn_params", "rnn_to_controls", "w"]
    if len(controls) != 2 or min(controls) < 1:
        raise WeightsError(
            "rnn_params/rnn_to_controls/w: expected shape (hidden size, bank size), both >= 1, "
            f"got {controls}"
        )
    H, K = controls
    for path, expected in shapes(H, K).items():
        if found[path] != expected:
            raise WeightsError(
                f"{show(path)}: expected shape {expected} (hidden size {H} and bank size {K}, "
                f"from rnn_params/rnn_to_controls/w), got {found[path]}"
            )
    return H, K
