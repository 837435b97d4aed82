"""The stages of a meta-training of Celo2: rules linear in the inputs first, then all numbers.

Boundary: reads a weights file if the settings name one; makes no steps.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from timetrial.optimizers.metatraining.celo2 import vector as vectors
from timetrial.optimizers.metatraining.celo2.files import load_start
from timetrial.optimizers.metatraining.celo2.rule import Harness, celo2_rule
from timetrial.optimizers.metatraining.families import FAMILIES
from timetrial.optimizers.metatraining.rules import Rule
from timetrial.optimizers.metatraining.settings import Celo2MetatrainSettings
from timetrial.optimizers.metatraining.stage import MakeStage, Selection, Stage, Vector
from timetrial.optimizers.metatraining.validation import Validation
from timetrial.optimizers.weights.files import save

LINEAR, FULL = "linear", "full"


def celo2_stages(settings: Celo2MetatrainSettings) -> tuple[MakeStage, ...]:
    """The stages of a training, in order.

    Raises:
        UserError: the weights to start from are missing or damaged.
    """
    if settings.start == "linear" and settings.linear.steps > 0:
        return (lambda _: _linear_stage(settings), lambda before: _after_linear(settings, before))
    if settings.start in ("linear", "random"):
        return (lambda _: _full_stage(settings, _made(settings), settings.start),)
    found = load_start(settings.start)
    return (
        lambda _: _full_stage(settings, vectors.from_meta_params(found.meta_params), found.sha256),
    )


def _made(settings: Celo2MetatrainSettings) -> jax.Array:
    """The vector of a start without a file and without a linear stage."""
    if settings.start == "random":
        return vectors.random_start(settings.seed)
    return _widened(vectors.hand_made(), settings.seed)


def _after_linear(settings: Celo2MetatrainSettings, before: Vector | None) -> Stage:
    found = np.asarray(before, np.float32)
    digest = hashlib.sha256(found.tobytes()).hexdigest()
    return _full_stage(settings, _widened(jnp.asarray(found), settings.seed), digest)


def _widened(weights: jax.Array, seed: int) -> jax.Array:
    """The vector of a linear rule, with noise."""
    return vectors.with_noise(vectors.of_linear(weights), seed)


def _linear_stage(settings: Celo2MetatrainSettings) -> Stage:
    return _stage(
        LINEAR, settings.of_linear_stage(), vectors.hand_made(), "linear", vectors.of_linear
    )


def _full_stage(settings: Celo2MetatrainSettings, start: jax.Array, origin: str) -> Stage:
    return _stage(FULL, settings, start, origin, lambda vector: vector)


def _stage(
    name: str,
    settings: Celo2MetatrainSettings,
    start: jax.Array,
    origin: str,
    network: Callable[[Any], jax.Array],
) -> Stage:
    """A stage whose search space is mapped to vectors of the network.

    Tasks are reparametrised by a factor that makes the inner rate log-uniform: all steps have the
    same size, so that parameters divided by s at rate r are parameters at rate r s.
    """
    harness = Harness(settings.vector_rate) if settings.orthogonalize else None
    middle = math.sqrt(settings.lowest_rate * settings.highest_rate)
    spread = math.sqrt(settings.highest_rate / settings.lowest_rate)

    def rule(searched: Any) -> Rule:
        return celo2_rule(network(searched), middle, harness)

    def tuned(argument: Any) -> Rule:
        searched, rate = argument
        return celo2_rule(network(searched), rate, harness)

    def export(path: Path, searched: Vector, gen_id: str, step: int) -> None:
        del gen_id, step  # the container has no place for them
        save(path, vectors.to_meta_params(network(jnp.asarray(searched))))

    families = {
        each: dataclasses.replace(FAMILIES[each], largest_rescaling=spread, share_rescaled=1.0)
        for each in settings.families
    }
    judges, horizons = settings.validation_families, settings.horizons
    validation = Validation(tuned, judges, settings.validation_tasks, horizons)
    return Stage(
        name=name,
        settings=settings,
        start=start,
        origin=origin,
        make_rule=rule,
        families=families,
        selection=Selection(validation, judges, horizons, settings.rates),
        save=export,
    )
