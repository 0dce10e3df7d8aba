"""Resizing as two small matrices, one an axis, for the five kernels that the published degradations use.

"bicubic" is MATLAB's imresize: a cubic kernel with a = -1/2 that widens when the image shrinks (antialiasing), edges
mirrored. "linear", "cubic" (a = -3/4) and "area" are OpenCV's: the first two look at 2 and 4 pixels however much the
image shrinks, which is where the aliasing of BSR comes from, and repeat the edge pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentdiff.data.degradations.base import Array

Floats = npt.NDArray[np.float64]
OPENCV_KINDS = ("linear", "cubic", "area")


def cubic_kernel(x: Floats, a: float) -> Floats:
    """The cubic convolution kernel (Keys 1981, eq. 15 for a = -1/2), which is zero from |x| = 2 on."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resize(image: Array, size: tuple[int, int], kind: str) -> Floats:
    """Resize (H, W, C) to `size` = (h, w) with one of the five kernels of this module; nothing is clipped."""
    (height, width, channels), (h, w) = image.shape, size
    if kind == "area" and (h > height or w > width):
        kind = "area up"  # OpenCV takes another path for both axes as soon as one of them grows
    rows, columns = _WEIGHTS[kind](height, h), _WEIGHTS[kind](width, w)
    shrunk = rows @ image.reshape(height, -1).astype(np.float64)
    result: Floats = columns @ shrunk.reshape(h, width, channels)
    return result


@dataclass(frozen=True)
class Resize:
    """A step that resizes to `size` = (h, w) and clips to [0, 1]."""

    size: tuple[int, int]
    kind: str

    def __call__(self, image: Array) -> Array:
        """Apply the step to float32 (H, W, 3) in [0, 1]."""
        return np.clip(resize(image, self.size, self.kind), 0, 1).astype(np.float32)


def _centres(n_in: int, n_out: int) -> Floats:
    """Where the centres of the new pixels (n_out, 1) lie among the old ones, which are at 0, 1, 2, ..."""
    return (np.arange(n_out)[:, None] + 0.5) * n_in / n_out - 0.5


def _matrix(taps: Floats, weights: Floats, n_in: int) -> Floats:
    """(n_out, n_in) from the places (n_out, k) of the pixels that each new one looks at, and their weights."""
    matrix = np.zeros((len(taps), n_in))
    np.add.at(matrix, (np.arange(len(taps))[:, None], taps.astype(np.int64)), weights)
    return matrix


def bicubic_weights(n_in: int, n_out: int) -> Floats:
    """MATLAB's imresize along one axis: rows (n_out, n_in) sum to 1."""
    stretch = max(n_in / n_out, 1.0)
    centres = _centres(n_in, n_out)
    taps = np.floor(centres - 2 * stretch) + np.arange(np.ceil(4 * stretch) + 2)
    weights = cubic_kernel((centres - taps) / stretch, -0.5)
    mirrored = taps % (2 * n_in)
    mirrored = np.minimum(mirrored, 2 * n_in - 1 - mirrored)
    return _matrix(mirrored, weights / weights.sum(1, keepdims=True), n_in)


def _linear(n_in: int, n_out: int) -> Floats:
    centres = _centres(n_in, n_out)
    taps = np.floor(centres) + np.arange(2)
    return _matrix(np.clip(taps, 0, n_in - 1), 1 - np.abs(centres - taps), n_in)


def _cubic(n_in: int, n_out: int) -> Floats:
    centres = _centres(n_in, n_out)
    taps = np.floor(centres) + np.arange(-1, 3)
    return _matrix(np.clip(taps, 0, n_in - 1), cubic_kernel(centres - taps, -0.75), n_in)


def _area(n_in: int, n_out: int) -> Floats:
    """Each new pixel is the mean of what it covers."""
    edges = np.arange(n_out + 1)[:, None] * n_in / n_out
    old = np.arange(n_in)
    overlap: Floats = np.minimum(edges[1:], old + 1) - np.maximum(edges[:-1], old)
    return overlap.clip(0) * n_out / n_in


def _area_up(n_in: int, n_out: int) -> Floats:
    """Two taps; the second has weight only as far as the new pixel reaches into it.

    Where a border falls on a border, rounding decides which pixel is taken: this is OpenCV's order of operations.
    """
    new, ratio = np.arange(n_out)[:, None], n_out / n_in
    first = np.floor(new * (1 / ratio))
    reach = (new + 1 - (first + 1) * ratio).astype(np.float32)
    share = np.where(reach <= 0, 0, reach - np.floor(reach))
    taps = np.minimum(first + np.arange(2), n_in - 1)
    return _matrix(taps, np.concatenate([1 - share, share], 1), n_in)


_WEIGHTS = {"bicubic": bicubic_weights, "linear": _linear, "cubic": _cubic, "area": _area, "area up": _area_up}
