"""The only stage of a meta-training of VeLO.

Boundary: reads a weights file if the settings name one; makes no steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timetrial.optimizers.metatraining.families import FAMILIES
from timetrial.optimizers.metatraining.rules import Rule, velo_rule
from timetrial.optimizers.metatraining.settings import VeloMetatrainSettings
from timetrial.optimizers.metatraining.stage import MakeStage, Selection, Stage, Vector
from timetrial.optimizers.metatraining.validation import Validation
from timetrial.optimizers.metatraining.vector import from_vector, to_vector
from timetrial.optimizers.metatraining.warm_start import warm_start
from timetrial.optimizers.velo.entry import load
from timetrial.optimizers.velo.weights import Weights, save_weights


def velo_stages(settings: VeloMetatrainSettings) -> tuple[MakeStage, ...]:
    """The only stage of a training, which does not depend on one before.

    Raises:
        UserError: the weights to start from are missing or damaged.
    """
    weights = None if settings.start == "warm" else load(settings.start)
    return (lambda _: _stage(settings, weights),)


def _stage(settings: VeloMetatrainSettings, weights: Weights | None) -> Stage:
    """The stage from given weights, or None for a start made by hand."""
    if weights is None:
        sizes, origin = (settings.hidden_size, settings.bank_size), "warm"
        meta_params = warm_start(*sizes, settings.seed)
    else:
        sizes, origin = (weights.hidden_size, weights.bank_size), weights.sha256
        meta_params = weights.meta_params

    def rule(vector: Any) -> Rule:
        return velo_rule(vector, *sizes)

    def save(path: Path, vector: Vector, gen_id: str, step: int) -> None:
        save_weights(path, from_vector(vector, *sizes), gen_id, step)

    names, horizons = settings.families, settings.horizons
    validation = Validation(rule, names, settings.validation_tasks, horizons)
    return Stage(
        name="",
        settings=settings,
        start=to_vector(meta_params),
        origin=origin,
        make_rule=rule,
        families={name: FAMILIES[name] for name in names},
        selection=Selection(validation, names, horizons),
        save=save,
    )
