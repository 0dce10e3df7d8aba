"""Resizing with the kernels of the published degradations, and bicubic downsampling, which is a degradation by itself.

Resizing is a product with two small matrices, one for each axis. "bicubic" is MATLAB's imresize: a cubic kernel with
a = -1/2 that widens when the image shrinks (antialiasing), with mirrored edges. "nearest", "linear", "cubic"
(a = -3/4), "area" and "lanczos" are OpenCV's. But for "area" they look at 1, 2, 4 and 8 pixels however much the image
shrinks, which causes the aliasing of BSR, and repeat the edge pixel.
"""

from __future__ import annotations

import numpy as np

from latentdiff.data.degradations.base import check_image, check_scale_factor
from latentdiff.types import Array, Float64Array

BICUBIC_SCALES = range(2, 17)
OPENCV_KINDS = ("linear", "cubic", "area")


def cubic_kernel(x: Float64Array, a: float) -> Float64Array:
    """The cubic convolution kernel (Keys 1981, eq. 15 for a = -1/2), which is zero for |x| >= 2."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize(image: Array, size: tuple[int, int], kind: str) -> Float64Array:
    """Resize an image (H, W, C) to `size` = (h, w) with one of this module's kernels; nothing is clipped.

    Args:
        image: The image.
        size: The new height and width.
        kind: "bicubic", "nearest", "linear", "cubic", "area" or "lanczos".
    """
    (height, width, channels), (h, w) = image.shape, size
    weights = WEIGHTS[kind]
    if kind == "area" and (h > height or w > width):
        weights = area_weights_enlarging  # OpenCV computes both axes in another way as soon as one of them grows
    rows, columns = weights(height, h), weights(width, w)
    shrunk = rows @ image.reshape(height, -1).astype(np.float64)
    result: Float64Array = columns @ shrunk.reshape(h, width, channels)
    return result


def bicubic(image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
    """Bicubic downsampling with antialiasing, the degradation of most super-resolution papers.

    It is MATLAB's imresize(image, 1 / sf). It draws nothing from `rng`, which all degradations take.

    Args:
        image: The image (H, W, C) of any number of channels, uint8 or float32, with H and W multiples of `sf`.
        rng: Unused.
        sf: The scale factor, 2 to 16.

    Returns:
        The small image (H / sf, W / sf, C) of the same type; uint8 is rounded and clipped, float32 is not clipped.

    Raises:
        InputError: If the image or the scale factor is not as above.
    """
    check_scale_factor(sf, BICUBIC_SCALES)
    check_image(image, sf, ("uint8", "float32"), channels=None)
    small = resize(image, (image.shape[0] // sf, image.shape[1] // sf), "bicubic")
    return small.astype(np.float32) if image.dtype == np.float32 else np.clip(small.round(), 0, 255).astype(np.uint8)


def _centres(n_in: int, n_out: int) -> Float64Array:
    """The positions (n_out, 1) of the new pixels' centres among the old ones, which are at 0, 1, 2, ..."""
    return (np.arange(n_out)[:, None] + 0.5) * n_in / n_out - 0.5


def _matrix(taps: Float64Array, weights: Float64Array, n_in: int) -> Float64Array:
    """The matrix (n_out, n_in) that makes each new pixel of k old ones, from their places and weights (n_out, k)."""
    matrix = np.zeros((len(taps), n_in))
    np.add.at(matrix, (np.arange(len(taps))[:, None], taps.astype(np.int64)), weights)
    return matrix


def bicubic_weights(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of MATLAB's imresize along one axis; its rows sum to 1."""
    stretch = max(n_in / n_out, 1.0)
    centres = _centres(n_in, n_out)
    taps = np.floor(centres - 2 * stretch) + np.arange(np.ceil(4 * stretch) + 2)
    weights = cubic_kernel((centres - taps) / stretch, -0.5)
    mirrored = taps % (2 * n_in)
    mirrored = np.minimum(mirrored, 2 * n_in - 1 - mirrored)
    return _matrix(mirrored, weights / weights.sum(1, keepdims=True), n_in)


def linear_weights(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of OpenCV's linear interpolation along one axis."""
    centres = _centres(n_in, n_out)
    taps = np.floor(centres) + np.arange(2)
    return _matrix(np.clip(taps, 0, n_in - 1), 1 - np.abs(centres - taps), n_in)


def cubic_weights(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of OpenCV's cubic interpolation along one axis."""
    centres = _centres(n_in, n_out)
    taps = np.floor(centres) + np.arange(-1, 3)
    return _matrix(np.clip(taps, 0, n_in - 1), cubic_kernel(centres - taps, -0.75), n_in)


def area_weights(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of OpenCV's area interpolation: each new pixel is the mean of the old ones it covers."""
    edges = np.arange(n_out + 1)[:, None] * n_in / n_out
    old = np.arange(n_in)
    overlap: Float64Array = np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old)
    return overlap.clip(0) * n_out / n_in


def area_weights_enlarging(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of OpenCV's area interpolation where the image grows.

    Each new pixel is made of two old ones; the second has weight only as far as the new pixel reaches into it. Where a
    border falls on a border, rounding decides which pixel is taken, so the operations are in OpenCV's order.
    """
    new, ratio = np.arange(n_out)[:, None], n_out / n_in
    first = np.floor(new * (1 / ratio))
    reach = (new + 1 - (first + 1) * ratio).astype(np.float32)
    share = np.where(reach <= 0, 0, reach - np.floor(reach))
    taps = np.minimum(first + np.arange(2), n_in - 1)
    return _matrix(taps, np.concatenate([1 - share, share], 1), n_in)


def nearest_weights(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of OpenCV's nearest neighbour, which is the pixel at or before the new one's start."""
    taps = np.floor(np.arange(n_out)[:, None] * (n_in / n_out))
    return _matrix(np.minimum(taps, n_in - 1), np.ones_like(taps), n_in)


def lanczos_weights(n_in: int, n_out: int) -> Float64Array:
    """The matrix (n_out, n_in) of OpenCV's Lanczos interpolation over 8 pixels; its rows sum to 1."""
    centres = _centres(n_in, n_out)
    taps = np.floor(centres) + np.arange(-3, 5)
    weights = np.sinc(centres - taps) * np.sinc((centres - taps) / 4)
    return _matrix(np.clip(taps, 0, n_in - 1), weights / weights.sum(1, keepdims=True), n_in)


WEIGHTS = {
    "bicubic": bicubic_weights,
    "nearest": nearest_weights,
    "linear": linear_weights,
    "cubic": cubic_weights,
    "area": area_weights,
    "lanczos": lanczos_weights,
}
