"""Simulated MRI: undersampled k-space of slices with known anatomy, as in fastMRI.

Boundary: numpy in, numpy out; independent of data files and models.

The anatomy is real, the measurement is simulated: contrast, coil shading, phase and noise are
random. Sampling and normalisation follow fastMRI (Zbontar et al., "fastMRI: An Open
Dataset and Benchmarks for Accelerated MRI", 2018, https://arxiv.org/abs/1811.08839) as read
by AlgoPerf (Dahl et al., "Benchmarking Neural Network Training Algorithms", 2023,
https://arxiv.org/abs/2306.07179).
"""

from __future__ import annotations

import numpy as np

ACCELERATION = 4
"""One column of k-space in four is kept."""

CENTRE_FRACTION = 0.08
"""Share of columns always kept: the low frequencies."""

NOISE = 0.01
"""Standard deviation of k-space noise, real and imaginary; the brightest voxel is 1."""

CLIP = 6.0
"""Normalised images are clipped to [-6, 6]."""

_CHUNK = 64  # images per chunk; a chunk fits into a cache


def simulate(
    maps: np.ndarray, count: int, size: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Simulates ``count`` measurements and their zero-filled reconstructions.

    Args:
        maps: bytes (N, 3, H, H): T1 intensity, grey matter, white matter of N slices. Slices are
            used in turn, each time with a new contrast, shift and shading.
        count: number of images.
        size: number of pixels along each side, a divisor of H: slices are averaged down to it.
        rng: source of all random numbers.

    Returns:
        Float32 arrays: ``x`` the input and ``y`` the target, both (count, size, size), normalised
        by mean and standard deviation of the input and clipped; ``mean``, ``std`` (count,) of that
        normalisation; ``volume_max`` (count,), the largest intensity of the raw target.
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
    """Byte maps (N, 3, H, H), averaged over squares to (N, 3, size, size) in [0, 1]."""
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
    # Indices on both sides of a slice put its axis last.
    cut: np.ndarray = padded[image, :, down[:, :, None], across[:, None, :]]
    return np.moveaxis(cut, -1, 1)


def contrast(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images of random contrast from maps: (N, 3, S, S) to (N, S, S), maximum 1.

    A mixture of the T1 intensity and of tissue classes with random intensities: grey matter,
    white matter and fluid (the rest of the brain).
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
    """Random fields (n, size, size) in [-1, 1] with at most ``order`` waves along each side."""
    waves = np.arange(-order, order + 1)
    decay = 1 / (1 + waves[:, None] ** 2 + waves**2)
    real, imaginary = rng.normal(size=(2, n, len(waves), len(waves)))
    coefficients = (decay * (real + 1j * imaginary)).astype(np.complex64)
    basis = np.exp(2j * np.pi * np.outer(np.arange(size), waves) / size).astype(np.complex64)
    field = (basis @ coefficients @ basis.T).real
    scaled: np.ndarray = field / np.abs(field).max(axis=(1, 2), keepdims=True)
    return scaled


def column_mask(size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Mask of kept k-space columns, booleans (n, size), lowest frequency in the middle.

    The centre is always kept; the other columns are random, with 1/4 of all kept on average.
    """
    centre = int(size * CENTRE_FRACTION)
    keep = rng.random((n, size)) < (size / ACCELERATION - centre) / (size - centre)
    first = (size - centre + 1) // 2
    keep[:, first : first + centre] = True
    return keep


def random_phase(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random phases (n, size, size) in [-0.8 pi, 0.8 pi], as unit complex numbers."""
    phase = 0.8 * np.pi * smooth_fields(n, size, 2, rng)
    factor: np.ndarray = np.exp(1j * phase.astype(np.complex64))
    return factor


def complex_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Complex normal noise; real and imaginary parts have standard deviation NOISE."""
    real, imaginary = NOISE * rng.standard_normal((2, *shape), dtype=np.float32)
    noise: np.ndarray = real + 1j * imaginary
    return noise


def zero_filled(image: np.ndarray, mask: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Magnitude images (N, S, S) from the kept columns of k-space, zeros elsewhere.

    Args:
        image: complex images (N, S, S).
        mask: kept columns (N, S), lowest frequency in the middle.
        noise: complex noise of k-space (N, S, S).
    """
    k = np.fft.fft2(image, norm="ortho") + noise
    # fft2 puts the lowest frequency first.
    k *= np.fft.ifftshift(mask, axes=-1)[:, None, :]
    magnitude: np.ndarray = np.abs(np.fft.ifft2(k, norm="ortho"))
    return magnitude


def normalised(image: np.ndarray, target: np.ndarray) -> dict[str, np.ndarray]:
    """Input and target normalised by the input and clipped; mean, std, volume_max."""
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
