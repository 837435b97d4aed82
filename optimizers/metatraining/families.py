"""The task families of meta-training, by name.

Boundary: a registry. The kinds of layers are those of the four workloads; the data are synthetic.
"""

from __future__ import annotations

from timetrial.optimizers.metatraining import dense, graphs, images
from timetrial.optimizers.metatraining.tasks import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        dense.SHALLOW,
        images.CONVNET,
        dense.EMBEDDING,
        images.DENOISER,
        graphs.GRAPH,
        dense.DEEP,
        dense.AUTOENCODER,
    )
}
