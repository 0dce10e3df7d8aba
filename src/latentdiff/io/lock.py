"""A lock on a folder, which ends with the process that has it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.owners import OWNER, has_ended, this_process
from latentdiff.io.system import try_lock

LOCK = ".latentdiff.lock"

_held: set[int] = set()  # the descriptors of locks


def _forget_locks() -> None:
    """Give up the copies of locks that a forked process has: a worker that outlives its run must not hold its lock."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


class BusyError(InputError):
    """Another process has the lock."""


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Keep an existing folder for this process, by a hidden file in it, until the block ends or the process does.

    A lock of another `name` is one of its own.

    On a file system without locks the file names the process, and what a living process of this machine left is heeded.

    Raises:
        BusyError: If another process has it.
        InputError: If there is another file of the lock's name.
        OSError: If no file can be made there.
    """
    path = folder / name
    descriptor = _acquire(path)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        with suppress(OSError):  # Windows removes no open file, so that the file stays there
            if _is_at(descriptor, path):
                path.unlink()
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """An open file at `path` that is locked."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    while True:
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise InputError(f"{path} is in the way of a lock; rename it") from None
            raise
        try:
            owner = os.read(descriptor, 100).decode(errors="replace")
            if owner and not re.fullmatch(OWNER, owner):
                raise InputError(f"{path} is in the way of a lock; rename it")
            free = try_lock(descriptor)
            if free is False or (free is None and owner and not has_ended(owner, path)):
                who = f"process {owner.split('-')[1]}" if owner else "another process"
                raise BusyError(f"{who} is at work in {path.parent}; wait until it has ended, or give another folder")
            if _is_at(descriptor, path):  # else its process has removed it between our two calls
                os.ftruncate(descriptor, 0)
                os.lseek(descriptor, 0, os.SEEK_SET)
                os.write(descriptor, this_process().encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
