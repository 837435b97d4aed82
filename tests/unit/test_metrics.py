"""SSIM against its definition window by window; average precision against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from timetrial.workloads.tasks import metrics


def ssim_by_definition(x, y, data_range):
    values = []
    for i in range(x.shape[0] - 6):
        for j in range(x.shape[1] - 6):
            a, b = x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel()
            cov = np.cov(a, b)
            c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
            values.append(
                (2 * a.mean() * b.mean() + c1)
                * (2 * cov[0, 1] + c2)
                / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2))
            )
    return np.mean(values)


def images(shape, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=shape).cumsum(axis=1).cumsum(axis=2)
    target /= np.abs(target).max(axis=(1, 2), keepdims=True)
    output = target + 0.2 * rng.normal(size=shape)
    return output.astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize("size", [(7, 7), (12, 9), (20, 31)])
def test_ssim_follows_the_definition(size):
    output, target = images((3, *size))
    mean, std, largest = np.float32([0.5, 3, -1]), np.float32([1, 0.3, 2]), np.float32([2, 4, 7])
    actual = metrics.ssim(output, target, mean, std, largest)
    expected = [
        ssim_by_definition(o * s + m, t * s + m, r)
        for o, t, m, s, r in zip(output, target, mean, std, largest, strict=True)
    ]
    np.testing.assert_allclose(actual, np.array(expected), rtol=1e-4)


def test_ssim_of_equal_images_is_one_and_padding_is_finite():
    _, target = images((2, 16, 16))
    target[1] = 0
    ones, last_zero = np.ones(2, np.float32), np.float32([1, 0])
    actual = metrics.ssim(target, target, 0 * ones, last_zero, last_zero)
    np.testing.assert_allclose(actual, 1, rtol=1e-6)


def test_ssim_keeps_its_precision_far_from_zero():
    output, target = images((1, 16, 16))
    offset, one = np.float32([50]), np.ones(1, np.float32)
    exact = ssim_by_definition(output[0] + 50.0, target[0] + 50.0, 1)
    np.testing.assert_allclose(metrics.ssim(output, target, offset, one, one), exact, rtol=1e-3)


def test_ssim_refuses_images_smaller_than_its_window():
    one = np.ones(1, np.float32)
    with pytest.raises(ValueError, match=r"at least 7 pixels.*\(6, 9\)"):
        metrics.ssim(np.zeros((1, 6, 9)), np.zeros((1, 6, 9)), one, one, one)


def labelled_scores(rows, tasks, decimals, seed):
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(rows, tasks)), decimals).astype(np.float32)
    labels = (rng.random((rows, tasks)) < 0.3).astype(np.float32)
    weights = (rng.random((rows, tasks)) < 0.6).astype(np.float32)
    return logits, labels * weights, weights


def sklearn_mean(logits, labels, weights):
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-logits))
    values = []
    for task in range(labels.shape[1]):
        if (labels[:, task] == 0).any() and (labels[:, task] == 1).any():
            rows = weights[:, task] > 0
            values.append(average_precision_score(labels[rows, task], scores[rows, task]))
    return np.mean(values) if values else math.nan


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_mean_average_precision_is_that_of_scikit_learn(decimals, seed):
    arrays = labelled_scores(200, 12, decimals, seed)
    assert metrics.mean_average_precision(*arrays) == pytest.approx(sklearn_mean(*arrays), rel=1e-9)


def test_saturated_sigmoids_tie_as_in_algoperf():
    logits, labels, weights = labelled_scores(100, 4, 3, 0)
    logits = 40 * logits
    tied = metrics.mean_average_precision(logits, labels, weights)
    assert tied == pytest.approx(sklearn_mean(logits, labels, weights), rel=1e-9)
    # In double precision hardly any of them tie.
    assert abs(tied - metrics.mean_average_precision(np.float64(logits), labels, weights)) > 1e-3


def test_missing_labels_may_be_nan_and_count_as_zeros_only_for_eligibility():
    logits = np.float32([[3, 3], [1, 2], [2, 1], [0, 0]])
    labels = np.float32([[1, 1], [0, 1], [1, 1], [np.nan, 1]])
    weights = np.float32([[1, 1], [1, 1], [1, 1], [0, 1]])
    # The second task has no zero: it does not count.
    assert metrics.mean_average_precision(logits, labels, weights) == 1.0
    # A masked zero makes it count, but is not ranked.
    labels[3, 1], weights[3, 1], logits[3, 1] = 0, 0, 9
    assert metrics.mean_average_precision(logits, labels, weights) == 1.0
    only = np.float32([[1], [np.nan]])
    assert metrics.mean_average_precision(logits[:2, :1], only, ~np.isnan(only)) == 1.0
    # A labelled one is ranked: 4 rows, 3 positives, the negative first.
    weights[3, 1] = 1
    expected = (1 + (1 / 2 + 2 / 3 + 3 / 4) / 3) / 2
    assert metrics.mean_average_precision(logits, labels, weights) == pytest.approx(expected)


def test_no_eligible_task_gives_nan():
    logits, weights = np.zeros((5, 2), np.float32), np.ones((5, 2), np.float32)
    assert math.isnan(metrics.mean_average_precision(logits, np.zeros((5, 2)), weights))
    assert math.isnan(metrics.mean_average_precision(logits, np.ones((5, 2)), weights))


def test_a_diverged_model_gives_nan_but_padding_may_hold_anything():
    logits, labels, weights = labelled_scores(50, 3, 3, 0)
    expected = metrics.mean_average_precision(logits, labels, weights)
    padded = np.where(weights > 0, logits, np.nan)
    assert metrics.mean_average_precision(padded, labels, weights) == expected
    logits[np.argwhere(weights > 0)[0][0], np.argwhere(weights > 0)[0][1]] = np.nan
    assert math.isnan(metrics.mean_average_precision(logits, labels, weights))
