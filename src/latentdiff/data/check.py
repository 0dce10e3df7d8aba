"""Reading all of a data set once: what is in it, and every file that training could not use."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from latentdiff.data.images import Images
from latentdiff.data.label_maps import IGNORE_INDEX, read_training_map
from latentdiff.errors import LatentDiffError
from latentdiff.io.arrays import kind_of, read_values
from latentdiff.io.boxes import clip, parse_box
from latentdiff.io.images import centre_box, load_image
from latentdiff.io.stored import Stored, read_into_memory

AT_ONCE = 1024  # images handed to the workers together
ANY_CLASS = IGNORE_INDEX  # of label maps whose number of classes nobody has said


@dataclass
class Meant:
    """How training would read what is known of the images.

    Attributes:
        box_format: "xywh" or "xyxy".
        pixels: Whether boxes are in pixels.
        num_classes: Classes of label maps; None if nobody has said.
        palette: Their colours, or None.
    """

    box_format: str = "xywh"
    pixels: bool = True
    num_classes: int | None = None
    palette: Sequence[Sequence[int]] | None = None


@dataclass
class Look:
    """What was found at one image."""

    bad: list[tuple[str, str]] = field(default_factory=list)
    digest: str = ""
    size: tuple[int, int] | None = None
    outside: int = 0  # boxes that the centre square leaves nothing of
    classes: Counter[int] = field(default_factory=Counter)  # pixels of a label map


def check_data(images: Images, meant: Meant, workers: int) -> dict[str, Any]:
    """A report of plain values: `images`, `bad_files`, and a section for whatever is known of the images.

    Args:
        images: Their resolution and channels are those of training.
        meant: How boxes and label maps are meant.
        workers: Threads that read.
    """
    records = images.records
    looks = list(_looks(images, meant, workers))
    bad = [*records.damaged, *(found for look in looks for found in look.bad)]
    report: dict[str, Any] = {
        "source": str(images.root),
        "images": len(images),
        "bad_files": [{"file": file, "reason": reason} for file, reason in bad],
        "notes": list(records.notes),
        "sizes": _sizes([look.size for look in looks if look.size], images.resolution),
        "duplicates": _duplicates(images.files, [look.digest for look in looks]),
    }
    if images.labels is not None:
        names = images.class_names
        report["classes"] = _counted(names[label] if names else str(label) for label in images.labels)
    if images.captions is not None:
        report["captions"] = _captions(images.captions)
    if images.objects is not None:
        report["objects"] = _objects(images.objects, sum(look.outside for look in looks))
    if images.label_maps is not None:
        report["label_maps"] = _maps(sum((look.classes for look in looks), Counter()))
    return report


def _looks(images: Images, meant: Meant, workers: int) -> Iterator[Look]:
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(images), desc="reading", unit="image") as progress:
        for start in range(0, len(images), AT_ONCE):
            numbers = range(start, min(start + AT_ONCE, len(images)))
            for look in pool.map(lambda number: _look(images, number, meant), numbers):
                progress.update()
                yield look


def _look(images: Images, number: int, meant: Meant) -> Look:
    file, look = images.files[number], Look()

    def attempt(what: Stored | str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except LatentDiffError as error:
            look.bad.append((str(what), str(error)))
            return None

    look.size = attempt(file, lambda: _decode(images, file, look))
    if images.objects is not None and look.size is not None:
        height, width = look.size
        left, top, right, bottom = centre_box(height, width)
        square = (left / width, top / height, right / width, bottom / height)
        for place, item in enumerate(images.objects[number]):
            box = attempt(file, partial(_box, item, meant, look.size, f"box of object {place}"))
            look.outside += box is not None and clip(box, square) is None
    if images.label_maps is not None:
        path = images.label_maps[number]
        found = attempt(path, lambda: read_training_map(path, meant.num_classes or ANY_CLASS, meant.palette))
        if found is not None:
            values, pixels = np.unique(found.numpy(), return_counts=True)
            look.classes.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
            if look.size is not None and tuple(found.shape) != look.size:
                sizes = f"{found.shape[1]}x{found.shape[0]} pixels, its image {look.size[1]}x{look.size[0]}"
                look.bad.append((str(path), f"label map {path} is {sizes}; give a map of the image's size"))
    return look


def _decode(images: Images, file: Stored, look: Look) -> tuple[int, int]:
    """Height and width of an image that was decoded as training would."""
    file = loaded = read_into_memory(file)
    look.digest = hashlib.sha256(loaded.content).hexdigest()
    if images.channels == 3 and kind_of(file) == "pillow":
        width, height = load_image(file, str(file)).size
    else:
        height, width = read_values(file, images.channels, images.value_range).shape[:2]
    return height, width


def _box(item: Any, meant: Meant, size: tuple[int, int], name: str) -> Any:
    box = item.get("box") if isinstance(item, dict) else None
    return parse_box(box, meant.box_format, size if meant.pixels else None, name=name)


def _sizes(sizes: list[tuple[int, int]], resolution: int) -> dict[str, Any]:
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
    """Groups of files with the same bytes."""
    groups = defaultdict(list)
    for file, digest in zip(files, digests, strict=True):
        groups[digest].append(str(file))
    return [group for digest, group in groups.items() if digest and len(group) > 1]


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _spread(numbers: Sequence[int]) -> dict[str, float]:
    return {"least": min(numbers), "mean": round(sum(numbers) / len(numbers), 2), "most": max(numbers)}


def _captions(captions: Sequence[Any]) -> dict[str, Any]:
    several = [text if isinstance(text, list) else [text] for text in captions]
    flat = [str(text) for texts in several for text in texts]
    return {
        "number": len(flat),
        "different": len(set(flat)),
        "per_image": _spread([len(texts) for texts in several]),
        "words": _spread([len(text.split()) for text in flat]),
    }


def _objects(objects: Sequence[Any], outside: int) -> dict[str, Any]:
    names = [str(item.get("class")) for items in objects for item in items if isinstance(item, dict)]
    per_image = _spread([len(items) for items in objects])
    return {"number": len(names), "per_image": per_image, "outside_the_square": outside, "classes": _counted(names)}


def _maps(pixels: Counter[int]) -> dict[str, Any]:
    total = sum(pixels.values()) or 1
    shares = {
        str(number): round(count / total, 6) for number, count in sorted(pixels.items()) if number != IGNORE_INDEX
    }
    return {"share_of_pixels": shares, "ignored": round(pixels[IGNORE_INDEX] / total, 6)}
