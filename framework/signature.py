"""Optimizers from the signature of a function that returns an optax transformation.

Boundary: types and values of parameters; ``registry`` says which functions are meant.

A parameter is a setting of the same name. Its type is its annotation, else the type of its default;
without both a number, true, false or text. Parameters in ``FILLED`` are no settings while they have
no default, or None: the race fills them in. Other types cannot be read from text: such a parameter
keeps its default.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import numbers
import types
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeGuard

from timetrial.framework.entries import Horizon, OptimizerEntry
from timetrial.framework.errors import UserError
from timetrial.framework.source import FILLED, reason

if TYPE_CHECKING:  # loads JAX
    import optax

RESERVED: Final = ("name", "file_sha256")
"""Keys below ``optimizer.`` that are taken."""

_UNKNOWN: Final = float | bool | str
_SCALARS: Final = (float, int, bool, str)
_EMPTY: Final = inspect.Parameter.empty


def optimizer_of(function: Callable[..., Any], summary: str) -> OptimizerEntry:
    """The entry of a function; its ``make`` raises a UserError where the function raises.

    Raises:
        TypeError: a parameter without default has a type that cannot be read from text, or the
            name of another key.
    """
    parameters = parameters_of(function)
    filled = [p.name for p in parameters if is_filled(p)]
    types_of = {p.name: _type_of(p) for p in parameters if p.name not in filled}
    shown = getattr(function, "__qualname__", type(function).__name__)

    def make(settings: Any, horizon: Horizon) -> optax.GradientTransformation:
        fill = {
            "horizon": horizon,
            "step_hint": horizon.step_hint,
            "steps": horizon.steps,
            "num_steps": horizon.steps,
        }
        given = {
            p.name: fill[p.name] if p.name in filled else getattr(settings, p.name, p.default)
            for p in parameters
        }
        return _called(function, given, shown)

    return OptimizerEntry(
        summary,
        _settings(function, shown, [p for p in parameters if types_of.get(p.name)], types_of),
        make,
        needs_steps=bool({"steps", "num_steps"} & set(filled)),
    )


def is_transformation(made: object) -> TypeGuard[optax.GradientTransformation]:
    """Whether an object is an optax transformation."""
    import optax

    return isinstance(made, optax.GradientTransformation)


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The named parameters, with their annotations evaluated where that is possible."""
    try:
        found = inspect.signature(function, eval_str=True)
    except (NameError, TypeError, SyntaxError, AttributeError):  # names for type checkers only
        found = inspect.signature(function)
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in found.parameters.values() if p.kind not in kinds]


def is_filled(parameter: inspect.Parameter) -> bool:
    """Whether the race fills a parameter in."""
    return parameter.name in FILLED and (parameter.default is _EMPTY or parameter.default is None)


def _called(
    function: Callable[..., Any], given: dict[str, Any], shown: str
) -> optax.GradientTransformation:
    """The transformation from a function.

    Raises:
        UserError: the function raises, or returns something else.
    """
    bound = inspect.signature(function).bind_partial()
    bound.arguments.update(given)
    try:
        made = function(*bound.args, **bound.kwargs)
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        code = getattr(inspect.unwrap(function), "__code__", None)
        file = code.co_filename if code else ""
        raise UserError(f"optimizer: {shown} raised {reason(error, file)}") from error
    if not is_transformation(made):
        more = ""
        if isinstance(made, OptimizerEntry):
            more = ", which needs a function that can be called without arguments"
        raise UserError(
            f"optimizer: expected {shown} to return an optax transformation, got "
            f"{type(made).__name__}{more}"
        )
    return made


def _settings(
    function: Callable[..., Any],
    shown: str,
    parameters: Sequence[inspect.Parameter],
    types_of: dict[str, Any],
) -> type:
    """A frozen dataclass with one field per parameter; required ones first."""
    for parameter in parameters:
        if parameter.name in RESERVED:
            taken = f"parameter {parameter.name} of {shown}"
            raise TypeError(f"{taken}: expected another name, as optimizer.{parameter.name} is "
                            "taken")  # fmt: skip
    required = [(p.name, types_of[p.name]) for p in parameters if p.default is _EMPTY]
    others = [
        (p.name, types_of[p.name], _default(p.default, types_of[p.name]))
        for p in parameters
        if p.default is not _EMPTY
    ]
    doc = inspect.getdoc(function) or f"Settings of {shown}."
    made = dataclasses.make_dataclass(
        f"{shown}.settings", [*required, *others], frozen=True, namespace={"__doc__": doc}
    )
    made.__module__ = str(getattr(function, "__module__", made.__module__))
    return made


def _type_of(parameter: inspect.Parameter) -> Any:
    """The type of a setting; None leaves the parameter at its default.

    Raises:
        TypeError: the parameter has no default, and its type cannot be read from text.
    """
    hint, default = parameter.annotation, parameter.default
    annotated = hint is not _EMPTY and not isinstance(hint, str) and hint is not Any
    found = _readable(hint) if annotated else None
    if found is not None:
        return found
    if default is None:
        return None if annotated else _UNKNOWN | None
    if default is not _EMPTY:
        return _type_of_value(default)
    if annotated:
        raise TypeError(
            f"parameter {parameter.name}: expected a number, text, true or false, or a list of "
            f"them, or a default; got {inspect.formatannotation(hint)}"
        )
    return _UNKNOWN


def _readable(hint: Any) -> Any:
    """The part of a type that can be read from text; None if there is none."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _SCALARS or hint is type(None):
        return hint
    if origin is Annotated:
        return hint if _readable(args[0]) is not None else None
    if origin is typing.Literal:
        return hint if all(isinstance(arg, str) for arg in args) else None
    if origin in (typing.Union, types.UnionType):
        return _union([found for arg in args if (found := _readable(arg)) is not None])
    if origin in (tuple, list, collections.abc.Sequence):
        inner = [_readable(arg) for arg in args if arg is not ...]
        if not inner or None in inner:
            return None
        fixed = origin is tuple and ... not in args
        return types.GenericAlias(tuple, tuple(inner) if fixed else (inner[0], ...))
    return None


def _union(members: Sequence[Any]) -> Any:
    """One type of several; None without a value. An array-like is a number."""
    kept = [m for m in members if not (m in (int, bool) and float in members)]
    if not [m for m in kept if m is not type(None)]:
        return None
    return typing.Union[*kept]


def _type_of_value(value: Any) -> Any:
    """The type of a default; None if it cannot be read from text."""
    if isinstance(value, (bool, str)):
        return type(value) if type(value) in _SCALARS else None
    if isinstance(value, numbers.Integral):
        return int
    if isinstance(value, numbers.Real):
        return float
    if isinstance(value, (tuple, list)) and value:
        kinds = {_type_of_value(item) for item in value}
        found = float if kinds == {int, float} else kinds.pop() if len(kinds) == 1 else None
        return types.GenericAlias(tuple, (found, ...)) if found in _SCALARS else None
    return None


def _default(value: Any, hint: Any) -> Any:
    """A default in the type of its setting: equal settings are written alike."""
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Number):
        return value
    members = typing.get_args(hint) or (hint,)
    return float(value) if float in members else value  # type: ignore[arg-type]
