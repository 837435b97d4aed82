from __future__ import annotations

import numpy as np
import pytest

from timetrial.workloads.data import embedded_data, kspace


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    return embedded_data.load("icbm152")["maps"][:32]


@pytest.mark.parametrize("size", [48, 96, 320])
def test_masks_keep_the_centre_and_a_quarter(size: int):
    masks = kspace.column_mask(size, 2000, np.random.default_rng(0))
    assert masks.shape == (2000, size)
    assert masks.mean() == pytest.approx(0.25, abs=0.005)
    always = np.flatnonzero(masks.all(axis=0))
    centre = int(0.08 * size)
    assert len(always) == centre
    assert always[0] <= size // 2 <= always[-1]
    assert always[-1] - always[0] == centre - 1
    assert len(np.unique(masks, axis=0)) > 1900


def test_all_columns_and_no_noise_give_the_image_back(maps):
    rng = np.random.default_rng(0)
    image = kspace.contrast(kspace.averaged(maps, 48), rng)
    phase = kspace.random_phase(len(image), 48, rng)
    restored = kspace.zero_filled(image * phase, np.ones((len(image), 48), bool), np.zeros(1))
    np.testing.assert_allclose(restored, image, atol=1e-5)


def test_the_lowest_column_alone_leaves_the_means_of_the_rows():
    lowest = np.zeros((1, 48), bool)
    lowest[0, 24] = True
    image = np.random.default_rng(0).random((1, 48, 48))
    blurred = kspace.zero_filled(image, lowest, np.zeros(1))
    np.testing.assert_allclose(blurred[0], np.tile(image[0].mean(1), (48, 1)).T)


def test_noise_has_the_documented_deviation():
    noise = kspace.complex_noise((10, 64, 64), np.random.default_rng(0))
    assert noise.dtype == np.complex64
    assert noise.real.std() == pytest.approx(kspace.NOISE, rel=0.02)
    assert noise.imag.std() == pytest.approx(kspace.NOISE, rel=0.02)
    # An orthonormal transform keeps it: the image of nothing but noise is as strong.
    nothing = kspace.zero_filled(np.zeros(noise.shape), np.ones((10, 64), bool), noise)
    assert np.sqrt((nothing**2).mean()) == pytest.approx(kspace.NOISE * np.sqrt(2), rel=0.02)


def test_phases_are_smooth_and_bounded():
    phase = kspace.random_phase(8, 48, np.random.default_rng(0))
    np.testing.assert_allclose(abs(phase), 1, rtol=1e-5)
    assert abs(np.diff(phase, axis=1)).max() < 0.8
    assert abs(np.angle(phase)).max() == pytest.approx(0.8 * np.pi, rel=1e-3)


def test_images_are_normalised_by_the_input_and_clipped(maps):
    data = kspace.simulate(maps, 100, 48, np.random.default_rng(0))
    assert {k: (v.shape, v.dtype) for k, v in data.items()} == {
        "x": ((100, 48, 48), np.float32),
        "y": ((100, 48, 48), np.float32),
        "mean": ((100,), np.float32),
        "std": ((100,), np.float32),
        "volume_max": ((100,), np.float32),
    }
    np.testing.assert_allclose(data["x"].mean((1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(data["x"].std((1, 2)), 1, atol=1e-3)
    assert max(abs(data["x"]).max(), abs(data["y"]).max()) <= 6
    target = data["y"] * data["std"][:, None, None] + data["mean"][:, None, None]
    inside = abs(data["y"]).max((1, 2)) < 6
    assert inside.sum() > 50
    np.testing.assert_allclose(target.max((1, 2))[inside], data["volume_max"][inside], rtol=1e-5)
    assert target.min() > -1e-4


def test_extremes_are_clipped():
    image = np.zeros((1, 48, 48), np.float32)
    image[0, 0, 0] = 1.0
    data = kspace.normalised(image, image)
    assert data["x"].max() == data["y"].max() == 6


def test_reconstruction_is_related_to_the_truth_but_not_it(maps):
    data = kspace.simulate(maps, 64, 96, np.random.default_rng(0))
    per_image = [
        np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(data["x"], data["y"], strict=True)
    ]
    assert 0.8 < np.mean(per_image) < 0.99


def test_every_image_of_a_slice_is_another_one_and_the_seed_decides(maps):
    data = kspace.simulate(maps[:1], 20, 48, np.random.default_rng(0))
    assert len(np.unique(data["y"].reshape(20, -1), axis=0)) == 20
    again = kspace.simulate(maps[:1], 20, 48, np.random.default_rng(0))
    other = kspace.simulate(maps[:1], 20, 48, np.random.default_rng(1))
    np.testing.assert_array_equal(data["x"], again["x"])
    assert abs(data["x"] - other["x"]).max() > 0.1


def test_slices_are_moved_not_wrapped(maps):
    small = kspace.averaged(maps, 48)
    moved = kspace.moved(small, np.random.default_rng(0))
    assert moved.shape == small.shape
    full = small[:, :, 4:-4, 4:-4]
    middle = moved[:, :, 2:-2, 2:-2].sum((1, 2, 3))
    assert (middle >= full.sum((1, 2, 3)) - 1e-3).all()  # nothing but the border can be lost
    assert (abs(moved - small).max((1, 2, 3)) > 0.1).mean() > 0.9
