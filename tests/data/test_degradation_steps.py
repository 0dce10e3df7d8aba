"""Each step against the original code's (seeds 1 to 3) and OpenCV 5.0.0's results in tests/golden/aux_bsrgan_light.

The original draws from Python's and from numpy's old generator in turn; `original_plan` repeats its order of draws.
"""

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from latentdiff.data.degradations.base import to_float, to_uint8
from latentdiff.data.degradations.bsr import BSR_FULL, BSR_LIGHT
from latentdiff.data.degradations.resize import resize
from latentdiff.data.degradations.steps import (
    AnisotropicBlur,
    BlurredStride,
    GaussianBlur,
    GaussianNoise,
    Jpeg,
    Resize,
    add_noise,
    anisotropic_kernel,
    convolve,
    correlated_mixing,
    gaussian_kernel,
    shift_kernel,
)

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "aux_bsrgan_light" / "io.safetensors")
IMAGE = to_float(GOLDEN["image_u8"])
SEEDS = (1, 2, 3)
FLOAT32 = 4 * np.finfo(np.float32).eps
JPEG_LEVELS = 3  # libjpeg builds differ by rounding in the colour transform and the chroma upsampling


def ends(image):
    return np.concatenate([image[:8], image[-8:]])


def original_blur(py, sf, full=False):
    wd2, wd = (4 + sf, 2 + 0.2 * sf) if full else ((4 + sf) / 4, (2 + 0.2 * sf) / 4)
    if py.random() < 0.5:
        l1, l2 = wd2 * py.random(), wd2 * py.random()
        size = 2 * py.randint(2, 11) + 3 if full else py.randint(2, 11) + 3
        return AnisotropicBlur(size, py.random() * np.pi, l1, l2)
    size = 2 * py.randint(2, 11) + 3 if full else py.randint(2, 4) + 3
    return GaussianBlur(size, wd * py.random())


def original_noise(py, old, levels):
    """The matrix that mixes fields to channels; what the original draws next from `old` are the fields."""
    level, kind = py.randint(*levels) / 255, old.rand()
    if kind > 0.6:
        return level * np.eye(3)
    if kind < 0.4:
        return level * np.ones((1, 3))
    return correlated_mixing(levels[1] / 255, old.rand(3), old.rand(3, 3))


def original_plan(py, old, size, full=False):
    """Steps in the original's order at sf = 4; noise comes as its matrix."""
    sf, qualities = 4, (30, 95) if full else (80, 95)
    kind = lambda: ("linear", "cubic", "area")[py.choice([1, 2, 3]) - 1]  # noqa: E731
    if py.random() < 0.25:
        size, sf = (size[0] // 2, size[1] // 2), 2
        yield Resize(size, kind() if old.rand() < 0.5 else "bicubic")
    order = py.sample(range(7), 7)
    first, second = order.index(2), order.index(3)
    if first > second:
        order[first], order[second] = order[second], order[first]
    for number in order:
        if number == 0 or (number == 1 and full):
            yield original_blur(py, sf, full)
        elif number == 2 and py.random() < (0.75 if full else 0.8):
            factor = py.uniform(1, 2 * sf)
            yield Resize((int(1 / factor * size[0]), int(1 / factor * size[1])), kind())
        elif number == 2:
            yield BlurredStride(py.uniform(0.1, 0.6 * sf), sf)
        elif number == 3:
            yield Resize((int(1 / sf * size[0]), int(1 / sf * size[1])), kind())
        elif number == 4:
            yield original_noise(py, old, (2, 25) if full else (1, 2))
        elif number == 5 and py.random() < 0.9:
            yield Jpeg(py.randint(*qualities))
    yield Jpeg(py.randint(*qualities))


def test_kernels():
    kernel = gaussian_kernel(25, 1.7)
    np.testing.assert_allclose(kernel, GOLDEN["gk"], atol=1e-15)
    np.testing.assert_allclose(shift_kernel(kernel, 4), GOLDEN["gk_shift"], atol=1e-15)
    np.testing.assert_allclose(anisotropic_kernel(9, 0.7, 1.3, 0.4), GOLDEN["aniso"], atol=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
def test_blur(seed):
    blur = original_blur(random.Random(seed), 4)
    np.testing.assert_allclose(ends(blur(IMAGE)), GOLDEN[f"blur_ends.{seed}"], atol=FLOAT32)


@pytest.mark.parametrize("seed", SEEDS)
def test_noise(seed):
    old = np.random.RandomState(seed)
    mixing = original_noise(random.Random(seed), old, (1, 2))
    np.testing.assert_allclose(ends(add_noise(IMAGE, mixing, old)), GOLDEN[f"gauss_ends.{seed}"], atol=FLOAT32)


@pytest.mark.parametrize("seed", SEEDS)
def test_jpeg(seed):
    levels = to_uint8(Jpeg(random.Random(seed).randint(80, 95))(IMAGE)).astype(int)
    assert np.abs(levels - GOLDEN[f"jpeg_u8.{seed}"]).max() <= JPEG_LEVELS


@pytest.mark.parametrize("seed", SEEDS)
def test_whole_degradation(seed):
    py, old, image = random.Random(seed), np.random.RandomState(seed), IMAGE
    for step in original_plan(py, old, image.shape[:2]):
        image = add_noise(image, step, old) if isinstance(step, np.ndarray) else step(image)
    assert np.abs(to_uint8(image).astype(int) - GOLDEN[f"full4.{seed}"]).max() <= JPEG_LEVELS


def test_antialiased_bicubic_is_the_originals():
    np.testing.assert_allclose(resize(IMAGE, (48, 48), "bicubic"), GOLDEN["imresize_half"], atol=2 * FLOAT32)


@pytest.mark.parametrize("key", [key for key in GOLDEN if key.startswith("opencv.")])
def test_resizing_is_opencvs(key):
    _, kind, size = key.split(".")
    size = tuple(map(int, size.split("x")))
    np.testing.assert_allclose(resize(GOLDEN["small"], size, kind), GOLDEN[key], atol=2 * FLOAT32)


@pytest.mark.parametrize("size", [5, 6, 7, 14])
def test_convolution_is_the_plain_sum(size):
    rng = np.random.default_rng(size)
    image, kernel = rng.random((9, 7, 2)).astype(np.float32), rng.random((size, size))
    mirrored = lambda i, n: min(i % (2 * n - 2), -i % (2 * n - 2))  # noqa: E731
    expected = np.zeros(image.shape)
    for (y, x, c), (v, u) in itertools.product(np.ndindex(image.shape), np.ndindex(kernel.shape)):
        source = image[mirrored(y + size // 2 - v, 9), mirrored(x + size // 2 - u, 7), c]
        expected[y, x, c] += kernel[v, u] * source
    np.testing.assert_allclose(convolve(image, kernel), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [5, 6])
def test_the_narrowest_kernel_still_sums_to_one(size):
    # The original's is all zeros (a black image) or NaN here.
    assert gaussian_kernel(size, 1e-4).sum() == pytest.approx(1)
    assert anisotropic_kernel(size, 0.3, 1e-9, 1e-9).sum() == pytest.approx(1)


@pytest.mark.parametrize("mixing", [0.02 * np.eye(3), 0.02 * np.ones((1, 3)), None], ids=["colour", "grey", "mixed"])
def test_covariance_of_noise(mixing):
    rng = np.random.default_rng(0)
    diagonal, square = rng.random(3), rng.random((3, 3))
    covariance = mixing.T @ mixing if mixing is not None else None
    if covariance is None:
        mixing = correlated_mixing(0.02, diagonal, square)
        u = np.linalg.svd(square)[0]
        covariance = 0.02**2 * np.abs(u.T @ np.diag(diagonal) @ u)
        assert np.linalg.eigvalsh(covariance).min() > 0  # else singular values are not what numpy could sample either
    grey = np.full((200, 200, 3), 0.5, dtype=np.float32)
    noise = add_noise(grey, mixing, rng).reshape(-1, 3) - 0.5
    # 40,000 samples: a variance is known to sqrt(2 / 40000) = 0.7 % of itself, and 4 of these are allowed.
    np.testing.assert_allclose(np.cov(noise.T), covariance, atol=4 * 0.0071 * covariance.max())


def features(plan):
    """What a plan consists of, as numbers: one for each thing that is drawn, NaN where it was not."""
    places = {type(step): place for place, step in reversed(list(enumerate(plan)))}
    noise = places.get(GaussianNoise, places.get(np.ndarray))
    mixing = getattr(plan[noise], "mixing", plan[noise])
    blur = plan[min(places.get(kind, len(plan)) for kind in (AnisotropicBlur, GaussianBlur))]
    *halving, downsampling, fitting = (i for i, step in enumerate(plan) if isinstance(step, (Resize, BlurredStride)))
    kinds = ("linear", "cubic", "area", "bicubic")
    return {
        "steps": len(plan),
        "halved by": kinds.index(plan[0].kind) if halving else np.nan,
        "place of noise": noise,
        "place of blur": next(place for place, step in enumerate(plan) if step is blur),
        "place of downsampling": downsampling,
        "place of fitting": fitting,
        "fitted by": kinds.index(plan[fitting].kind),
        "fitted height": plan[fitting].size[0],
        "downsampled height": getattr(plan[downsampling], "size", [np.nan])[0],
        "downsampled by": kinds.index(getattr(plan[downsampling], "kind", "bicubic")),
        "sigma of stride": getattr(plan[downsampling], "sigma", np.nan),
        "stride": getattr(plan[downsampling], "sf", np.nan),
        "blur size": blur.size,
        "theta": getattr(blur, "theta", np.nan),
        "variance": getattr(blur, "l1", np.nan),
        "variance across": getattr(blur, "l2", np.nan),
        "sigma": getattr(blur, "sigma", np.nan),
        "noise power": (mixing**2).sum(),
        "noise fields": len(mixing),
        "correlation": (mixing[:, 0] * mixing[:, 1]).sum(),
        "last quality": plan[-1].quality,
    }


@pytest.mark.thorough
@pytest.mark.parametrize("degradation", [BSR_LIGHT, BSR_FULL], ids=["light", "full"])
def test_distribution_of_plans(degradation):
    n, rng = 12000, np.random.default_rng(0)
    py, old = random.Random(0), np.random.RandomState(0)
    own = [features(degradation.plan(rng, (96, 128), 4)) for _ in range(n)]
    original = [features(list(original_plan(py, old, (96, 128), degradation is BSR_FULL))) for _ in range(n)]
    for name in own[0]:
        a, b = (np.array([row[name] for row in rows]) for rows in (own, original))
        missing = abs(np.isnan(a).mean() - np.isnan(b).mean())
        assert missing < 4 * np.sqrt(0.5 / n), f"{name} is drawn with another probability"
        a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
        if len(a) and len(b):
            values = np.concatenate([a, b])
            gap = np.abs(np.searchsorted(a, values, "right") / len(a) - np.searchsorted(b, values, "right") / len(b))
            # Kolmogorov-Smirnov at a level of 1e-4
            assert gap.max() < 2.23 * np.sqrt(1 / len(a) + 1 / len(b)), f"{name} has another distribution"
