"""A look at a data set: what a recipe has to know of it, told from a part of the images."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentdiff.bulk import processes
from latentdiff.data.check import check_data
from latentdiff.data.images import Images
from latentdiff.errors import BadFileError, InputError
from latentdiff.io.arrays import extent_of, kind_of, size_of
from latentdiff.io.stored import Stored
from latentdiff.training.data import meaning_of, open_to_check
from latentdiff.training.first_stage.options import FirstStageDataOptions
from latentdiff.types import JSON

LOOKED_AT = 256  # images that are decoded
FEWEST = 16  # images of which a training can hold some out
FEWEST_OF_A_CLASS = 4  # images, on average; else classes are rather names of images
BYTES = ("uint8", "bool")
# What can be known of images, and the conditioning that it is for; the first one is proposed.
CONDITIONS = {
    "captions": "text-to-image",
    "objects": "layout-to-image",
    "label maps": "semantic-to-image",
    "classes": "class-to-image",
}


@dataclass(frozen=True)
class Survey:
    """What is known of a data set.

    Attributes:
        options: How its images are read, with the range of their values where it has to be given.
        images: The images.
        channels: Their channels in training.
        kind: What their values are, such as "RGB of 8 bits".
        plain: Whether they are RGB of 8 bits, which metrics of samples take.
        sides: The shortest, median and longest of the images' shorter sides in pixels.
        known: What is known of them beside the pixels, in the order in which it is proposed as a condition.
        facts: Lines to read.
    """

    options: FirstStageDataOptions
    images: Images
    channels: int
    kind: str
    plain: bool
    sides: tuple[int, int, int]
    known: Sequence[str]
    facts: Sequence[str]

    @property
    def tasks(self) -> list[str]:
        """What can be trained on these images without more being known of them, the proposed one first."""
        found = [CONDITIONS[name] for name in self.known]
        return [*found, "unconditional", "super-resolution", "inpaint"]


def survey(options: FirstStageDataOptions) -> Survey:
    """Look at a data set as `latentdiff data check` does, but at no more than 256 of its images.

    Args:
        options: Where the images are and how they are read.

    Raises:
        InputError: If there are no images or too few, too many of them can't be decoded, or something that is known of
            them would end a run.
        ConfigError: If an option does not go with the data.
    """
    images = open_to_check(options)
    if len(images) < FEWEST:
        raise InputError(
            f"{images.root} holds {len(images)} image{'s' * (len(images) != 1)}, too few to train on some and look at "
            f"others; give at least {FEWEST}"
        )
    places = sorted(set(np.linspace(0, len(images) - 1, LOOKED_AT).astype(int).tolist()))
    part = Images(images.records.subset(places), images.resolution, images.channels, images.value_range)
    kinds = _extents(part)
    if options.value_range is None and (bounds := _range_of(kinds)):
        options = options.replace(value_range=bounds)
        images.value_range = part.value_range = bounds
    annotations, _ = meaning_of(images, options)
    report = check_data(part, annotations, processes.cores())
    bad = report["bad_files"]
    if len(bad) > options.max_bad_share * len(part):
        raise InputError(
            f"{images.root}: {len(bad)} of {len(part)} images that were looked at can't be used, the first is "
            f"{bad[0]['file']} ({bad[0]['reason']}); see latentdiff data check {images.root}"
        )
    if report["errors"]:
        raise InputError(f"{images.root}: {report['errors'][0]}")
    sides = sorted(min(size) for size in _sizes(part.files))
    spread = (sides[0], int(statistics.median(sides)), sides[-1])
    plain = images.channels == 3 and options.value_range is None
    known, notes = _known(images, report)
    kind = _kind(images.channels, kinds)
    looked = "" if len(part) == len(images) else f", {len(part)} of them looked at"
    facts = [
        f"{len(images):,} images{looked}: {kind}, shorter sides of {spread[0]} to {spread[2]} pixels",
        f"known of them: {', '.join(known) or 'nothing but the pixels'}",
        *notes,
        *report["notes"],
    ]
    if bad:
        facts.append(f"{len(bad)} can't be used, which training passes over; see latentdiff data check {images.root}")
    return Survey(options, images, images.channels, kind, plain, spread, known, facts)


def _extents(images: Images) -> dict[str, tuple[float, float]]:
    """The least and greatest value of the images by the type of their values; of RGB files of 8 bits it is known."""
    found: dict[str, tuple[float, float]] = {}
    for file in images.files:
        try:
            if images.channels == 3 and kind_of(file) == "pillow":
                kind, low, high = "uint8", 0.0, 255.0
            else:
                kind, low, high = extent_of(file, images.channels)
        except BadFileError:
            continue
        least, most = found.get(kind, (low, high))
        found[kind] = (min(least, low), max(most, high))
    return found


def _range_of(kinds: dict[str, tuple[float, float]]) -> tuple[float, float] | None:
    """The range that has to be given, or had better be, as the values fill a small part of their type's.

    Raises:
        InputError: If files have values of several types, of which no range fits all.
    """
    deep = {kind: bounds for kind, bounds in kinds.items() if kind not in BYTES}
    if not deep:
        return None
    if len(kinds) > 1:
        raise InputError(
            f"the images have values of several types ({', '.join(sorted(kinds))}), of which no range fits all; give "
            "--value_range, or sort them by type"
        )
    ((kind, (low, high)),) = deep.items()
    if kind.startswith("uint"):
        filled = kind == "uint16" and high >= 2**15
        return None if filled else (0.0, float(2 ** int(high).bit_length() - 1))
    if kind.startswith("float") and low >= 0 and 0.5 <= high <= 1:
        return None
    return (low, high) if low < high else (low, low + 1)


def _kind(channels: int, kinds: dict[str, tuple[float, float]]) -> str:
    """What the values are, in words."""
    colours = {1: "one channel", 3: "RGB"}.get(channels, f"{channels} channels")
    of = [f"{kind} from {low:g} to {high:g}" for kind, (low, high) in kinds.items() if kind not in BYTES]
    return f"{colours} of {', '.join(of) or '8 bits'}"


def _sizes(files: Sequence[Stored]) -> list[tuple[int, int]]:
    """Height and width of the images that can be decoded."""
    found = []
    for file in files:
        try:
            found.append(size_of(file))
        except BadFileError:
            continue
    return found


def _known(images: Images, report: JSON) -> tuple[list[str], list[str]]:
    """What is known of the images, of `CONDITIONS` in its order, and lines on what isn't taken for a condition."""
    there = {
        "captions": images.captions is not None,
        "objects": images.objects is not None and bool(report["objects"]["number"]),
        "label maps": images.label_maps is not None,
        "classes": images.num_classes > 1,
    }
    notes = []
    if there["classes"] and images.num_classes * FEWEST_OF_A_CLASS > len(images):
        there["classes"] = False
        notes.append(f"{images.num_classes} classes of {len(images)} images are too many to be learned, left out")
    return [name for name in CONDITIONS if there[name]], notes
