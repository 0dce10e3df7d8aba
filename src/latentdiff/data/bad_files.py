"""Files that can't be decoded: each is reported once, and another sample takes its place, so that the run goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from latentdiff.data.stream import ItemT_co, VisitedDataset
from latentdiff.errors import BadFileError, InputError, LatentDiffWarning
from latentdiff.seeding import array_generator
from latentdiff.types import JSON

TRIES = 20  # items that are tried in place of a bad one


class BadFiles:
    """The files of a run that can't be decoded, each of which is a line of JSON in `bad_files.jsonl`.

    Args:
        folder: The folder of the run; None keeps no file of them.
        total: The number of images.
        max_share: The share of bad images, of all, above which the run ends (one bad image is always allowed).
        fresh: Whether to forget the bad files of an earlier run in this folder.
    """

    def __init__(self, folder: Path | None, total: int, max_share: float, *, fresh: bool = True) -> None:
        self.path = None if folder is None else folder / "bad_files.jsonl"
        self.total, self.max_share = total, max_share
        self.known: set[str] = set()
        if fresh and self.path is not None:
            self.path.unlink(missing_ok=True)

    def add(self, file: str, reason: str) -> None:
        """Report a bad file, unless this or another process of the run has reported it.

        Raises:
            InputError: If there are now too many bad files.
        """
        if file not in self.known:
            self.known |= self._read()
        if file in self.known:
            return
        self.known.add(file)
        self._write({"file": file, "reason": reason})
        warnings.warn(LatentDiffWarning(f"left out: {reason}"), stacklevel=2)
        if self.too_many(len(self.known)):
            see = "" if self.path is None else f"see {self.path}, "
            raise InputError(
                f"{len(self.known)} of {self.total} images can't be decoded, more than max_bad_share "
                f"{self.max_share:g}; {see}repair or remove them; the last: {reason}"
            )

    def too_many(self, count: int) -> bool:
        """Whether a run ends with so many bad files."""
        return count > max(1, self.max_share * self.total)

    def _write(self, line: JSON) -> None:
        if self.path is None:
            return
        with suppress(OSError):  # on a full disk, the warning has to do
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def _read(self) -> set[str]:
        if self.path is None or not self.path.exists():
            return set()
        found = set()
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a line that was cut off
                found.add(json.loads(line)["file"])
        return found


class SkipBadFiles(VisitedDataset[ItemT_co]):
    """A data set in which bad items are replaced by others, chosen by the seed and the number of the sample alone.

    Args:
        items: The data set, which raises BadFileError for a bad item.
        files: The name of each item, or of each image where there are several items of an image.
        bad_files: The reporter of bad files.
        seed: The seed of the run.
    """

    def __init__(self, items: Dataset[ItemT_co], files: Sequence[object], bad_files: BadFiles, seed: int) -> None:
        self.items, self.files, self.bad_files, self.seed = items, files, bad_files, seed

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]  # Dataset itself has no length, all data sets here have one

    def __getitem__(self, index: int) -> ItemT_co:
        return self._readable(index, index, self.items.__getitem__)

    def groups(self) -> list[NDArray[np.int64]]:
        """The items of each size."""
        return self.items.groups() if isinstance(self.items, VisitedDataset) else super().groups()

    def _alike(self, index: int) -> Sequence[int] | NDArray[np.int64]:
        """The items of the size of an item."""
        groups = self.groups()
        return range(len(self)) if len(groups) == 1 else next(group for group in groups if index in group)

    def visit(self, index: int, number: int) -> ItemT_co:
        """Item `index`, or if it is bad the first readable one of a sequence of draws, as sample `number` of the run.

        Raises:
            InputError: If none of the draws can be read either.
        """
        items = self.items
        if not isinstance(items, VisitedDataset):
            return self._readable(index, number, items.__getitem__)
        return self._readable(index, number, lambda place: items.visit(place, number))

    def _readable(self, index: int, number: int, read: Callable[[int], ItemT_co]) -> ItemT_co:
        draws = array_generator(self.seed, number, TRIES)
        for _ in range(TRIES):
            try:
                return read(index)
            except BadFileError as error:
                reason = str(error)
                self.bad_files.add(str(self.files[index % len(self.files)]), reason)
            alike = self._alike(index)
            index = int(alike[int(draws.integers(len(alike)))])
        raise InputError(f"{TRIES} images in a row can't be decoded, the last: {reason}; repair or remove such files")
