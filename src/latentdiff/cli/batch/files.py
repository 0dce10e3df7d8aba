"""Input files of a command: given singly, or by folders that are searched."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from cyclopts import Parameter

from latentdiff.cli.batch.command import ImageCommand
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.options import DEFAULT_FOLDER
from latentdiff.errors import InputError
from latentdiff.io.stored import IMAGE_SUFFIXES
from latentdiff.reading import parse_json, read_text
from latentdiff.types import JSON

if TYPE_CHECKING:
    import numpy as np

ImagePaths = Annotated[list[str], Parameter(name="PATH", help="Image files, or folders of them.")]


@dataclass(eq=False, kw_only=True)
class FileCommand(ImageCommand):
    """Base of the commands that read files, and name their outputs after them.

    Attributes:
        inputs: The field that has the files and folders.
        suffixes: What the names of files end in that are searched for in folders.
    """

    inputs: ClassVar[str] = "image"
    suffixes: ClassVar[Collection[str]] = IMAGE_SUFFIXES

    def items(self) -> Sequence[Item]:
        """An item for each file."""
        output = Path(self.output.output or DEFAULT_FOLDER)
        return find_files(getattr(self, self.inputs), self.suffixes, output, self.other_folders())

    def other_folders(self) -> Sequence[Path]:
        """Paths that hold no inputs of this kind, though they may lie inside a folder of them."""
        return ()

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The input's name."""
        return f"{item.name}-seed{seed}" if several else item.name

    def record(self, job: Job) -> dict[str, object]:
        """The file's name."""
        return {self.inputs: job.item.file}


def pixels_of(job: Job) -> np.ndarray:
    """The pixels (H, W, 3) of a job's image file."""
    import numpy as np

    from latentdiff.io.images import load_image

    assert job.item.path is not None
    return np.asarray(load_image(job.item.path))


def find_files(
    given: Sequence[str], suffixes: Collection[str], output: Path, others: Sequence[Path] = ()
) -> list[Item]:
    """The files that are given, and those in the folders that are, sorted, without what is hidden; links are followed.

    Args:
        given: Paths of files and folders.
        suffixes: Of the files that are searched for in folders.
        output: A folder that isn't searched: another run may have written into it.
        others: More folders that aren't, unless they are given.

    Raises:
        InputError: If a path leads nowhere, or a folder holds no such file.
    """
    items = []
    for text in given:
        path = Path(text)
        if path.is_dir():
            found = _search(path, suffixes, output, others)
            items += [Item(file.relative_to(path).with_suffix("").as_posix(), file, file) for file in found]
        elif path.exists():
            items.append(Item(path.stem, path, path))
        else:
            raise InputError(f"{text} is no file and no folder; give an existing path")
    return items


def _search(folder: Path, suffixes: Collection[str], output: Path, others: Sequence[Path]) -> list[Path]:
    if folder.resolve() == output.resolve():
        raise InputError(f"{folder} is both input and --output; choose another --output")
    # No folder is read twice, whatever links lead to it, nor one that holds this one; real folders come before links.
    seen = {path.resolve() for path in (output, *others, *folder.resolve().parents)}
    found, folders, links = [], [folder], list[Path]()
    while folders or links:
        parent = folders.pop(0) if folders else links.pop(0)
        if parent.resolve() in seen:
            continue
        seen.add(parent.resolve())
        try:
            entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
        except OSError as error:
            reason = f"cannot be searched ({error.strerror}); make it readable, or give another"
            raise InputError(f"{parent} {reason}") from None
        for entry in entries:
            path = parent / entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif path.suffix.lower() in suffixes:
                found.append(path)
    if not found:
        raise InputError(f"{folder} holds no file of a known kind; known: {', '.join(suffixes)}")
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def read_json_file(path: str | Path, kinds: tuple[type, ...], what: str) -> JSON | list[object]:
    """The value in a JSON file, of one of `kinds`; InputError, which says that it must be `what`, else."""
    try:
        value = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read as JSON ({reason}); it must be {what}") from None
    if not isinstance(value, kinds):
        raise InputError(f"{path} is other JSON than needed; it must be {what}")
    return cast("JSON | list[object]", value)
