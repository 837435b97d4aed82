"""Celo and Celo-Adam, the learned optimizers of Moudgil et al. (2025).

Boundary: imports VeLO's parts and the files of weights; ``entry`` puts both into the registry.
"""

from __future__ import annotations

from timetrial.optimizers.celo.transform import celo, celo_adam

__all__ = ["celo", "celo_adam"]
