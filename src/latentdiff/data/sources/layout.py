"""What layouts of published data sets have in common: splits of several names, and files in one of some places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from latentdiff.config import check
from latentdiff.data.annotations import annotate
from latentdiff.data.folder import read_folder
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.errors import InputError
from latentdiff.registry import nearest

SPLITS = (("train", "training"), ("validation", "val", "valid"), ("test", "testing"))
YEAR = re.compile(r"[_-]?(19|20)\d\d$")


def names_of_split(name: str) -> tuple[str, ...]:
    """All names of a split, such as "val" and "validation".

    Raises:
        ConfigError: If it is none.
    """
    found = next((names for names in SPLITS if name in names), ())
    known = [name for names in SPLITS for name in names]
    check(bool(found), f"data.dataset_split is {name!r}; {nearest(name, known)}")
    return found


def root_and_split(options: DataOptions, below: Sequence[str] = ("",)) -> tuple[Path, Path]:
    """The folder of a data set, and that of the images of the split that is asked for.

    Args:
        options: Their train_data_dir is the data set's folder, or that of a split's images.
        below: Where in the data set's folder those of the splits may be.

    Raises:
        InputError: If there is no such folder.
        ConfigError: If the split is none.
    """
    given = folder_of(options)
    if any(YEAR.sub("", given.name) in names for names in SPLITS):
        deep = len(Path(next((place for place in below if place and given.parent.name == place), "")).parts)
        return given.parents[deep], given
    names = names_of_split(options.dataset_split)
    for place in below:
        folders = sorted(path for path in (given / place).glob("*") if path.is_dir())
        for folder in folders:
            if YEAR.sub("", folder.name) in names:
                return given, folder
    looked = " or ".join(str(given / place / names[0]) for place in below)
    raise InputError(f"{given} has no folder of the split {options.dataset_split!r}, such as {looked}; give its folder")


def folder_of(options: DataOptions) -> Path:
    """The folder that train_data_dir names.

    Raises:
        InputError: If it is none.
    """
    folder = Path(str(options.train_data_dir))
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give that of the data set {options.source}")
    return folder


def first_there(places: Iterable[Path], what: str, root: Path) -> Path:
    """The first of some places at which there is something.

    Raises:
        InputError: If there is nothing at any.
    """
    looked = list(places)
    for place in looked:
        if place.exists():
            return place
    raise InputError(f"{root} has no {what}; looked for were {', '.join(map(str, looked))}")


def lines_of(path: Path) -> list[str]:
    """The lines of a list that aren't empty.

    Raises:
        InputError: If it can't be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise InputError(f"{path} can't be read ({reason}); give a text file of one name a line") from None


def read_images(options: DataOptions, images: Path, **found: object) -> Records:
    """The records of a split's folder of images, with the annotations or label maps that were found for it.

    Args:
        options: The options, of which those that are given win over what was found.
        images: The folder of images.
        **found: Values of `annotations` and `label_maps`.
    """
    given = {name: getattr(options, name) for name in found if options.given(name)}
    there = options.replace(
        source=None, source_options={}, train_data_dir=str(images), dataset_split="train", **{**found, **given}
    )
    return annotate(read_folder(there), there)
