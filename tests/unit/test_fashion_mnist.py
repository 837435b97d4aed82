from __future__ import annotations

import numpy as np
import pytest

from timetrial.workloads import fashion_mnist
from timetrial.workloads.data import embedded_data


@pytest.fixture(scope="module")
def padded() -> np.ndarray:
    return fashion_mnist.padded_train_images()[:500]


def test_images_are_padded_with_zeros(padded):
    np.testing.assert_array_equal(
        padded[:, 2:-2, 2:-2], embedded_data.load("fashion_mnist")["train_images"][:500]
    )
    assert padded.sum() == padded[:, 2:-2, 2:-2].sum(dtype=int)


def test_a_training_image_is_a_window_of_its_own_and_all_occur(padded):
    rng = np.random.default_rng(0)
    images = fashion_mnist.crop_and_flip(padded, rng)
    seen = set()
    for image, source in zip(images, padded, strict=True):
        windows = {
            (top, left, step): source[top : top + 28, left : left + 28][:, ::step]
            for top in range(5)
            for left in range(5)
            for step in (1, -1)
        }
        matches = [key for key, window in windows.items() if np.array_equal(window, image)]
        assert matches
        if len(matches) == 1:
            seen |= set(matches)
    assert len(seen) == 50


def test_normalised_training_images_have_mean_zero_and_deviation_one():
    x = fashion_mnist.load_fashion_mnist()["train"]["x"]
    assert x.dtype == np.float32
    assert x.mean() == pytest.approx(0, abs=0.002)
    assert x.std() == pytest.approx(1, abs=0.002)


def test_training_batches_keep_image_and_label_together():
    workload = fashion_mnist.FashionMnistResnet(fashion_mnist.FashionMnistResnetSettings())
    images = fashion_mnist.load_fashion_mnist()["train"]
    batches = [workload.train_batch(0, step) for step in range(10)]
    x = np.concatenate([batch["x"] for batch in batches])
    y = np.concatenate([batch["y"] for batch in batches])
    assert x.shape == (640, 28, 28, 1)
    for c in range(10):  # shifts and mirrors hardly change how bright a garment is
        overall = images["x"][images["y"] == c].mean()
        assert x[y == c].mean() == pytest.approx(overall, abs=0.15)
