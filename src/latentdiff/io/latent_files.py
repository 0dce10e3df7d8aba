"""The files of cached latents: the rows, and what says of which images and first stage they are."""

from __future__ import annotations

import json
from pathlib import Path

from latentdiff.types import JSON

MOMENTS, META = "moments.npy", "meta.json"  # the rows, and their stamp
PLAN, SHARDS = "plan.json", "shards"  # of an unfinished cache: its stamp, and a file for each shard that is done


def stamp_of(folder: Path, name: str = META) -> JSON:
    """The stamp of the cache in a folder, which says what it was made from; empty if there is no cache."""
    try:
        stamp = json.loads((folder / name).read_text(encoding="utf-8"))
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def read_bad(found: object, images: range) -> dict[int, str]:
    """What a file says of images that can't be decoded: the reasons, by the images' numbers.

    Raises:
        ValueError: If that is no mapping, or has other numbers than those of `images`.
    """
    if not isinstance(found, dict):
        raise ValueError(f"the images that can't be decoded are {found!r}, not a mapping of numbers to reasons")
    bad = {int(image): str(reason) for image, reason in found.items()}
    strange = [image for image in bad if image not in images]
    if strange:
        raise ValueError(f"image {strange[0]} is none of {images}")
    return bad
