"""The single filters of OpenCV and Pillow, against closed forms, Pillow itself, and OpenCV's own results."""

import numpy as np
import pytest
from PIL import Image

from latentdiff.data.degradations import degrade
from latentdiff.data.degradations.resize import WEIGHTS, lanczos_weights
from latentdiff.registry import DEGRADATIONS

RAMP = np.arange(12, dtype=np.uint8)[None, :, None].repeat(12, axis=0).repeat(3, axis=2) * 20
# cv2.resize of OpenCV 5.0.0, which rounds on the way, of the rows above.
OPENCV = {
    ("cv_nearest", 4): [0, 80, 160],
    ("cv_bilinear", 4): [30, 110, 190],
    ("cv_area", 4): [30, 110, 190],
    ("cv_nearest", 3): [0, 60, 120, 180],
    ("cv_bilinear", 3): [20, 80, 140, 200],
    ("cv_area", 3): [20, 80, 140, 200],
    ("cv_bicubic", 3): [20, 80, 140, 200],
    ("cv_lanczos", 3): [20, 80, 140, 200],
    ("cv_nearest", 2): [0, 40, 80, 120, 160, 200],
    ("cv_bilinear", 2): [10, 50, 90, 130, 170, 210],
    ("cv_bicubic", 2): [8, 50, 90, 130, 170, 212],
    ("cv_area", 2): [10, 50, 90, 130, 170, 210],
    ("cv_lanczos", 2): [8, 50, 90, 130, 170, 211],
    ("cv_bicubic", 4): [30, 110, 190],
    ("cv_lanczos", 4): [31, 110, 189],
}


@pytest.mark.parametrize(("name", "sf"), OPENCV)
def test_a_ramp_becomes_what_opencv_makes_of_it(name, sf):
    made = degrade(RAMP, name, sf, seed=0)[0, :, 0].astype(int)
    assert len(made) == len(OPENCV[name, sf]) and np.abs(made - OPENCV[name, sf]).max() <= 1


@pytest.mark.parametrize("kind", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
@pytest.mark.parametrize("sf", [2, 3, 4])
def test_pillows_filters_are_pillows(kind, sf):
    image = np.random.default_rng(sf).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    theirs = Image.fromarray(image).resize((36 // sf, 24 // sf), getattr(Image.Resampling, kind.upper()))
    assert np.array_equal(degrade(image, f"pil_{kind}", sf, seed=0), np.asarray(theirs))


def test_lanczos_looks_at_eight_pixels_and_keeps_constants():
    for n_in, n_out in ((64, 16), (30, 10), (8, 8)):
        weights = lanczos_weights(n_in, n_out)
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-14)
        assert ((np.abs(weights) > 1e-12).sum(1) <= 8).all()
    np.testing.assert_allclose(lanczos_weights(8, 8), np.eye(8), atol=1e-12)
    # At half a pixel: sinc(d) sinc(d / 4) of d = 0.5, 1.5, 2.5, 3.5 on both sides, made to sum to 1.
    d = np.array([3.5, 2.5, 1.5, 0.5, 0.5, 1.5, 2.5, 3.5])
    expected = np.sin(np.pi * d) * np.sin(np.pi * d / 4) / d**2
    np.testing.assert_allclose(lanczos_weights(32, 16)[8, 13:21], expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("name", ["cv_nearest", "cv_bilinear", "cv_bicubic", "cv_lanczos"])
def test_opencvs_filters_alias_where_pillows_do_not(name):
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = 255
    theirs, ours = degrade(stripes, "pil_bicubic", 4, seed=0), degrade(stripes, name, 4, seed=0)
    assert abs(int(theirs[4, 4, 0]) - 64) <= 2  # the mean of a stripe and three gaps
    assert abs(int(ours[4, 4, 0]) - 64) > 20


def test_the_originals_names_are_the_same_degradations():
    assert DEGRADATIONS.get("bsrgan") is DEGRADATIONS.get("bsr")
    assert DEGRADATIONS.get("bsrgan_light") is DEGRADATIONS.get("bsr_light")
    assert set(WEIGHTS) == {"bicubic", "nearest", "linear", "cubic", "area", "lanczos"}
