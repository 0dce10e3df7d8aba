"""Input files of a command: given singly, or by folders that are searched."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from latentdiff.cli.batch.plan import DEFAULT_FOLDER, Item
from latentdiff.cli.commands.base import Command
from latentdiff.cli.parser import Parser
from latentdiff.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class FileCommand(Command):
    """Base of the commands that read files, and name their outputs after them.

    Attributes:
        argument: The name of the argument that takes the files.
        what: What the files are, for its help.
        suffixes: Of the files that are searched for in folders.
    """

    argument = "image"
    what = "image files, or folders of them"
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    names = "of the inputs' names (NAME.png, NAME-seedSEED.png for several seeds; sub-folders are kept)"

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """The files."""
        parser.add_argument(cls.argument, nargs="+", metavar="PATH", help=cls.what)

    def items(self) -> Sequence[Item]:
        """An item for each file."""
        output = Path(self.args.output or DEFAULT_FOLDER)
        return find_files(getattr(self.args, self.argument), self.suffixes, output, self.other_folders())

    def other_folders(self) -> Sequence[Path]:
        """Paths that hold no inputs of this kind, though they may lie inside a folder of them."""
        return ()

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The input's name."""
        return f"{item.name}-seed{seed}.png" if several else f"{item.name}.png"

    def record(self, job: Any) -> dict[str, Any]:
        """The file's name."""
        return {self.argument: job.item.file}


def find_files(
    given: Sequence[str], suffixes: Collection[str], output: Path, others: Sequence[Path] = ()
) -> list[Item]:
    """The files that are given, and those in the folders that are, sorted, without what is hidden.

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
    found, hidden = [], {path.resolve() for path in (output, *others)}
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if name[0] != "." and (Path(parent) / name).resolve() not in hidden]
        found += [Path(parent) / name for name in names if name[0] != "." and Path(name).suffix.lower() in suffixes]
    if not found:
        raise InputError(f"{folder} holds no file of a known kind; known: {', '.join(suffixes)}")
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be searched ({error.strerror}); make it readable, or give another")


def find_partner(item: Item, given: str, option: str) -> Path | InputError:
    """The file that belongs to an item: `given` itself, or the file in that folder that bears the item's name."""
    path = Path(given)
    if not path.is_dir():
        return path if path.exists() else InputError(f"{option} is {given}, which doesn't exist; give another path")
    names = [item.file, *(f"{item.name}{suffix}" for suffix in IMAGE_SUFFIXES)]
    found = next((path / name for name in names if (path / name).is_file()), None)
    return found or InputError(f"{item.path}: {given} holds no {item.file} for it, nor one of another kind; add it")


def read_json(path: str | Path, check: Callable[[Any], bool], what: str) -> Any:
    """The value in a JSON file that passes `check`; InputError, which says that it must be `what`, else."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read as JSON ({reason}); it must be {what}") from None
    if not check(value):
        raise InputError(f"{path} is other JSON than needed; it must be {what}")
    return value
