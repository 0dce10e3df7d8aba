"""How a recipe's images are shown: the options that say it, held against the sizes of the images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from tqdm.auto import tqdm

from latentdiff.data.buckets import bucket_sizes, cut_share, nearest_bucket
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.views import Views
from latentdiff.errors import BadFileError, InputError, LatentDiffWarning
from latentdiff.io.arrays import size_of

Sizes = list[tuple[int, int] | None]  # height and width of each image; None if it can't be decoded
MUCH = 0.05  # share of the pixels from which on it is said that buckets cut them away


def frame(records: Records, options: DataOptions) -> tuple[Records, Views]:
    """The records to train on, with an entry for each cell of a grid, and their views.

    The size of every image is read from its header where the options depend on it.

    Raises:
        InputError: If images don't fit the options: smaller than a grid's cells, not square where nothing is cut away,
            or of another ratio than all buckets.
    """
    views = Views(
        options.resolution,
        (options.min_crop, options.max_crop) if options.crop == "random" else None,
        options.crops,
        options.random_flip,
        options.random_rotate,
        options.colour_jitter,
    )
    if options.crop in ("centre", "random") and options.buckets is None:
        return records, views
    sizes = _sizes(records)
    if options.crop == "none":
        _refuse(records, sizes, [size is not None and size[0] != size[1] for size in sizes], "not square",
                "crop 'none' cuts nothing away; give crop: centre, or buckets")  # fmt: skip
    if options.crop == "grid":
        return _cells(records, sizes, views)
    if options.buckets is None:
        return records, views
    shapes = bucket_sizes(options.resolution, options.buckets.multiple, options.buckets.max_ratio)
    _refuse(records, sizes, [size is not None and max(size) > options.buckets.max_ratio * min(size) for size in sizes],
            f"beyond all buckets, whose ratio is at most {options.buckets.max_ratio:g}",
            "raise data.buckets.max_ratio, or leave these images out")  # fmt: skip
    square = (options.resolution, options.resolution)
    found = [nearest_bucket(shapes, size or square) for size in sizes]
    cut = float(np.mean([cut_share(shapes[place], size) for place, size in zip(found, sizes, strict=True) if size]))
    if cut > MUCH:
        line = f"data.buckets cut away {cut:.1%} of the pixels; with a smaller multiple there are more buckets"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)
    return records, Views(**{**vars(views), "sizes": tuple(shapes), "buckets": found})


def _sizes(records: Records) -> Sizes:
    """Height and width of each image, by their headers."""
    sizes: Sizes = []
    for file in tqdm(records.files, desc="reading sizes", unit="image", disable=len(records.files) < 10_000):
        try:
            sizes.append(size_of(file))
        except BadFileError:  # in training, another sample takes its place
            sizes.append(None)
    return sizes


def _refuse(records: Records, sizes: Sizes, wrong: Sequence[bool], what: str, advice: str) -> None:
    """An InputError of one line if some images are wrong, with their number and the first."""
    if any(wrong):
        place = wrong.index(True)
        height, width = sizes[place] or (0, 0)
        raise InputError(
            f"{records.root}: {sum(wrong)} of {len(wrong)} images are {what}, the first is {records.name_of(place)} "
            f"with {width}x{height} pixels; {advice}"
        )


def _cells(records: Records, sizes: Sizes, views: Views) -> tuple[Records, Views]:
    """An entry for each square of the resolution in a grid over each image, whose ends are those of the image."""
    side = views.resolution
    _refuse(records, sizes, [size is not None and min(size) < side for size in sizes],
            f"smaller than resolution {side}",
            "crop 'grid' cuts squares of that size; lower it, or give crop: centre")  # fmt: skip
    places: list[int] = []
    cells: list[tuple[float, tuple[float, float]]] = []
    for place, size in enumerate(sizes):
        height, width = size or (side, side)
        down, right = (_starts(length, side) for length in (height, width))
        places += [place] * (len(down) * len(right))
        cells += [(side / min(height, width), (y, x)) for y in down for x in right]
    return records.subset(places), Views(**{**vars(views), "cells": cells})


def _starts(length: int, side: int) -> list[float]:
    """Where cells begin that cover a side of the image, as shares of the room beside one, with as little overlap as can
    be."""
    count = -(-length // side)
    return [number / (count - 1) for number in range(count)] if count > 1 else [0.0]
