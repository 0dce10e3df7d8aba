"""Atomic writes: results are written under a temporary name, synced to disk and renamed, so none is half written."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.system import NO_ROOM, errno_of, sync

ASIDE, OLD = "aside-", "old-"  # parts of the names of what is being written, and of what is being replaced


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
    """Yield a temporary path beside `path`; what is written there becomes `path` if the block succeeds.

    The folder of `path` is made if it doesn't exist.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.{ASIDE}", suffix=path.suffix)
    os.close(handle)
    try:
        with _room_for(path):
            yield Path(name)
            sync(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
        sync(path.parent)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which replaces `path` if the block succeeds; its parents are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{ASIDE}"))
    try:
        with _room_for(path):
            yield aside
            for part in (*aside.rglob("*"), aside):
                sync(part)
        aside.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{OLD}"))
            os.replace(path, old / path.name)
            try:
                os.replace(aside, path)
            except OSError:
                os.replace(old / path.name, path)
                raise
            finally:
                shutil.rmtree(old)
        else:
            os.replace(aside, path)
        sync(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder; it is renamed first, so that nobody sees a part of it under its name."""
    aside = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{ASIDE}")
    os.replace(path, aside)
    shutil.rmtree(aside)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a killed process from `folder`, and put back what it was about to replace."""
    for old in folder.glob(f".*.{OLD}*"):
        for kept in old.iterdir():
            if not (folder / kept.name).exists():
                os.replace(kept, folder / kept.name)
        shutil.rmtree(old)
    for aside in folder.glob(f".*.{ASIDE}*"):
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
