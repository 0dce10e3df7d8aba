"""LAION's shards as img2dataset writes them (Schuhmann et al. 2022): captions, and facts by which images are chosen."""

from __future__ import annotations

from collections.abc import Mapping

from latentdiff.config import check
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.shards import read_shards
from latentdiff.errors import InputError
from latentdiff.types import JSON


def read_laion(options: DataOptions, *, min_size: int | None = None, max_watermark: float | None = None) -> Records:
    """The samples of shards; an image of which a fact isn't known that is asked for is left out.

    Args:
        options: Their train_data_dir is a folder of shards, one of them, or a pattern.
        min_size: The least width and height of the image as it was found, `original_width` and `original_height`.
        max_watermark: The greatest probability of a watermark, `pwatermark`.

    Raises:
        InputError: If there are no shards, or no image is left.
        ConfigError: If a setting is no such number.
    """
    limits: dict[str, tuple[object, tuple[str, ...]]] = {
        "min_size": (min_size, ("original_width", "original_height")),
        "max_watermark": (max_watermark, ("pwatermark",)),
    }
    for name, (value, _) in limits.items():
        fits = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0)
        check(fits, f"data.source_options.{name} is {value!r}; give a number of at least 0")
    records = read_shards(options)

    def chosen(row: JSON) -> bool:
        sides = [_number(row, name) for name in limits["min_size"][1]] if min_size is not None else []
        watermark = _number(row, "pwatermark") if max_watermark is not None else None
        large = all(side is not None and side >= (min_size or 0) for side in sides)
        return large and (max_watermark is None or (watermark is not None and watermark <= max_watermark))

    places = [place for place, row in enumerate(records.metadata) if chosen(row)]
    if not places:
        given = ", ".join(f"{name} {value}" for name, (value, _) in limits.items() if value is not None)
        raise InputError(f"no image of {records.root} is left by {given}; choose other limits")
    if len(places) == len(records.files):
        return records
    left_out = len(records.files) - len(places)
    records = records.subset(places)
    records.notes.append(f"{left_out} images of {records.root} are left out by data.source_options")
    return records


def _number(row: Mapping[str, object], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, (int, float)) else None
