"""Files that can't be decoded never end a run: each is said once, and another sample takes its place."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from latentdiff.data.stream import Visited
from latentdiff.errors import BadFileError, InputError, LatentDiffWarning
from latentdiff.seeding import array_generator

TRIES = 20


class BadFiles:
    """The files of a run that can't be decoded, a JSON line each in `bad_files.jsonl`.

    Args:
        folder: Of the run.
        total: The number of images.
        max_share: More than this share of them, and more than one, ends the run.
        fresh: Whether to forget those of an earlier run.
    """

    def __init__(self, folder: Path, total: int, max_share: float, *, fresh: bool = True) -> None:
        self.path, self.total, self.max_share = folder / "bad_files.jsonl", total, max_share
        self.known: set[str] = set()
        if fresh:
            self.path.unlink(missing_ok=True)

    def add(self, file: str, reason: str) -> None:
        """Say that a file is bad, unless this or another process of the run has.

        Raises:
            InputError: If there are now too many.
        """
        if file not in self.known:
            self.known = self._read()
        if file in self.known:
            return
        self.known.add(file)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"file": file, "reason": reason}) + "\n")
        warnings.warn(LatentDiffWarning(f"left out: {reason}"), stacklevel=2)
        if len(self.known) > max(1, self.max_share * self.total):
            raise InputError(
                f"{len(self.known)} of {self.total} images can't be decoded, more than max_bad_share "
                f"{self.max_share:g}; see {self.path}, mend or remove them; the last: {reason}"
            )

    def _read(self) -> set[str]:
        if not self.path.exists():
            return set()
        return {json.loads(line)["file"] for line in self.path.read_text(encoding="utf-8").splitlines()}


class SkipBadFiles(Visited):
    """Items of which bad ones are replaced; by which others depends on the seed and the sample's number alone.

    Args:
        items: Raise BadFileError for a bad one.
        files: What the item of each index is called.
        bad_files: Where bad ones are said.
        seed: Of the run.
    """

    def __init__(self, items: Dataset[Any], files: Any, bad_files: BadFiles, seed: int) -> None:
        self.items, self.files, self.bad_files, self.seed = items, files, bad_files, seed

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.visit(index, index)

    def visit(self, index: int, number: int) -> Any:
        """Item `index`, or the next of a row of draws that can be read, as sample `number` of the run."""
        draws = array_generator(self.seed, number, TRIES)
        for _ in range(TRIES):
            try:
                return self.items.visit(index, number) if isinstance(self.items, Visited) else self.items[index]
            except BadFileError as error:
                reason = str(error)
                self.bad_files.add(str(self.files[index % len(self.files)]), reason)
            index = int(draws.integers(len(self)))
        raise InputError(f"{TRIES} images in a row can't be decoded, the last: {reason}; mend or remove such files")
