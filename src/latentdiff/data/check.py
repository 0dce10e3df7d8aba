"""Checking a data set: all of it is read once, and the report has its content and every file that can't be used."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
from tqdm.auto import tqdm

from latentdiff.data.images import Images
from latentdiff.data.label_maps import (
    BINARY,
    IGNORE_INDEX,
    NO_CLASS,
    check_map_size,
    check_no_photograph,
    is_binary,
    read_training_map,
)
from latentdiff.data.layouts import image_frame, upright_box
from latentdiff.errors import LatentDiffError
from latentdiff.io.arrays import kind_of, read_values
from latentdiff.io.boxes import clip
from latentdiff.io.images import centre_box, load_image
from latentdiff.io.stored import Stored, read_into_memory
from latentdiff.types import JSON

AT_ONCE = 1024  # images that the workers are given together
MAX_CLASSES = IGNORE_INDEX  # of label maps for which nobody has said the number of classes
Read = TypeVar("Read")


class Attempt(Protocol):
    """Reads something of a file, or notes for that file why it can't be read."""

    def __call__(self, what: Stored | str, read: Callable[[], Read], /) -> Read | None:
        """The result of `read`, or None if it raises an error of this package."""


@dataclass
class AnnotationFormat:
    """The format in which training would read boxes and label maps.

    Attributes:
        box_format: The format of the boxes, "xywh" or "xyxy".
        pixels: Whether boxes are in pixels; otherwise they are relative to the image.
        num_classes: The number of classes in label maps; None if nobody has said it.
        palette: The colours of these classes; None if there are none.
    """

    box_format: str = "xywh"
    pixels: bool = True
    num_classes: int | None = None
    palette: Sequence[Sequence[int]] | None = None


@dataclass
class ImageCheck:
    """The result of checking one image.

    Attributes:
        bad: The files that can't be used, each with the reason.
        digest: The SHA-256 of the image file; empty if it can't be read.
        size: Height and width of the image; None if it can't be decoded.
        outside: The number of boxes that are outside the centre square.
        classes: The number of pixels of each class in the label map.
    """

    bad: list[tuple[str, str]] = field(default_factory=list)
    digest: str = ""
    size: tuple[int, int] | None = None
    outside: int = 0
    classes: Counter[int] = field(default_factory=Counter)


def check_data(images: Images, annotations: AnnotationFormat, workers: int) -> JSON:
    """Check a data set.

    Args:
        images: The images, with the resolution and the channels of training.
        annotations: The format of boxes and label maps.
        workers: The number of threads that read.

    Returns:
        A report of plain values: `images`, `bad_files`, what was left out as `notes` (of which a run warns) and
        `ignored`, what would end a run as `errors`, and a section for each thing that is known of the images.
    """
    records = images.records
    errors: list[str] = []
    checks = list(_check_all(images, annotations, workers))
    bad = [*records.damaged, *(found for check in checks for found in check.bad)]
    report: JSON = {
        "source": str(images.root),
        "images": len(images),
        "bad_files": [{"file": file, "reason": reason} for file, reason in bad],
        "notes": list(records.notes),
        "ignored": list(records.ignored),
        "errors": errors,
        "sizes": _sizes([check.size for check in checks if check.size], images.resolution),
        "duplicates": _duplicates(images.files, [check.digest for check in checks]),
    }
    if images.labels is not None:
        names = images.class_names
        report["classes"] = _counted(names[label] if names else str(label) for label in images.labels)
    report["captions"] = {"number": 0} if images.captions is None else _captions(images.captions)
    if images.objects is not None:
        report["objects"] = _objects(images.objects, sum(check.outside for check in checks))
    if images.label_maps is not None:
        pixels = sum((check.classes for check in checks), Counter())
        report["label_maps"] = _maps(pixels)
        if set(pixels) == {IGNORE_INDEX}:
            errors.append(NO_CLASS)
        if is_binary(set(pixels)):
            errors.append(BINARY)
    return report


def _check_all(images: Images, annotations: AnnotationFormat, workers: int) -> Iterator[ImageCheck]:
    """The results of all images in their order, with a progress bar."""
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(images), desc="reading", unit="image") as progress:
        for start in range(0, len(images), AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, len(images)))
            for check in pool.map(lambda number: _check_image(images, number, annotations), numbers):
                progress.update()
                yield check


def _check_image(images: Images, number: int, annotations: AnnotationFormat) -> ImageCheck:
    """Check one image with its boxes and its label map."""
    file, check = images.files[number], ImageCheck()

    def attempt(what: Stored | str, read: Callable[[], Read], /) -> Read | None:
        """The result of `read`, or None if it raises an error, which is then noted for the file `what`."""
        try:
            return read()
        except LatentDiffError as error:
            check.bad.append((str(what), str(error)))
            return None

    check.size = attempt(file, lambda: _decode(images, file, check))
    if images.objects is not None and check.size is not None:
        _check_boxes(images, number, annotations, check, attempt)
    if images.label_maps is not None:
        path, num_classes = images.label_maps[number], annotations.num_classes
        found = attempt(path, lambda: read_training_map(path, num_classes or MAX_CLASSES, annotations.palette))
        if found is not None:
            values, pixels = np.unique(found.numpy(), return_counts=True)
            check.classes.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
            if num_classes is None:
                attempt(path, lambda: check_no_photograph(found, path))
            if check.size is not None:
                attempt(path, lambda: check_map_size(path, file))
    return check


def _check_boxes(
    images: Images, number: int, annotations: AnnotationFormat, check: ImageCheck, attempt: Attempt
) -> None:
    """Check the boxes of an image, and count those that are outside the centre square."""
    assert images.objects is not None and check.size is not None
    height, width = check.size
    left, top, right, bottom = centre_box(height, width)
    square = (left / width, top / height, right / width, bottom / height)
    file = images.files[number]
    frame = attempt(file, lambda: image_frame(images, number))
    if frame is None:
        return
    for place, item in enumerate(images.objects[number]):
        name = f"box of object {place}"
        read = partial(upright_box, item, frame, annotations.box_format, annotations.pixels, name)
        box = attempt(file, read)
        check.outside += box is not None and clip(box, square) is None


def _decode(images: Images, file: Stored, check: ImageCheck) -> tuple[int, int]:
    """Decode an image as training would, note its digest, and return its height and width."""
    loaded = read_into_memory(file)
    check.digest = hashlib.sha256(loaded.content).hexdigest()
    if images.channels == 3 and kind_of(loaded) == "pillow":
        width, height = load_image(loaded, str(loaded)).size
    else:
        height, width = read_values(loaded, images.channels, images.value_range).shape[:2]
    return height, width


def _sizes(sizes: list[tuple[int, int]], resolution: int) -> JSON:
    """The spread of widths and heights, and the number of images with a side shorter than the resolution."""
    if not sizes:
        return {}
    heights, widths = np.array(sizes).T
    small = int((np.minimum(heights, widths) < resolution).sum())
    named = {"width": widths, "height": heights}
    spread = {
        name: {"least": int(v.min()), "median": float(np.median(v)), "most": int(v.max())} for name, v in named.items()
    }
    return {**spread, f"smaller_than_{resolution}": small}


def _duplicates(files: Sequence[Stored], digests: Sequence[str]) -> list[list[str]]:
    """The groups of files that have the same bytes."""
    groups = defaultdict(list)
    for file, digest in zip(files, digests, strict=True):
        groups[digest].append(str(file))
    return [group for digest, group in groups.items() if digest and len(group) > 1]


def _counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _spread(numbers: Sequence[int]) -> dict[str, float]:
    return {"least": min(numbers), "mean": round(sum(numbers) / len(numbers), 2), "most": max(numbers)}


def _captions(captions: Sequence[str | list[str]]) -> JSON:
    """The section of the report on captions."""
    several = [text if isinstance(text, list) else [text] for text in captions]
    flat = [str(text) for texts in several for text in texts]
    return {
        "number": len(flat),
        "different": len(set(flat)),
        "per_image": _spread([len(texts) for texts in several]),
        "words": _spread([len(text.split()) for text in flat]),
    }


def _objects(objects: Sequence[Sequence[JSON]], outside: int) -> JSON:
    """The section of the report on objects."""
    names = [str(item.get("class")) for items in objects for item in items if isinstance(item, dict)]
    per_image = _spread([len(items) for items in objects])
    return {"number": len(names), "per_image": per_image, "outside_the_square": outside, "classes": _counted(names)}


def _maps(pixels: Counter[int]) -> JSON:
    """The section of the report on label maps: the share of each class in all pixels."""
    total = sum(pixels.values()) or 1
    shares = {
        str(number): round(count / total, 6) for number, count in sorted(pixels.items()) if number != IGNORE_INDEX
    }
    return {"share_of_pixels": shares, "ignored": round(pixels[IGNORE_INDEX] / total, 6)}
