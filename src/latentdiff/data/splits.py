"""Splits of a folder: sub-folders such as `train` and `test`, as in the folders of Hugging Face's imagefolder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from latentdiff.data.options import DataOptions
from latentdiff.errors import ConfigError, InputError
from latentdiff.registry import nearest

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}
# With a year, as in train2017, a domain, as in trainA, or its content, as in test_images and images_val.
_WHAT = "set|split|data|images?|imgs?"
_NAME = re.compile(rf"(?:(?:{_WHAT})[-_])?({'|'.join(_SPLIT_OF)})(?:[-_]?(?:[0-9]+|[ab]|{_WHAT}))?", re.IGNORECASE)


def split_name(name: str) -> str | None:
    """The split that a sub-folder of this name is: "train", "validation" or "test"; None if it is none."""
    match = _NAME.fullmatch(name)
    return None if match is None else _SPLIT_OF[match[1].lower()]


def find_splits(root: Path, images: Sequence[str]) -> dict[str, list[str]]:
    """The folders of each split in a folder, empty if it has no splits.

    A folder has splits if all of its images are in sub-folders with names of splits, or if it has one sub-folder alone
    with images, as in `images/train` and `images/val`, of which that holds.

    Args:
        root: The folder.
        images: The paths of its images, relative to it, with slashes.

    Returns:
        The name of a split, "train", "validation" or "test", to its folders, relative to `root`.

    Raises:
        InputError: If two splits lie beside other images, so that they may be classes as well.
    """
    above = _folder_above(images)
    found: dict[str, list[str]] = {}
    other: str | None = None
    for image in images:
        first, slash, _ = image[len(above) :].partition("/")
        split = split_name(first) if slash else None
        if split is None:
            other = other or image
        elif above + first not in found.setdefault(split, []):
            found[split].append(above + first)
    if other is not None and len(found) > 1:
        names = " and ".join(folders[0] for folders in found.values())
        raise InputError(
            f"{root} has {names}, which are names of splits, beside {other}; give the folder of the images to train on "
            "as train_data_dir, or the classes in metadata.jsonl"
        )
    return {} if other is not None else found


def _folder_above(images: Sequence[str]) -> str:
    """The sub-folder that holds all images and is no split itself, with a slash at its end; empty if there is none."""
    above = ""
    while images:
        first, slash, _ = images[0][len(above) :].partition("/")
        longer = f"{above}{first}/"
        if not slash or split_name(first) or not all(image.startswith(longer) for image in images):
            return above
        above = longer
    return above


def chosen_split(root: Path, splits: dict[str, list[str]], options: DataOptions) -> list[str]:
    """The sub-folders of the split that the recipe asks for; none if the folder has no splits.

    Raises:
        ConfigError: If the recipe names a split, and the folder has none.
        InputError: If the folder has other splits than the one that is asked for.
    """
    if not splits:
        if options.given_split():
            raise ConfigError(
                f"dataset_split is given, but {root} is not a data set of Hugging Face and has no sub-folders of "
                "splits such as train and test; leave it out"
            )
        return []
    wanted = split_name(options.dataset_split)
    if wanted is None or wanted not in splits:
        raise InputError(
            f"{root} has no split {options.dataset_split!r}; {nearest(options.dataset_split, list(splits))}, as "
            "dataset_split"
        )
    return splits[wanted]
