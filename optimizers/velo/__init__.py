"""VeLO, the learned optimizer of Metz et al. (2022), and its weights.

Boundary: imports the framework only; ``entry`` puts it into the registry.
"""

from __future__ import annotations

from timetrial.optimizers.velo.transform import accumulation_steps, tensor_averages, velo

__all__ = ["accumulation_steps", "tensor_averages", "velo"]
