"""Celo2, the learned optimizer of Moudgil, Knyazev and Belilovsky (2026), and small weights for it.

Boundary: imports the framework, and VeLO's tiles; ``entry`` puts it into the registry.
"""

from __future__ import annotations

from timetrial.optimizers.celo2.transform import Celo2State, scale_by_celo2, tensor_averages

__all__ = ["Celo2State", "scale_by_celo2", "tensor_averages"]
