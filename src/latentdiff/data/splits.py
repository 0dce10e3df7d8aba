"""Splits of a folder: sub-folders such as `train` and `test`, as in the folders of Hugging Face's imagefolder."""

from __future__ import annotations

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


def split_name(name: str) -> str | None:
    """The split that a sub-folder of this name is: "train", "validation" or "test"; None if it is none."""
    return _SPLIT_OF.get(name.lower())


def find_splits(root: Path, images: Sequence[str]) -> dict[str, list[str]]:
    """The sub-folders of each split in a folder, empty if it has no splits.

    A folder has splits if all of its images are in sub-folders with names of splits.

    Args:
        root: The folder.
        images: The paths of its images, relative to it, with slashes.

    Raises:
        InputError: If two splits lie beside other images, so that they may be classes as well.
    """
    found: dict[str, list[str]] = {}
    other: str | None = None
    for image in images:
        first, slash, _ = image.partition("/")
        split = split_name(first) if slash else None
        if split is None:
            other = other or image
        elif first not in found.setdefault(split, []):
            found[split].append(first)
    if other is not None and len(found) > 1:
        names = " and ".join(folders[0] for folders in found.values())
        raise InputError(
            f"{root} has {names}, which are names of splits, beside {other}; give the folder of the images to train on "
            "as train_data_dir, or the classes in metadata.jsonl"
        )
    return {} if other is not None else found


def chosen_split(root: Path, splits: dict[str, list[str]], options: DataOptions) -> list[str] | None:
    """The sub-folders of the split that the recipe asks for; None if the folder has no splits.

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
        return None
    wanted = split_name(options.dataset_split)
    if wanted is None or wanted not in splits:
        raise InputError(
            f"{root} has no split {options.dataset_split!r}; {nearest(options.dataset_split, list(splits))}, as "
            "dataset_split"
        )
    return splits[wanted]
