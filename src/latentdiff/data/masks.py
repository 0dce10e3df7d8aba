"""Random inpainting masks after LaMa (Suvorov et al. 2022, arXiv 2109.07161, section 2.3); True is a hole to fill.

The ranges are the published ones, for images whose shorter side has 256 pixels; they scale with that side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from latentdiff.errors import InputError
from latentdiff.seeding import array_generator
from latentdiff.types import Array, Float64Array, MaskGenerator

Mask = npt.NDArray[np.bool_]
Segmentation = npt.NDArray[np.integer]
"""A map (H, W) of integers that number the segments of an image."""

Canvas = tuple[int, int] | Segmentation
Range = tuple[int, int]
REFERENCE_SIDE = 256
MAX_DRAWS = 1000


class RandomMask(ABC):
    """Base of the mask generators: masks are drawn until one covers as much of the image as it should."""

    def __call__(self, canvas: Canvas, rng: np.random.Generator, coverage: tuple[float, float] = (0.0, 0.5)) -> Mask:
        """Draw one mask.

        Args:
            canvas: The size (H, W), or a map (H, W) of integers that number the segments of an image. Strokes and
                boxes use only its size; segments need the map.
            rng: Source of every draw; `latentdiff.seeding.array_generator(seed, index)` makes one.
            coverage: Least and greatest share of the image that may be hole; other masks are drawn again. LaMa's masks
                cover at most a half.

        Returns:
            The mask, bool (H, W), True where the image is to be filled.

        Raises:
            InputError: If the canvas or the bounds are not valid, or no mask of 1000 was within the bounds.
        """
        labels = _labels(canvas)
        low, high = _bounds(coverage)
        seen = []
        for _ in range(MAX_DRAWS):
            mask = self.draw(labels, rng)
            seen.append(measure_coverage(mask))
            if low <= seen[-1] <= high:
                return mask
        raise InputError(
            f"no mask covered {low:g} to {high:g} of the image in {MAX_DRAWS} draws, which covered {min(seen):.3f} to "
            f"{max(seen):.3f}; widen the bounds"
        )

    @abstractmethod
    def draw(self, labels: Segmentation, rng: np.random.Generator) -> Mask:
        """Draw one mask of any coverage, for a map of segments (H, W)."""


@dataclass(frozen=True)
class Strokes(RandomMask):
    """Chains of up to five straight brush strokes with round ends.

    Args:
        chains: Least and greatest number of chains.
        width: Least and greatest width in pixels of a 256-pixel image.
        length: Least and greatest length of one stroke, in the same pixels.
    """

    chains: Range
    width: Range
    length: Range

    def draw(self, labels: Segmentation, rng: np.random.Generator) -> Mask:
        """Draw one mask of strokes."""
        mask = np.zeros(labels.shape, dtype=np.bool_)
        size, scale = np.array(labels.shape), _scale(labels)
        for chain in range(rng.integers(*self.chains, endpoint=True)):
            start = rng.integers(size).astype(np.float64)
            for _ in range(rng.integers(1, 5, endpoint=True)):
                # LaMa's brush knows four directions, a radian apart, and their mirror images on every other chain.
                angle = (0.01 + rng.integers(4)) * (1 if chain % 2 else -1)
                length, width = rng.integers(*self.length, endpoint=True), rng.integers(*self.width, endpoint=True)
                end = np.clip(start + scale * length * np.array([np.cos(angle), np.sin(angle)]), 0, size)
                # OpenCV, with which LaMa draws them, rounds half the width up and the edges outwards.
                _fill_capsule(mask, start, end, scale * ((width + 1) // 2 + 0.25))
                start = end
        return mask


@dataclass(frozen=True)
class Boxes(RandomMask):
    """Rectangles.

    Args:
        count: Least and greatest number of rectangles.
        side: Least and greatest side in pixels of a 256-pixel image.
        margin: Width of the edge of the image that stays free, in the same pixels.
    """

    count: Range
    side: Range
    margin: int

    def draw(self, labels: Segmentation, rng: np.random.Generator) -> Mask:
        """Draw one mask of rectangles."""
        mask = np.zeros(labels.shape, dtype=np.bool_)
        size, scale = np.array(labels.shape), _scale(labels)
        margin = int(scale * self.margin)
        for _ in range(rng.integers(*self.count, endpoint=True)):
            sides = np.maximum(1, (scale * rng.integers(*self.side, size=2, endpoint=True)).round()).astype(np.int64)
            top, left = rng.integers(margin, size - margin - sides, endpoint=True)
            mask[top : top + sides[0], left : left + sides[1]] = True
        return mask


@dataclass(frozen=True)
class Either(RandomMask):
    """A choice between two kinds of masks.

    Attributes:
        first: The one kind.
        second: The other kind.
        probability: The probability of the other kind.
    """

    first: RandomMask
    second: RandomMask
    probability: float

    def draw(self, labels: Segmentation, rng: np.random.Generator) -> Mask:
        """Draw one mask of either kind."""
        chosen = self.second if rng.random() < self.probability else self.first
        return chosen.draw(labels, rng)


@dataclass(frozen=True)
class Segments(RandomMask):
    """The union of a few segments of a map, at their places.

    Args:
        count: Least and greatest number of segments, as far as the map has so many.
        max_area: Share of the image from which on a segment, such as the sky, is too large to be chosen.
        ignore_index: The label of pixels that belong to no segment; None if there is none.
    """

    count: Range
    max_area: float
    ignore_index: int | None = None

    def draw(self, labels: Segmentation, rng: np.random.Generator) -> Mask:
        """Draw one mask of segments."""
        numbers, pixels = np.unique(labels, return_counts=True)
        candidates = numbers[(pixels < self.max_area * labels.size) & (numbers != self.ignore_index)]
        if not len(candidates):
            raise InputError(
                f"none of the map's {len(numbers)} segments covers less than {self.max_area:g} of the image; give a "
                "finer map, which a segment mask needs in place of a size"
            )
        count = rng.integers(*self.count, endpoint=True)
        chosen = rng.choice(candidates, size=min(int(count), len(candidates)), replace=False)
        return np.isin(labels, chosen)


def measure_coverage(mask: Array) -> float:
    """The share of a mask (H, W) that is hole, from 0 to 1."""
    return float(np.count_nonzero(mask)) / float(mask.size)


def coverage_statistics(
    generator: MaskGenerator,
    canvas: Canvas,
    draws: int = 1000,
    *,
    seed: int = 0,
    coverage: tuple[float, float] = (0, 0.5),
) -> dict[str, float]:
    """The mean and quantiles of the coverage of a generator's masks.

    Args:
        generator: The mask generator.
        canvas: The size (H, W), or a map of segments.
        draws: The number of masks.
        seed: The seed; mask number i depends on it and on i.
        coverage: The bounds of the coverage.

    Returns:
        The values of "mean", "5%", "25%", "50%", "75%" and "95%".
    """
    values = [measure_coverage(generator(canvas, array_generator(seed, index), coverage)) for index in range(draws)]
    levels = (5, 25, 50, 75, 95)
    quantiles = np.quantile(values, [level / 100 for level in levels])
    return {"mean": float(np.mean(values))} | {f"{n}%": float(q) for n, q in zip(levels, quantiles, strict=True)}


def _labels(canvas: Canvas) -> Segmentation:
    """The map of segments that a canvas is; for a size, a map with a single segment."""
    if isinstance(canvas, np.ndarray):
        if canvas.ndim != 2 or canvas.size == 0 or canvas.dtype.kind not in "iu":
            raise InputError(f"the map is {canvas.dtype} of shape {canvas.shape}; give integers (H, W)")
        return canvas
    sides = canvas if isinstance(canvas, tuple) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise InputError(f"the mask's size is {canvas!r}; give (height, width) in pixels, or a map of segments")
    return np.zeros(sides, dtype=np.uint8)


def _bounds(coverage: tuple[float, float]) -> tuple[float, float]:
    """The bounds of the coverage as floats; InputError if they are not valid."""
    try:
        low, high = map(float, coverage)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low <= high <= 1:
        raise InputError(f"coverage is {coverage!r}; give (least, greatest) with 0 <= least <= greatest <= 1")
    return low, high


def _scale(labels: Segmentation) -> float:
    """The factor on the published ranges for the size of a map."""
    height, width = labels.shape
    return float(min(height, width)) / REFERENCE_SIDE


def _fill_capsule(mask: Mask, start: Float64Array, end: Float64Array, radius: float) -> None:
    """Set the pixels within `radius` of the line between two points (y, x); only the pixels near it are computed."""
    radius = max(radius, 0.5)  # the pixel under the brush is always painted
    low = np.maximum(np.floor(np.minimum(start, end) - radius), 0).astype(int)
    high = np.minimum(np.ceil(np.maximum(start, end) + radius) + 1, mask.shape).astype(int)
    rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
    y, x, (dy, dx) = rows - start[0], columns - start[1], end - start
    along = np.clip((y * dy + x * dx) / max(dy * dy + dx * dx, 1e-12), 0, 1)
    mask[low[0] : high[0], low[1] : high[1]] |= (y - along * dy) ** 2 + (x - along * dx) ** 2 <= radius**2


# LaMa's code draws up to one chain more than its configuration files say, and widths and lengths up to one pixel less.
THIN = Strokes(chains=(4, 51), width=(5, 14), length=(10, 49))
MEDIUM = Either(
    Strokes(chains=(4, 6), width=(5, 54), length=(10, 109)),
    Boxes(count=(1, 5), side=(10, 50), margin=0),
    probability=0.3 / 1.3,
)
BOX = Boxes(count=(1, 3), side=(30, 150), margin=10)
THICK = Either(Strokes(chains=(1, 6), width=(5, 104), length=(10, 209)), BOX, probability=0.3 / 1.3)
SEGMENT = Segments(count=(1, 3), max_area=0.5)
