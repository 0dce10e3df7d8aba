"""Writing without half-written results: aside, synced, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentdiff.errors import InputError


def check_writable(path: str | Path) -> Path:
    """`path` as a Path that a file or folder can be written at, its parents made; an InputError otherwise."""
    path = Path(path)
    probe = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if path.parent.exists() and not path.parent.is_dir() or not (probe.is_dir() or probe == path):
        raise InputError(f"cannot write {path}: {probe} is not a folder; choose another output path")
    if not os.access(probe, os.W_OK):
        raise InputError(f"cannot write {path}: no permission in {probe}; choose another output path")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what is written there becomes `path` only if the block succeeds."""
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        _sync(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that replaces `path` only if the block succeeds."""
    path = Path(path)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _sync(file)
        aside.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old / path.name)
            os.replace(aside, path)
            shutil.rmtree(old)
        else:
            os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())
