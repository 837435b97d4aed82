"""The stages of a meta-training by its rule.

Boundary: a registry.
"""

from __future__ import annotations

from timetrial.optimizers.metatraining.celo2.stages import celo2_stages
from timetrial.optimizers.metatraining.settings import (
    Celo2MetatrainSettings,
    MetatrainSettings,
    VeloMetatrainSettings,
)
from timetrial.optimizers.metatraining.stage import MakeStage
from timetrial.optimizers.metatraining.velo_stage import velo_stages


def stages_of(settings: MetatrainSettings) -> tuple[MakeStage, ...]:
    """Functions that make the stages of a training, in order; see ``MakeStage``.

    Files are read here, so that a missing one is an error before anything else; JAX is not used.

    Raises:
        UserError: the weights to start from are missing or damaged.
    """
    if isinstance(settings, Celo2MetatrainSettings):
        return celo2_stages(settings)
    assert isinstance(settings, VeloMetatrainSettings)
    return velo_stages(settings)
