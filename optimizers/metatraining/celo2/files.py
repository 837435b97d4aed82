"""The weights that a meta-training of Celo2 starts from.

Boundary: a small file that the caller names, or the one that ships.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from timetrial.framework.errors import UserError
from timetrial.optimizers.weights.files import LearnedWeights, load_celo2
from timetrial.optimizers.weights.trees import WeightsError

EMBEDDED: Final = Path(__file__).parents[2] / "celo2" / "embedded" / "celo2_base.state"
"""The weights that ship."""


def load_start(start: str) -> LearnedWeights:
    """The weights of ``embedded`` or of a file.

    Raises:
        UserError: the file is missing or holds something else.
    """
    try:
        return load_celo2(EMBEDDED if start == "embedded" else Path(start))
    except WeightsError as error:
        raise UserError(f"start: {error}") from error
