"""Metrics: SSIM of images, mean average precision over labels.

Boundary: pure functions of arrays; SSIM runs on the device, average precision on the host.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

_WINDOW = 7


def ssim(
    logits: jax.Array,
    targets: jax.Array,
    mean: jax.Array,
    std: jax.Array,
    volume_max: jax.Array,
) -> jax.Array:
    """Structural similarity of every pair of images; 1 for equal images.

    Uniform 7x7 windows, K1 = 0.01, K2 = 0.03, sample covariances (factor 49/48), averaged over
    the windows inside the image, as in fastMRI and AlgoPerf (Wang, Bovik, Sheikh,
    Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004),
    https://ece.uwaterloo.ca/~z70wang/publications/ssim.pdf; Zbontar et al., "fastMRI" (2018),
    https://arxiv.org/abs/1811.08839).

    Args:
        logits: normalised reconstructions (N, H, W), H and W at least 7.
        targets: normalised truths (N, H, W).
        mean: (N,), mean subtracted in the normalisation.
        std: (N,), standard deviation of the normalisation.
        volume_max: (N,), range of the intensities of an image; 0 (padding) counts as 1.

    Returns:
        SSIM (N,), float32.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(logits.shape[1:]) < _WINDOW:
        raise ValueError(
            f"ssim: expected at least 7 pixels along each side, got {logits.shape[1:]}"
        )
    mean, std, volume_max = (v.reshape(-1, 1, 1) for v in (mean, std, volume_max))
    x = (logits * std + mean).astype(jnp.float32)
    y = (targets * std + mean).astype(jnp.float32)
    # A shift leaves covariances unchanged; values around 0 cancel less.
    centre = jnp.mean(y, axis=(1, 2), keepdims=True)
    dx, dy = x - centre, y - centre
    mean_dx, mean_dy = _window_mean(dx), _window_mean(dy)
    sample = _WINDOW**2 / (_WINDOW**2 - 1)
    var_x = sample * (_window_mean(dx * dx) - mean_dx**2)
    var_y = sample * (_window_mean(dy * dy) - mean_dy**2)
    cov_xy = sample * (_window_mean(dx * dy) - mean_dx * mean_dy)
    mean_x, mean_y = mean_dx + centre, mean_dy + centre
    data_range = jnp.where(volume_max == 0, 1, volume_max)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov_xy + c2) / (var_x + var_y + c2)
    return jnp.mean(luminance * structure, axis=(1, 2))


def _window_mean(images: jax.Array) -> jax.Array:
    """Means over all 7x7 windows inside the images: (N, H, W) to (N, H - 6, W - 6)."""
    for window in ((1, _WINDOW, 1), (1, 1, _WINDOW)):
        images = jax.lax.reduce_window(images, 0.0, jax.lax.add, window, (1, 1, 1), "VALID")
    return images / _WINDOW**2


def mean_average_precision(logits: ArrayLike, labels: ArrayLike, weights: ArrayLike) -> float:
    """Mean over tasks of the average precision, as defined by OGB and AlgoPerf.

    A task counts when its column of ``labels`` has a 0 and a 1, with missing labels taken as 0. Its
    average precision is over its labelled rows only. Scores are sigmoids in the precision of
    ``logits``, so saturated scores tie, as in OGB (Hu et al., "Open Graph Benchmark"
    (2020), https://arxiv.org/abs/2005.00687).

    Args:
        logits: (G, T), on the host.
        labels: 0 or 1, (G, T); NaN is a missing label.
        weights: (G, T), > 0 where a label exists.

    Returns:
        Mean over the tasks that count. NaN without such tasks, or when the score of a labelled row
        is NaN (a diverged model has no ranking).
    """
    scores = _sigmoid(np.asarray(logits))
    truth = np.asarray(labels)
    labelled = (np.asarray(weights) > 0) & ~np.isnan(truth)
    truth = np.nan_to_num(truth)
    if np.isnan(scores[labelled]).any():
        return float("nan")
    precisions = [
        average_precision(truth[rows, task] == 1, scores[rows, task])
        for task, rows in enumerate(labelled.T)
        if (truth[:, task] == 0).any() and (truth[:, task] == 1).any() and rows.any()
    ]
    return float(np.mean(precisions)) if precisions else float("nan")


def average_precision(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Area under the precision-recall steps: sum of precision x gain in recall.

    Rows of equal score share one threshold (Zhu, "Recall, Precision and Average Precision"
    (2004); the definition of scikit-learn's ``average_precision_score``).

    Args:
        positive: (N,), N >= 1, True for positive rows.
        scores: (N,), higher for positive rows.

    Returns:
        Average precision in [0, 1]; 0 when no row is positive.
    """
    order = np.argsort(-scores)
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true_positives = np.cumsum(positive[order])[last_of_tie]
    if true_positives[-1] == 0:
        return 0.0
    precision = true_positives / (last_of_tie + 1)
    recall_gain = np.diff(true_positives, prepend=0) / true_positives[-1]
    return float(np.sum(precision * recall_gain))


def _sigmoid(x: NDArray[np.floating]) -> NDArray[np.floating]:
    # exp of negative numbers only: no overflow.
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1 / (1 + e), e / (1 + e)))
