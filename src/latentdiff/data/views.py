"""Views: which part of an image a sample shows, how it lies, and in which colours; pixels, boxes and maps alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from latentdiff.io.boxes import Corners, clip, mirror
from latentdiff.io.images import Box
from latentdiff.seeding import array_generator

DRAWN, KEPT = 21, 22  # what the generators of views have beside their numbers, so that they are those of nothing else
MIDDLE = (0.5, 0.5)
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class View:
    """What one sample shows of an image, whatever the image's size in pixels.

    Attributes:
        size: Height and width of the result in pixels.
        zoom: The size of the part as a share of the largest part of that shape, above 0 and up to 1.
        place: Where it lies in the room that is left, down and to the right, from 0 to 1.
        mirrored: Whether left and right change places.
        turns: The number of quarter turns, counter-clockwise, after that.
        colours: Factors of brightness, contrast and saturation; None leaves the colours as they are.
    """

    size: tuple[int, int]
    zoom: float = 1.0
    place: tuple[float, float] = MIDDLE
    mirrored: bool = False
    turns: int = 0
    colours: tuple[float, float, float] | None = None

    def box(self, height: int, width: int) -> Box:
        """The part of an image of that size: left, top, right and bottom, in whole pixels."""
        scale = self.zoom * min(height / self.size[0], width / self.size[1])
        rows, columns = (
            max(1, min(side, round(scale * own))) for side, own in zip((height, width), self.size, strict=True)
        )
        top, left = int((height - rows) * self.place[0]), int((width - columns) * self.place[1])
        return left, top, left + columns, top + rows

    def lay(self, pixels: torch.Tensor) -> torch.Tensor:
        """A cut and resized image or map (..., H, W), mirrored and turned."""
        pixels = pixels.flip(-1) if self.mirrored else pixels
        return torch.rot90(pixels, self.turns, (-2, -1)) if self.turns else pixels

    def numbers(self) -> torch.Tensor:
        """What a network is told of the part (3,): its zoom, and its place as it lies, down and to the right.

        Whole images are (1, 0.5, 0.5), which is what the UNet is asked for unless it is told.
        """
        down, right = self.place
        right = 1 - right if self.mirrored else right
        for _ in range(self.turns):
            down, right = 1 - right, down
        return torch.tensor([self.zoom, down, right])

    def cut(self, pixels: torch.Tensor, factor: int = 1) -> torch.Tensor:
        """What the view shows of another picture of the same scene, such as a small image that was measured.

        Args:
            pixels: The whole picture (C, H, W) in [-1, 1], upright, of any size.
            factor: How many times smaller than the view the result is.
        """
        left, top, right, bottom = self.box(pixels.shape[-2], pixels.shape[-1])
        part, size = pixels[:, top:bottom, left:right], (self.size[0] // factor, self.size[1] // factor)
        if part.shape[1:] != size:
            part = F.interpolate(part[None], size, mode="bicubic", antialias=True)[0].clamp(-1, 1)
        return self.lay(part)

    def paint(self, image: torch.Tensor) -> torch.Tensor:
        """An RGB image (3, H, W) in [-1, 1] in the view's colours, clipped."""
        if self.colours is None:
            return image
        brightness, contrast, saturation = self.colours
        bright = (image + 1) * brightness
        grey = torch.einsum("chw,c->hw", bright, torch.tensor(LUMA))
        contrasted = grey.mean() + contrast * (bright - grey.mean())
        grey = grey.mean() + contrast * (grey - grey.mean())
        return (grey + saturation * (contrasted - grey) - 1).clamp(-1, 1)

    def corners(self, box: Corners, height: int, width: int) -> Corners | None:
        """A box relative to the whole image, clipped to the part and relative to the view; None if it is not in it.

        Args:
            box: The box in the whole image, upright.
            height: That of the whole image in pixels.
            width: Likewise.
        """
        left, top, right, bottom = self.box(height, width)
        part = clip(box, (left / width, top / height, right / width, bottom / height))
        if part is None:
            return None
        part = mirror(part) if self.mirrored else part
        for _ in range(self.turns):
            part = (part[1], 1 - part[2], part[3], 1 - part[0])
        return part


@dataclass(frozen=True)
class Views:
    """How the images of a data set are shown: in training by the number of the sample, in a cache in several copies.

    Attributes:
        resolution: The side of square views in pixels.
        zooms: The least and the greatest share of the image that a random part has; None where parts are not random.
        crops: The number of parts of an image in a cache.
        flip: Whether a cache also has the mirror images.
        turn: Whether images are turned by quarters.
        jitter: The most by which brightness, contrast and saturation differ from 1.
        sizes: The buckets, (height, width) each; empty where all views are square.
        buckets: The number of each image's bucket; empty as `sizes` is.
        cells: The part of each image if the data says it, as `zoom` and `place` of a view; empty if it doesn't.
    """

    resolution: int
    zooms: tuple[float, float] | None = None
    crops: int = 1
    flip: bool = False
    turn: bool = False
    jitter: float = 0.0
    sizes: tuple[tuple[int, int], ...] = ()
    buckets: Sequence[int] = ()
    cells: Sequence[tuple[float, tuple[float, float]]] = ()

    @property
    def copies(self) -> int:
        """The number of views of an image in a cache: each of its parts in each of the ways in which it may lie."""
        return self.crops * (1 + self.flip) * (4 if self.turn else 1)

    @property
    def drawn(self) -> bool:
        """Whether a view may show any part of the image."""
        return self.zooms is not None

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """All sizes (height, width) that views have in training."""
        return self.sizes or ((self.resolution, self.resolution),)

    def centre(self, image: int) -> View:
        """The square that stands for an image outside of training: its centre, or its cell."""
        square = (self.resolution, self.resolution)
        return View(square, *self.cells[image]) if self.cells else View(square)

    def draw(self, seed: int, number: int, image: int) -> View:
        """The view of an image as sample `number` of a run, for tasks that mirror by themselves."""
        return self._drawn(image, (seed, number, DRAWN), None)

    def copy(self, image: int, copy: int) -> View:
        """View number `copy` of an image in a cache, the same in all runs: all parts as they lie, then mirrored, ..."""
        way, crop = divmod(copy, self.crops)
        turns, mirrored = divmod(way, 1 + self.flip)
        view = self._drawn(image, (image, crop, KEPT), turns)
        return replace(view, mirrored=bool(mirrored))

    def groups(self, images: int) -> list[NDArray[np.int64]]:
        """The images of each bucket that has any, of the first `images`; one group where there are no buckets."""
        if not self.sizes:
            return [np.arange(images)]
        buckets = np.asarray(self.buckets[:images])
        return [np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)]

    def subset(self, places: Sequence[int]) -> Views:
        """The views of these images alone."""
        return replace(
            self,
            buckets=[self.buckets[place] for place in places] if self.buckets else (),
            cells=[self.cells[place] for place in places] if self.cells else (),
        )

    def fingerprint(self) -> str:
        """A text that changes with the views in a cache; empty for centre squares, mirrored or not."""
        said = (self.zooms, self.crops, self.turn, self.jitter, self.sizes)
        if said == (None, 1, False, 0.0, ()) and not self.cells:
            return ""
        return f" {said} {list(self.buckets)} {list(self.cells)}"

    def _drawn(self, image: int, numbers: tuple[int, int, int], turns: int | None) -> View:
        """A view of an image by the generator of some numbers, turned as is said, or as it is drawn for None."""
        size = self.sizes[self.buckets[image]] if self.sizes else (self.resolution, self.resolution)
        view = View(size, *self.cells[image]) if self.cells else View(size)
        if self.zooms is None and not self.turn and not self.jitter:
            return view  # which is told without the 20 microseconds that a generator takes
        rng = array_generator(*numbers)
        if self.zooms is not None:
            zoom, down, right = rng.uniform(self.zooms[0], self.zooms[1]), rng.random(), rng.random()
            view = replace(view, zoom=float(zoom), place=(float(down), float(right)))
        if self.turn:
            view = replace(view, turns=int(rng.integers(4)) if turns is None else turns)
        if self.jitter:
            low, high = max(0.0, 1 - self.jitter), 1 + self.jitter
            brightness, contrast, saturation = rng.uniform(low, high, 3).tolist()
            view = replace(view, colours=(brightness, contrast, saturation))
        return view
