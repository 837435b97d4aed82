"""Simulated MRI: undersampled k-space of slices with known anatomy, as fastMRI presents it.

Boundary: numpy in, numpy out; where the anatomy comes from and what learns from it lie elsewhere.

The anatomy is real, the measurement is simulated: contrast, coil shading, phase and noise are
drawn at random. Sampling and normalisation follow fastMRI (Zbontar et al., "fastMRI: An Open
Dataset and Benchmarks for Accelerated MRI", 2018, https://arxiv.org/abs/1811.08839) as AlgoPerf
reads it (Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

import numpy as np

ACCELERATION = 4
"""One column of k-space in four is kept."""

CENTRE_FRACTION = 0.08
"""Share of the columns, the low frequencies, that is always kept."""

NOISE = 0.01
"""Deviation of the noise of k-space, real and imaginary, where the brightest voxel is 1."""

CLIP = 6.0
"""Normalised images are clipped to [-6, 6]."""

_CHUNK = 64  # images simulated at a time; they fit into a cache


def simulate(
    maps: np.ndarray, count: int, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Simulates ``count`` measurements and their zero-filled reconstructions.

    Args:
        maps: bytes (N, 3, H, H): T1 intensity, grey matter, white matter of N slices. Slices are
            used in turn, each time with another contrast, shift and shading.
        count: number of images.
        size: number of pixels along each side, a divisor of H: slices are averaged down to it.
        rng: the randomness.

    Returns:
        Float32 arrays: ``x`` the input and ``y`` the target, both (count, size, size), normalised
        by mean and deviation of the input and clipped; ``mean``, ``std`` (count,), which undo
        that; ``volume_max`` (count,), the largest intensity of the target before it.
    """
    maps = averaged(maps, size)
    order = np.concatenate([rng.permutation(len(maps)) for _ in range(-(-count // len(maps)))])
    chunks = []
    for start in range(0, count, _CHUNK):
        rows = order[start : min(start + _CHUNK, count)]
        target = contrast(moved(maps[rows], rng), rng)
        image = target * random_phase(len(rows), size, rng)
        mask = column_mask(size, len(rows), rng)
        noise = complex_noise(image.shape, rng)
        chunks.append(normalised(zero_filled(image, mask, noise), target))
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def averaged(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (N, 3, H, H) with values in [0, 1], by means of squares down to (N, 3, size, size)."""
    factor = maps.shape[-1] // size
    squares = maps.reshape(*maps.shape[:2], size, factor, size, factor)
    means: np.ndarray = squares.mean(axis=(3, 5), dtype=np.float32)
    return means / 255


def moved(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slices (N, 3, S, S) shifted by up to 1/24 of their size, half of them mirrored."""
    n, size = len(maps), maps.shape[-1]
    shift = size // 24
    padded = np.pad(maps, ((0, 0), (0, 0), (shift, shift), (shift, shift)))
    top, left = rng.integers(0, 2 * shift + 1, (2, n))
    mirrored = rng.random(n) < 0.5
    steps = np.arange(size)
    across = left[:, None] + np.where(mirrored[:, None], steps[::-1], steps)
    down = top[:, None] + steps
    image = np.arange(n)[:, None, None]
    # Indices around a slice put its axis last.
    cut: np.ndarray = padded[image, :, down[:, :, None], across[:, None, :]]
    return np.moveaxis(cut, -1, 1)


def contrast(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images of random contrast with the anatomy of ``maps``: (N, 3, S, S) to (N, S, S), max 1.

    A mixture of the T1 intensity and of tissue classes with random intensities: grey matter,
    white matter and, what is left of the brain, fluid.
    """
    n, size = len(maps), maps.shape[-1]
    t1, grey, white = np.moveaxis(maps, 1, 0)
    brain = t1 > 0.05
    fluid = np.clip(brain - grey - white, 0, 1)
    share, *intensity = rng.uniform([[0.3], [0.15], [0.15], [0.15]], 1, (4, n)).astype(np.float32)
    weight = [value[:, None, None] for value in intensity]
    tissue = (weight[0] * grey + weight[1] * white + weight[2] * fluid) * brain
    share = share[:, None, None]
    image = share * t1 + (1 - share) * tissue
    image *= 1 + 0.3 * smooth_fields(n, size, 1, rng)
    largest = image.max(axis=(1, 2), keepdims=True)
    scaled: np.ndarray = image / np.maximum(largest, 1e-6)
    return scaled


def smooth_fields(n: int, size: int, order: int, rng: np.random.Generator) -> np.ndarray:
    """Random fields (n, size, size) in [-1, 1] of at most ``order`` waves along each side."""
    waves = np.arange(-order, order + 1)
    decay = 1 / (1 + waves[:, None] ** 2 + waves**2)
    real, imaginary = rng.normal(size=(2, n, len(waves), len(waves)))
    coefficients = (decay * (real + 1j * imaginary)).astype(np.complex64)
    basis = np.exp(2j * np.pi * np.outer(np.arange(size), waves) / size).astype(np.complex64)
    field = (basis @ coefficients @ basis.T).real
    scaled: np.ndarray = field / np.abs(field).max(axis=(1, 2), keepdims=True)
    return scaled


def column_mask(size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Columns of k-space that are kept, booleans (n, size), the lowest frequency in the middle.

    The centre is always kept, others with the probability that makes 1/4 of all on average.
    """
    centre = int(size * CENTRE_FRACTION)
    keep = rng.random((n, size)) < (size / ACCELERATION - centre) / (size - centre)
    first = (size - centre + 1) // 2
    keep[:, first : first + centre] = True
    return keep


def random_phase(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random phases (n, size, size) within 0.8 pi of 0, as complex numbers of modulus 1."""
    phase = 0.8 * np.pi * smooth_fields(n, size, 2, rng)
    factor: np.ndarray = np.exp(1j * phase.astype(np.complex64))
    return factor


def complex_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise of one receiver: independent normal real and imaginary parts of deviation NOISE."""
    real, imaginary = NOISE * rng.standard_normal((2, *shape), dtype=np.float32)
    noise: np.ndarray = real + 1j * imaginary
    return noise


def zero_filled(image: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Magnitude (N, S, S) reconstructed from the kept columns of k-space, zeros elsewhere.

    Args:
        image: complex images (N, S, S).
        mask: kept columns (N, S), the lowest frequency in the middle.
        noise: added to k-space (N, S, S), complex.
    """
    k = np.fft.fft2(image, norm="ortho") + noise
    # The transform has the lowest frequency first.
    k *= np.fft.ifftshift(mask, axes=-1)[:, None, :]
    magnitude: np.ndarray = np.abs(np.fft.ifft2(k, norm="ortho"))
    return magnitude


def normalised(image: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Input and target by mean and deviation of the input, clipped, and what undoes it."""
    mean = image.mean(axis=(1, 2), keepdims=True)
    std = image.std(axis=(1, 2), keepdims=True)
    arrays = {
        "x": np.clip((image - mean) / std, -CLIP, CLIP),
        "y": np.clip((target - mean) / std, -CLIP, CLIP),
        "mean": mean.ravel(),
        "std": std.ravel(),
        "volume_max": target.max(axis=(1, 2)),
    }
    return {name: values.astype(np.float32) for name, values in arrays.items()}
