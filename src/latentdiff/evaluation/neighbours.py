"""Samples beside their nearest training images: the Python side of `latentdiff evaluate neighbours`.

Squared distances are computed in float64 block by block, so that memory grows with the number of images, not with the
product of both numbers; of each sample, the k nearest are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentdiff import __version__
from latentdiff.bulk.threads import map_in_threads
from latentdiff.errors import InputError
from latentdiff.evaluation.distributions import BLOCK, ChosenRows, Rows, blocks
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.image_sets import ImageSet, check_sizes, counted, image_name, open_images
from latentdiff.evaluation.manifold import squares_between
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.evaluation.samples import DEFAULT_FEATURES
from latentdiff.evaluation.store import FeatureStore, SharedFeatures, default_cache
from latentdiff.io.files import atomic_file, check_writable
from latentdiff.io.stored import WRITTEN_KINDS
from latentdiff.viz.grid import image_grid

SHOWN_NEIGHBOURS = 10
ROWS = 8
ORDERS = ("nearest", "given")
MARGIN, LEAST_SIDE = 4, 128  # pixels around each image of the picture; smaller images are enlarged, to be named below


@dataclass(frozen=True)
class Neighbours:
    """What training images are near to which samples.

    Attributes:
        places: The numbers (N, k) of the training images that are nearest to each sample, the nearest first.
        distances: Their distances (N, k) in feature space.
        apart: How far (N,) the nearest training image of each sample is from its own nearest other training image.
            Copies of it don't count as others.
    """

    places: Tensor
    distances: Tensor
    apart: Tensor

    @property
    def ratios(self) -> Tensor:
        """The distance (N,) of each sample to its nearest training image, in units of `apart`; 0 is a copy."""
        return self.distances[:, 0] / self.apart

    @property
    def memorisation(self) -> float:
        """The share of samples that are nearer to their nearest training image than another training image is."""
        return float((self.ratios < 1).double().mean())


class NeighboursOptions(TypedDict, total=False):
    """Options of `NeighboursEvaluation`, which describes them."""

    neighbours: int
    rows: int
    order: str
    features: str | FeatureExtractor
    count: int | None
    training_count: int | None
    resolution: int | None
    device: torch.device | str
    cache: str | Path | None


def evaluate_neighbours(
    samples: str | Path | ImageSet,
    training: str | Path | ImageSet,
    *,
    output: str | Path | None = None,
    **options: Unpack[NeighboursOptions],
) -> Report:
    """Find the training images that are nearest to samples, in this process alone.

    Args:
        samples: Images, as `open_images` takes them.
        training: The images that the model was trained on.
        output: A picture to write or replace, as `NeighboursEvaluation.picture` makes it: a .png, .jpg or .webp file;
            None writes none.
        **options: What is shown, the features, how many images and at which size, as `NeighboursEvaluation` takes them.

    Returns:
        The memorisation score, the median ratio of distances, and the number of copies; see `Neighbours`.

    Raises:
        InputError: If images can't be read or don't fit, or there are fewer training images than neighbours.
        CheckpointError: If weights are missing or damaged.
        ConfigError: If a name is unknown, or a package is missing.
    """
    if output is not None:
        check_picture(output)
    evaluation = NeighboursEvaluation(samples, training, **options)
    evaluation.compute()
    found = evaluation.find()
    if output is not None:
        write_picture(output, evaluation.picture(found))
    return evaluation.report(found)


class NeighboursEvaluation(SharedFeatures):
    """An evaluation in two steps, so that processes can share the first: `compute` the features, then `find`.

    Everything that can be checked is checked when it is made.

    Args:
        samples: Images, as `open_images` takes them.
        training: The images that the model was trained on.
        neighbours: How many training images are shown of each sample.
        rows: How many samples are shown.
        order: Which ones: "nearest" shows those that are most like a copy, "given" the first.
        features: The feature extractor, as `load_extractor` takes it, or a loaded one.
        count: How many samples, from the first on; None takes all.
        training_count: Likewise of the training images.
        resolution: The side of the squares that images are cropped and resized to, as in training; None takes them as
            they are.
        device: Where features are computed.
        cache: Where features are kept; None is `default_cache()`.

    Raises:
        InputError: If images can't be read or don't fit, or there are fewer training images than neighbours.
        CheckpointError: If weights are missing or damaged.
        ConfigError: If a name is unknown, or a package is missing.
    """

    def __init__(
        self,
        samples: str | Path | ImageSet,
        training: str | Path | ImageSet,
        *,
        neighbours: int = SHOWN_NEIGHBOURS,
        rows: int = ROWS,
        order: str = "nearest",
        features: str | FeatureExtractor = DEFAULT_FEATURES,
        count: int | None = None,
        training_count: int | None = None,
        resolution: int | None = None,
        device: torch.device | str = "cpu",
        cache: str | Path | None = None,
    ) -> None:
        self.samples, self.training = (
            open_images(source, resolution) if isinstance(source, (str, Path)) else source
            for source in (samples, training)
        )
        self.count, self.training_count = counted(self.samples, count), counted(self.training, training_count)
        for name, value in (("neighbours", neighbours), ("rows", rows)):
            if value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        if order not in ORDERS:
            raise InputError(f"order is {order!r}; it must be {' or '.join(ORDERS)}")
        if self.training_count < max(2, neighbours):
            raise InputError(
                f"{self.training.name} has {self.training_count} training images; {neighbours} neighbours, and the "
                f"distance from one to another, need at least {max(2, neighbours)}"
            )
        check_sizes(self.samples, self.training)
        self.neighbours, self.rows, self.order, self.resolution = neighbours, rows, order, resolution
        self.extractor = load_extractor(features, device) if isinstance(features, str) else features
        folder = Path(cache) if cache else default_cache()
        self._stores = [
            FeatureStore(images, self.extractor, number, folder)
            for images, number in ((self.samples, self.count), (self.training, self.training_count))
        ]

    def stores(self) -> list[FeatureStore]:
        """The features of the samples and those of the training images."""
        return self._stores

    def find(self) -> Neighbours:
        """Search for the neighbours by the features, all of which must be there."""
        samples, training = (store.rows("pool") for store in self._stores)
        return find_neighbours(samples, training, self.neighbours)

    def report(self, found: Neighbours) -> Report:
        """The numbers, with a note on each sample of the picture that says which training image is nearest."""
        training = Path(self.training.name).stem
        protocol = (self.extractor.name, self.extractor.resize, str(self.count), training)
        results = [
            Result("memorisation", protocol, found.memorisation),
            Result("distance_ratio_median", protocol, float(found.ratios.median())),
            Result("copies", protocol, int((found.ratios == 0).sum())),
        ]
        facts = {
            "samples": self.samples.name,
            "count": self.count,
            "training": self.training.name,
            "training_count": self.training_count,
            "resolution": self.resolution,
            "features": self.extractor.name,
            "weights_sha256": self.extractor.identity,
            "resize": self.extractor.resize,
            "neighbours": self.neighbours,
            "device": self.extractor.device.type,
            "latentdiff": __version__,
            "torch": torch.__version__,
        }
        notes = [
            f"{image_name(self.samples, sample)} has the ratio {float(found.ratios[sample]):.3g} to "
            f"{image_name(self.training, int(found.places[sample, 0]))}"
            for sample in self.shown(found)
        ]
        return Report(results, facts, notes)

    def shown(self, found: Neighbours) -> list[int]:
        """The numbers of the samples that the picture shows."""
        order = found.ratios.argsort(stable=True) if self.order == "nearest" else torch.arange(self.count)
        numbers: list[int] = order[: self.rows].tolist()
        return numbers

    def picture(self, found: Neighbours) -> Image.Image:
        """A row for each shown sample: the sample, and its nearest training images, the nearest first.

        Below the sample stand the ratio of distances and its name, below the others their names, all without suffix.
        """
        cells, captions = [], []
        for sample in self.shown(found):
            cells.append(self.samples.pixels(sample))
            captions.append(f"{float(found.ratios[sample]):.2f} {Path(image_name(self.samples, sample)).stem}")
            for place in found.places[sample].tolist():
                cells.append(self.training.pixels(place))
                captions.append(Path(image_name(self.training, place)).stem)
        images = [Image.fromarray(pixels) for pixels in cells]
        scale = max(1, -(-LEAST_SIDE // min(images[0].size)))
        return image_grid(images, columns=self.neighbours + 1, captions=captions, scale=scale, margin=MARGIN)


def check_picture(path: str | Path) -> None:
    """InputError unless a picture can be written to a path."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN_KINDS:
        raise InputError(f"the picture is to be {path}; give a name that ends in {', '.join(WRITTEN_KINDS)}")
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; choose another output path")
    check_writable(path)


def write_picture(path: str | Path, picture: Image.Image) -> None:
    """Write a picture, completely or not at all; raises as `check_picture`."""
    check_picture(path)
    with atomic_file(path) as aside:
        picture.save(aside, WRITTEN_KINDS[Path(path).suffix.lower()])


def find_neighbours(samples: Rows, training: Rows, neighbours: int) -> Neighbours:
    """The training images that are nearest to each sample.

    Args:
        samples: Features of the samples.
        training: Features of the training images.
        neighbours: How many are kept of each sample.

    Raises:
        InputError: If there are fewer training images, or all of them are copies of one.
    """
    if len(training) < neighbours:
        raise InputError(f"{len(training)} training images are given; {neighbours} neighbours need as many")
    squares, places = _nearest(samples, training, neighbours, copies=True)
    seen, own = np.unique(places[:, 0].numpy(), return_inverse=True)
    apart = _nearest(ChosenRows(training, seen), training, 1, copies=False)[0][:, 0]
    if apart.isinf().any():
        raise InputError("all training images have equal features; memorisation needs at least two that differ")
    return Neighbours(places, squares.sqrt(), apart[own].sqrt())


def _nearest(rows: Rows, others: Rows, count: int, copies: bool) -> tuple[Tensor, Tensor]:
    """The squared distances and places (N, count) of the nearest others of each row, with or without its copies."""

    def of_block(numbers: range) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(rows.take(np.array(numbers)).astype(np.float64))
        nearest, places = torch.empty(len(x), 0, dtype=x.dtype), torch.empty(len(x), 0, dtype=torch.long)
        start = 0
        for y in blocks(others):
            squares = squares_between(x, y)
            if not copies:
                squares = torch.where(squares > 0, squares, torch.inf)
            here = torch.arange(start, start + len(y)).expand(len(x), -1)
            nearest, places = torch.cat([nearest, squares], dim=1), torch.cat([places, here], dim=1)
            nearest, kept = nearest.topk(min(count, nearest.shape[1]), dim=1, largest=False)
            places, start = places.gather(1, kept), start + len(y)
        return nearest, places

    numbers = range(len(rows))
    starts = [numbers[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    squares, places = zip(*map_in_threads(of_block, starts, torch.device("cpu")), strict=True)
    return torch.cat(squares), torch.cat(places)
