"""Registry entries: what is known of a workload or an optimizer, in one place.

Boundary: data only; looking up names is for ``framework.registry``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import optax

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Entry(Generic[T]):
    """One line of a registry.

    Attributes:
        summary: what it is, in one line, as ``timetrial list`` shows it.
        settings: frozen dataclass of everything a user may set, validated at construction.
        make: builds it from its settings.
    """

    summary: str
    settings: type[Any]
    make: Callable[..., T]


@dataclasses.dataclass(frozen=True)
class Horizon:
    """How long training is expected to last, as optimizers with a schedule must know it.

    Attributes:
        step_hint: the workload's step hint: what schedules are laid out for in both conditions.
        steps: updates that the budget allows: exact for a step budget, estimated for a time
            budget (``None`` while there is no estimate).
    """

    step_hint: int
    steps: int | None


@dataclasses.dataclass(frozen=True)
class OptimizerEntry(Entry[optax.GradientTransformation]):
    """One line of the registry of optimizers; ``make(settings, horizon)`` builds it.

    Attributes:
        needs_steps: must be told how many updates the budget allows.
        needs_feed: lives on the fed share of the budget that remains; raced under time budgets
            only, because under a step budget it is told the same as when it is prompted.
        variant: what tells runs of equal name apart, shown as ``name[variant]``; "" is nothing.
        notes: tags to record with a run, for what a user should know about it.
        last_step: updates after which it has nothing more to do, or None.
    """

    needs_steps: bool = False
    needs_feed: bool = False
    variant: Callable[[Any], str] = lambda settings: ""
    notes: Callable[[Any, Horizon], Mapping[str, str]] = lambda settings, horizon: {}
    last_step: Callable[[Any, Horizon], int | None] = lambda settings, horizon: None
