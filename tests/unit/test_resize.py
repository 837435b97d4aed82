from __future__ import annotations

import numpy as np
import pytest
from raw_files import needs_data

from timetrial.workloads.data import resize


def keys(x: float) -> float:
    """Keys' kernel for a = -1/2, in the expanded form of his paper."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x < 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def plain(image: np.ndarray, size: int) -> np.ndarray:
    """Resizing by a matrix per axis; every weight by the definition."""

    def matrix(old: int) -> np.ndarray:
        places = (np.arange(size) + 0.5) * old / size - 0.5
        weights = np.array([[keys(place - pixel) for pixel in range(old)] for place in places])
        return weights / weights.sum(axis=1, keepdims=True)

    rows, columns = matrix(image.shape[0]), matrix(image.shape[1])
    values = np.einsum("ih,hwc,jw->ijc", rows, image.astype(float), columns)
    return np.clip(np.rint(values), 0, 255)


@pytest.mark.parametrize(
    ("height", "width", "size"), [(7, 9, 12), (40, 31, 12), (12, 12, 12), (5, 60, 32), (2, 3, 8)]
)
def test_exact_resizing_is_keys_kernel_without_antialiasing(height: int, width: int, size: int):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    found = resize.exact(image, size)
    assert found.dtype == np.uint8
    difference = abs(found - plain(image, size))
    assert difference.max() <= 1  # TensorFlow's table of the kernel has 1,024 steps
    assert difference.mean() < 0.05


def test_exact_resizing_has_the_known_values():
    """Two pixels to four: weights from the kernel at 1/4 and 3/4, outside pixels left out."""
    image = np.repeat(np.array([[[0], [200]]], np.uint8), 3, axis=2)
    near, far = keys(0.25), keys(0.75)
    outside = keys(1.25)
    first = 200 * outside / (near + outside)  # place -0.25: pixels 0 and 1
    second = 200 * far / (near + far)  # place 0.25
    assert (near, far, outside) == pytest.approx((0.8671875, 0.2265625, -0.0703125))
    expected = [
        max(round(first), 0),
        round(second),
        round(200 - second),
        min(round(200 - first), 255),
    ]
    assert expected == [0, 41, 159, 218]
    np.testing.assert_array_equal(resize.exact(image, 4)[0, :, 0], expected)


def test_the_same_size_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize.exact(image, 9), image)


@needs_data
def test_opencv_is_near_the_exact_result():
    y, x = np.mgrid[:150, :200]
    smooth = 127 + 100 * np.sin(x / 15)[..., None] * np.cos(y / 11)[..., None] * np.ones(3)
    difference = resize.opencv(smooth.astype(np.uint8), 64) - resize.exact(
        smooth.astype(np.uint8), 64
    ).astype(float)
    assert abs(difference).mean() < 1
    assert abs(difference).max() > 0


def test_random_crops_have_the_documented_areas_and_ratios():
    rng = np.random.default_rng(0)
    boxes = np.array([resize.random_box(375, 500, rng) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 375).all()
    assert (left + width <= 500).all()
    share = height * width / (375 * 500)
    assert share.min() >= 0.08
    assert 0.85 < share.max() <= 1
    ratio = width / height
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert top.max() > 200
    assert left.max() > 250


def test_no_crop_of_a_strip_fits():
    assert all(resize.random_box(10, 1000, np.random.default_rng(i)) is None for i in range(50))


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(256, 256, (16, 16, 224, 224)), (375, 500, (24, 86, 328, 328)), (1, 1, (0, 0, 1, 1))],
)
def test_the_centre_is_seven_eighths_of_the_shorter_side(height: int, width: int, box: object):
    assert resize.centre_box(height, width) == box


def test_mirroring_exchanges_left_and_right():
    image = np.random.default_rng(0).integers(0, 256, (5, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize.mirrored(image), image[:, ::-1])
