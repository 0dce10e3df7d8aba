"""What all degradations promise, and bicubic downsampling against closed forms and Pillow."""

import numpy as np
import pytest
from PIL import Image

from latentdiff.data.degradations import degrade
from latentdiff.data.degradations.bsr import BSR_LIGHT
from latentdiff.data.degradations.resize import bicubic, bicubic_weights, cubic_kernel
from latentdiff.errors import ConfigError, InputError
from latentdiff.registry import DEGRADATIONS
from latentdiff.seeding import array_generator

NAMES = DEGRADATIONS.names()
DRAWN = [name for name in NAMES if name.startswith("bsr")]
RNG = np.random.default_rng(0)


def photograph(height, width):
    """A smooth picture with an edge, so that blur, ringing and blocks all show."""
    y, x = np.mgrid[0:height, 0:width] / 16
    picture = np.stack([np.sin(x) * np.cos(y), np.cos(x + y), (x > y) * 1.6 - 0.8], axis=-1)
    return (127.5 + 100 * picture).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sf", [2, 3, 4])
def test_sizes_and_types(name, sf):
    for height, width in ((sf, sf), (sf * 5, sf), (sf * 7, sf * 11)):
        for index in range(4):
            small = degrade(photograph(height, width), name, sf, seed=1, index=index)
            assert small.shape == (height // sf, width // sf, 3)
            assert small.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_a_function_of_seed_and_index(name):
    image = photograph(48, 64)
    before = image.copy()
    first = [degrade(image, name, seed=3, index=index) for index in range(4)]
    again = [degrade(image, name, seed=3, index=index) for index in reversed(range(4))][::-1]
    assert np.array_equal(first, again)
    assert np.array_equal(image, before)
    different = len({small.tobytes() for small in first})
    assert different == (4 if name in DRAWN else 1)
    assert np.array_equal(first[2], DEGRADATIONS.get(name)(image, array_generator(3, 2), 4))


def test_damage_grows_from_bicubic_to_bsr():
    image = photograph(96, 96)
    reference = degrade(image, "bicubic", seed=0).astype(float)
    error = {
        name: np.mean([np.abs(degrade(image, name, seed=0, index=i) - reference).mean() for i in range(40)])
        for name in ("bsr_light", "bsr")
    }
    assert 1 < 1.5 * error["bsr_light"] < error["bsr"]


def test_bsr_is_never_black():
    white = np.full((32, 32, 3), 255, dtype=np.uint8)
    assert min(degrade(white, "bsr_light", seed=0, index=index).mean() for index in range(300)) > 240


@pytest.mark.parametrize("n_in, n_out", [(16, 4), (15, 5), (64, 4), (7, 3), (8, 8), (5, 11), (4, 1)])
def test_bicubic_weights(n_in, n_out):
    weights = bicubic_weights(n_in, n_out)
    assert weights.shape == (n_out, n_in)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-14)
    np.testing.assert_allclose(weights, weights[::-1, ::-1], atol=1e-14)  # no direction is preferred
    if n_in == n_out:
        np.testing.assert_allclose(weights, np.eye(n_in), atol=1e-14)


def test_cubic_kernel_is_a_partition_of_unity_and_interpolates():
    x = np.linspace(-0.5, 0.5, 11)[:, None] + np.arange(-3, 4)
    for a in (-0.5, -0.75):
        np.testing.assert_allclose(cubic_kernel(x, a).sum(1), 1, atol=1e-14)
        assert cubic_kernel(np.arange(-3.0, 4), a).tolist() == [0, 0, 0, 1, 0, 0, 0]


def test_bicubic_keeps_constants_and_ramps():
    constant = np.full((24, 32, 3), [3, 128, 255], dtype=np.uint8)
    assert np.array_equal(bicubic(constant, RNG, 4), constant[:6, :8])
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32)[:, None, None], (64, 8, 1))
    small = bicubic(ramp, RNG, 4)[2:-2, :, 0]
    np.testing.assert_allclose(small, np.broadcast_to(np.arange(2, 14)[:, None] * 4 + 1.5, small.shape), rtol=1e-6)


def test_bicubic_keeps_energy_below_the_new_limit_and_drops_it_above():
    x = np.arange(256)
    for period, low, high in ((32, 0.97, 1.0), (3, 0.0, 0.01)):  # pixels; x4 can hold periods from 8 on
        wave = np.cos(2 * np.pi * x / period).astype(np.float32)
        small = bicubic(np.broadcast_to(wave[:, None, None], (256, 4, 1)), RNG, 4)
        assert low <= np.square(small[4:-4]).mean() / 0.5 <= high + 1e-3


@pytest.mark.parametrize("sf", [2, 4, 8])
def test_bicubic_is_pillows_away_from_the_edges(sf):
    image = np.random.default_rng(sf).random((96, 96)).astype(np.float32)
    pillow = np.asarray(Image.fromarray(image).resize((96 // sf, 96 // sf), Image.Resampling.BICUBIC))
    own = bicubic(image[:, :, None], RNG, sf)[:, :, 0]
    np.testing.assert_allclose(own[2:-2, 2:-2], pillow[2:-2, 2:-2], atol=1e-5)
    assert np.abs(own - pillow).max() > 1e-3  # Pillow cuts its kernel at the edges, MATLAB mirrors the image


def test_bicubic_takes_any_channels_in_float_and_does_not_clip():
    image = np.zeros((16, 16, 5), dtype=np.float32)
    image[:, 8:] = 2
    small = bicubic(image, RNG, 4)
    assert small.shape == (4, 4, 5)
    assert small.dtype == np.float32
    assert small.max() > 2
    assert small.min() < 0


GOOD = photograph(8, 8)
BAD = {
    "not an array": (GOOD.tolist(), 4, "the image is a list; give an array of"),
    "float64": (GOOD / 255, 4, "float64 of shape .*uint8"),
    "no channels": (GOOD[..., 0], 4, r"uint8 of shape \(8, 8\)"),
    "empty": (GOOD[:0], 4, r"uint8 of shape \(0, 8, 3\)"),
    "batch": (GOOD[None], 4, r"shape \(1, 8, 8, 3\)"),
    "too small": (GOOD[:2], 4, "is 8x2 pixels; at scale factor 4 it needs 4x4 or more"),
    "not a multiple": (GOOD[:7, :6], 4, "is 6x7 pixels; sides must be multiples of 4, crop it to 4x4"),
    "scale 1": (GOOD, 1, "sf is 1; allowed are 2, 3, 4"),
    "scale 17": (GOOD, 17, "sf is 17; allowed are 2, 3, 4"),
    "fractional scale": (GOOD, 2.0, "sf is 2.0"),
    "boolean scale": (GOOD, True, "sf is True"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image, sf, message", BAD.values(), ids=BAD)
def test_bad_input(name, image, sf, message):
    with pytest.raises(InputError, match=message):
        degrade(image, name, sf, seed=0)


def test_more_bad_input():
    with pytest.raises(ConfigError, match="unknown degradation 'bsr-light'; did you mean 'bsr_light'"):
        degrade(GOOD, "bsr-light", seed=0)
    with pytest.raises(InputError, match="seed is -1"):
        degrade(GOOD, "bicubic", seed=-1)
    with pytest.raises(InputError, match=r"index is 1\.5"):
        degrade(GOOD, "bicubic", seed=0, index=1.5)
    with pytest.raises(InputError, match=r"\(8, 8, 4\); give an array of uint8, \(H, W, 3\)"):
        degrade(np.dstack([GOOD, GOOD[..., 0]]), BSR_LIGHT, seed=0)
