"""LSUN, CelebA-HQ and FFHQ as the latent diffusion code has them: a folder of images, and a list of each split.

CelebA-HQ's images are numbered arrays of numpy, channels first, with a batch of one.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import IO, Literal

import numpy as np

from latentdiff.data.names import relative_name
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.sources.layout import SPLITS, folder_of, lines_of, names_of_split
from latentdiff.data.walk import walk
from latentdiff.errors import BadFileError, InputError
from latentdiff.io.stored import Stored

ALIKE = 3  # letters that the name of a list shares with that of its folder, such as cat_train.txt and cats


def read_list(options: DataOptions) -> Records:
    """The images that the list of a split names, such as `data/lsun/cat_train.txt` of the folder `data/lsun/cats`.

    Args:
        options: Their train_data_dir is the folder of images, in which or beside which the lists of the splits are; or
            it is a list itself, with the folder beside it.

    Raises:
        InputError: If there is no list, or it names what isn't there.
        ConfigError: If the split is none.
    """
    given = Path(str(options.train_data_dir))
    if given.suffix == ".txt" and given.is_file():
        root, listed = _folder_of_list(given), given
    else:
        root = folder_of(options)
        listed = _list_of_folder(root, options.dataset_split)
    found = walk(root)
    there = {relative_name(path, root): path for path in found.images}
    names = [line.replace("\\", "/").removeprefix("./") for line in lines_of(listed)]
    absent = [name for name in names if name not in there]
    if absent or not names:
        what = f"names {len(absent)} images that aren't in {root}, the first is {absent[0]}" if absent else "is empty"
        raise InputError(f"{listed} {what}; give the list of these images")
    paths = [there[name] for name in names]
    files: list[Stored] = [FirstOfBatch(path) if path.suffix == ".npy" else path for path in paths]
    records = Records(root, files, watched=[listed, *paths])
    if len(names) < len(found.images):
        records.ignored.append(f"{len(found.images) - len(names)} images of {root} are not in {listed}")
    return records


@dataclass(frozen=True, slots=True)
class FirstOfBatch:
    """An array of numpy (1, C, H, W) or (C, H, W), read as one of (H, W, C); others are read as they are.

    Attributes:
        path: The file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """A stream of the array's file with the channels last."""
        try:
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise BadFileError(f"{self.path} is not an array of numpy ({error}); replace it") from None
        if array.ndim == 4 and len(array) == 1:
            array = array[0]
        if array.ndim == 3 and len(array) < min(array.shape[1:]):
            array = array.transpose(1, 2, 0)
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(array))
        stream.seek(0)
        return stream

    def __str__(self) -> str:
        return str(self.path)


def _alike(one: str, other: str) -> int:
    """How many letters two names begin with alike; 0 for too few."""
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.lower(), other.lower(), strict=False)))
    return shared if shared >= min(ALIKE, len(one), len(other)) else 0


def _without_split(stem: str, names: tuple[str, ...]) -> str | None:
    """What the name of a list begins with before its split, None if it is of no such split."""
    end = next((name for name in names if stem.lower().endswith(name)), None)
    return None if end is None else stem[: -len(end)].rstrip("_-.")


def _list_of_folder(root: Path, split: str) -> Path:
    """The list of a split of a folder's images: in it, or beside it by the name that is most like the folder's."""
    names = names_of_split(split)
    scores: dict[Path, int] = {}
    for folder in (root, root.resolve().parent):
        for path in sorted(folder.glob("*.txt")):
            rest = _without_split(path.stem, names)
            if rest is not None:
                scores[path] = _alike(rest, root.resolve().name) or (folder == root) * (rest == "")
    best = max(scores, key=lambda path: scores[path], default=None)
    if best is None or not scores[best]:
        raise InputError(
            f"{root} has no list of the split {split!r}; looked for was {root.name}_{names[0]}.txt or the like, in it "
            "and beside it"
        )
    return best


def _folder_of_list(listed: Path) -> Path:
    """The folder of images beside a list, by its name."""
    rests = [rest for names in SPLITS if (rest := _without_split(listed.stem, names)) is not None]
    folders = sorted(path for path in listed.resolve().parent.iterdir() if path.is_dir())
    best = max(folders, key=lambda path: max((_alike(rest, path.name) for rest in rests), default=0), default=None)
    if best is None or not rests or not any(_alike(rest, best.name) for rest in rests):
        raise InputError(f"{listed} has no folder of images of like name beside it; give the folder")
    return listed.parent / best.name
