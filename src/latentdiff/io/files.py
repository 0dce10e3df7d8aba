"""Atomic writes: results are written under a temporary name, synced to disk and renamed, so none is half written."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.staging import ASIDE, OLD, make_entry, recover, remove_entry
from latentdiff.io.system import NO_ROOM, errno_of, sync


def check_writable(path: str | Path) -> Path:
    """Check that a file or folder can be written at `path`, and return it; nothing is made or changed.

    Raises:
        InputError: If it can't be written.
    """
    path = Path(path)
    try:
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        # Trying is the only check that holds for every user, file system and quota; the file has no name to be seen by.
        with tempfile.TemporaryFile(dir=folder), suppress(FileNotFoundError):
            path.stat()
    except NotADirectoryError:
        raise InputError(f"cannot write {path}: {folder} is not a folder; choose another output path") from None
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another output path") from None
    return path


def check_files(paths: Sequence[str | Path]) -> None:
    """Check that a file of its own can be written at each path; nothing is made or changed.

    Raises:
        InputError: If one can't be written, is a folder, or is given twice.
    """
    taken: set[Path] = set()
    for path in map(Path, paths):
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; choose another output path")
        if path.resolve() in taken:
            raise InputError(f"{path} is given for two files; give each a name of its own")
        taken.add(check_writable(path).resolve())


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    """Turn the error of the system or of a library into an InputError when there is no room for `path`."""
    try:
        yield
    except Exception as error:
        number = system_errno(error)
        if number not in NO_ROOM:
            raise
        raise InputError(
            f"cannot write {path}: {os.strerror(number)}; free some space or choose another output"
        ) from None


def system_errno(error: BaseException | None) -> int:
    """The `errno` of an error; 0 if it is not one of the operating system.

    The number is the error's own, or in its text (safetensors), or that of the error that it replaced (torch).
    """
    if error is None:
        return 0
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return errno_of(int(found[1])) if found else system_errno(error.__context__)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path of the same name; what is written there becomes `path` if the block succeeds.

    The folder of `path` is made if it doesn't exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    aside = make_entry(path, ASIDE)
    try:
        with _room_for(path):
            (aside / path.name).touch()
            yield aside / path.name
            sync(aside / path.name)
        (aside / path.name).chmod(0o644)
        os.replace(aside / path.name, path)
        sync(path.parent)
    finally:
        remove_entry(aside)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all."""
    with atomic_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Mapping[str, object]) -> None:
    """Write a JSON object to a file, completely or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces `path` if the block succeeds; its parents are made.

    Between two renames there is nothing at `path`. A process that is killed there leaves the old folder aside, from
    where `recover` puts it back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    aside = make_entry(path, ASIDE)
    try:
        with _room_for(path):
            yield aside
            for part in (*aside.rglob("*"), aside):
                # What a link leads to is none of ours, and told from the final place; a pipe would keep us waiting.
                if not part.is_symlink() and (part.is_file() or part.is_dir()):
                    sync(part)
        aside.chmod(0o755)
        if path.exists():
            old = make_entry(path, OLD)
            os.replace(path, old / path.name)
            try:
                os.replace(aside, path)
            except OSError:
                os.replace(old / path.name, path)
                raise
            finally:
                remove_entry(old)
        else:
            os.replace(aside, path)
        sync(path.parent)
    finally:
        remove_entry(aside)


def remove_folder(path: Path) -> None:
    """Remove a folder; it is renamed first, so that nobody sees a part of it under its name."""
    aside = make_entry(path, ASIDE)
    os.replace(path, aside / path.name)
    remove_entry(aside)
