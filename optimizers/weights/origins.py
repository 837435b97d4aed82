"""The origin of each set of learned weights: whose, the compute they took, their tasks.

Boundary: facts as text; runs record them as tags, and reports print them.

Sources: Metz et al., "VeLO: Training Versatile Learned Optimizers by Scaling Up", 2022,
https://arxiv.org/abs/2211.09760; Moudgil et al., "Celo: Training Versatile Learned Optimizers on a
Compute Diet", 2025, https://arxiv.org/abs/2501.12670; Moudgil, Knyazev and Belilovsky, "Celo2:
Towards Learned Optimization Free Lunch", 2026, https://arxiv.org/abs/2602.19142, and the
configurations beside their weights. The cards beside the embedded weights say more about these.
"""

from __future__ import annotations

import dataclasses
from typing import Final


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of a set of weights, in words that follow each other in a sentence.

    Attributes:
        whose: "Google's weights".
        cost: compute of their meta-training: "4,000 TPU-months"; "" is unknown.
        trained_on: its tasks; "" is unknown.
    """

    whose: str
    cost: str = ""
    trained_on: str = ""

    def tags(self) -> dict[str, str]:
        """Tags of a run that uses the weights; unknown facts have none."""
        tags = {
            "weights": self.whose,
            "weights.cost": self.cost,
            "weights.trained_on": self.trained_on,
        }
        return {key: text for key, text in tags.items() if text}


_CELO2_TASKS: Final = (
    "four perceptron tasks: MNIST, Fashion-MNIST, CIFAR-10 and SVHN, grey and at 8 x 8 pixels; so "
    "fashion_mnist_resnet is not unseen data"
)

PUBLISHED_ORIGINS: Final[dict[str, Origin]] = {
    "velo": Origin(
        "the weights that Google published with the VeLO paper",
        "about 4,000 TPU-months",
        "many kinds of small tasks, perceptrons to transformers",
    ),
    "celo": Origin(
        "Celo's published weights", "about 24 GPU-hours", "small image classification tasks"
    ),
    "celo-adam": Origin("Celo-Adam's published weights", "", "small image classification tasks"),
    "celo2": Origin("Celo2's published weights", "4.5 GPU-hours", _CELO2_TASKS),
    "celo2-base": Origin(
        "Celo2-base's published weights", "less than 6 hours of one A100", _CELO2_TASKS
    ),
}
"""Origins of the published weights, by their names in the catalogue."""


def origin_of_file(file_name: str) -> Origin:
    """The origin of a user's own weights, of which only the file is known."""
    return Origin(f"the weights in {file_name}, which do not come with this package")
