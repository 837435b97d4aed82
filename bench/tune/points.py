"""Fixed lists of points, equal for any number of workers and after an interruption.

Boundary: pure functions of (space, search, number, seed); independent of studies and runs.

Centered discrepancy (smaller is better spread) of n points in 4 dimensions, mean of 20 seeds,
``scipy.stats.qmc.discrepancy``:

    n     algoperf_halton   random   halton   sobol
    5     .187              .204     .099     .117
    20    .067              .054     .012     .011
    64    .0156             .0176    .0017    .0010

At the usual numbers of trials, AlgoPerf's sequence is spread no better than random points. Its
bases are the largest primes under 1000, and a Halton sequence fills a dimension evenly only after
as many points as its base. It is kept for comparability; ``sobol`` is the default.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from timetrial.bench.tune.space import Point
from timetrial.framework.spaces import OneOf, Space

SEARCHES = ("sobol", "halton", "algoperf_halton", "random")
"""Searches of ``points``; all but AlgoPerf's are prefix-stable: longer lists extend shorter."""

ALGOPERF_SKIP = 100
"""Number of skipped points at the beginning of AlgoPerf's sequence."""


def points(space: Space, search: str, number: int, seed: int) -> list[Point]:
    """The first points of a search.

    Args:
        space: the search space; its keys are in the order of the dimensions.
        search: one of ``SEARCHES``.
        number: number of points.
        seed: seed of the scrambling (``sobol``, ``halton``), the numbers (``random``) or the order
            (``algoperf_halton``).
    """
    varied = [k for k, v in space.items() if not (isinstance(v, OneOf) and len(v.choices) == 1)]
    keys = list(space) if search == "algoperf_halton" else varied  # AlgoPerf counts fixed ones too
    shares = {
        "sobol": sobol,
        "halton": halton,
        "algoperf_halton": algoperf_halton,
        "random": uniform,
    }[search](len(keys), number, seed)
    found: list[Point] = []
    for row in shares:
        at = dict(zip(keys, row, strict=True))
        found.append({key: values.at(float(at.get(key, 0.0))) for key, values in space.items()})
    return found


def sobol(dimensions: int, number: int, seed: int) -> np.ndarray:
    """Scrambled Sobol points in the unit cube, [number, dimensions].

    Source: Owen, "Scrambling Sobol' and Niederreiter-Xing points", 1998,
    https://doi.org/10.1006/jcom.1998.0487, as implemented in ``scipy.stats.qmc``.
    """
    engine = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    return np.asarray(engine.random_base2(max(number - 1, 0).bit_length())[:number])


def halton(dimensions: int, number: int, seed: int) -> np.ndarray:
    """Scrambled Halton points in the unit cube, [number, dimensions], bases 2, 3, 5, ...

    Source: Owen, "A randomized Halton algorithm in R", 2017, https://arxiv.org/abs/1706.02808, as
    implemented in ``scipy.stats.qmc``.
    """
    engine = qmc.Halton(dimensions, scramble=True, rng=np.random.default_rng(seed))
    return np.asarray(engine.random(number))


def uniform(dimensions: int, number: int, seed: int) -> np.ndarray:
    """Independent uniform points in the unit cube, [number, dimensions]."""
    return np.random.default_rng(seed).random((number, dimensions))


def algoperf_halton(dimensions: int, number: int, seed: int) -> np.ndarray:
    """AlgoPerf's shuffled Halton points in the unit cube, [number, dimensions].

    Dimension by dimension the base is one of the primes below 997 (971, 977, 983, 991 in four
    dimensions), the digits other than 0 are permuted and the sequence is shifted modulo 1, both
    at random from the base alone; the first 100 points are left out. The set of points therefore
    depends only on their number and the dimensions. AlgoPerf's order of them is unseeded; here
    the seed decides the order.

    Source: Bousquet et al., "Critical Hyper-Parameters: No Random, No Cry", 2017,
    https://arxiv.org/abs/1706.03200, with the choices of ``halton.py`` in
    https://github.com/mlcommons/algorithmic-efficiency.
    """
    bases = algoperf_bases(dimensions)
    columns = [_shuffled_van_der_corput(base, number) for base in bases]
    cube = np.stack(columns, axis=1)
    return cube[np.random.RandomState(seed).permutation(number)]


def algoperf_bases(dimensions: int) -> list[int]:
    """AlgoPerf's bases: of the primes under 1000 the largest but one and those before it.

    Raises:
        ValueError: more dimensions than there are odd primes for.
    """
    primes = [n for n in range(3, 1000, 2) if all(n % k for k in range(3, int(n**0.5) + 1, 2))]
    if dimensions >= len(primes):
        raise ValueError(f"expected fewer than {len(primes)} dimensions, got {dimensions}")
    return primes[-dimensions - 1 : -1]


def _shuffled_van_der_corput(base: int, number: int) -> np.ndarray:
    """Radical inverses of 101, 102, ... in a base, with permuted digits, shifted modulo 1."""
    generator = np.random.RandomState(base)
    digits = np.arange(1, base)
    generator.shuffle(digits)
    digits = np.concatenate([[0], digits])
    shift = generator.random_sample()
    rest = np.arange(ALGOPERF_SKIP + 1, ALGOPERF_SKIP + number + 1)
    inverse, place = np.zeros(number), float(base)
    while rest.any():
        inverse += np.where(rest > 0, digits[rest % base] / place, 0.0)
        rest, place = rest // base, place * base
    return np.fmod(inverse + shift, 1.0)
