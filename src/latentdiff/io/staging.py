"""Staging folders: hidden, beside results, which are written in them; and what killed processes leave there.

What belongs to `model` lies in `.model.latentdiff`. The entries of that folder name the process that made them, so that
the next one knows what is left of a killed process, and what another one is still at work on. Nothing but such entries
is ever removed.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from contextlib import suppress
from pathlib import Path

from latentdiff.errors import InputError

ASIDE, OLD = "aside", "old"  # kinds of entries: what is being written, and what is being replaced
SUFFIX = ".latentdiff"
ENTRY = re.compile(rf"({ASIDE}|{OLD})-([0-9a-f]{{8}})-(\d{{1,10}})-(\d{{1,12}})-[0-9a-f]{{8}}")
DAY = 24 * 3600  # seconds after which what another machine made is taken for left over
SAME = 2  # seconds by which the clock may have been set meanwhile

_in_use: set[str] = set()  # the names of the entries that this process is at work on


def staging_folder(path: Path) -> Path:
    """The hidden folder beside `path`, which is there while something is written or left over."""
    return path.parent / f".{path.name}{SUFFIX}"


def make_entry(path: Path, kind: str) -> Path:
    """Make an empty folder in which `path` is written, or put aside.

    Raises:
        InputError: If something else lies where the hidden folder belongs.
    """
    place = staging_folder(path)
    name = f"{kind}-{_machine()}-{os.getpid()}-{_started(os.getpid())}-{secrets.token_hex(4)}"
    while True:
        try:
            place.mkdir(exist_ok=True)
            if place.is_symlink():
                raise FileExistsError
            _in_use.add(name)
            (place / name).mkdir(mode=0o700)
            return place / name
        except FileNotFoundError:
            continue  # another process has just removed the hidden folder, which was empty
        except FileExistsError:
            raise InputError(f"cannot write {path}: {place} is in the way; rename it") from None


def remove_entry(entry: Path) -> None:
    """Remove an entry, and the hidden folder if nothing else is in it."""
    shutil.rmtree(entry, ignore_errors=True)
    _in_use.discard(entry.name)
    with suppress(OSError):  # another process is at work there, or has removed it
        entry.parent.rmdir()


def recover(path: Path) -> None:
    """Put back what a killed process was about to replace at `path`, and remove what else it left.

    Raises:
        OSError: If the system doesn't allow it.
    """
    place = staging_folder(path)
    if place.is_symlink() or not place.is_dir():
        return
    left = [entry for entry in sorted(place.iterdir()) if _is_left(entry)]
    for entry in left:
        kept = entry / path.name
        if entry.name.startswith(OLD) and os.path.lexists(kept) and not os.path.lexists(path):
            os.replace(kept, path)
    for entry in left:
        remove_entry(entry)
    with suppress(OSError):  # something else is in it
        place.rmdir()


def recover_all(folder: Path) -> None:
    """Do the same as `recover` for all that was written in a folder.

    Raises:
        OSError: If the system doesn't allow it.
    """
    for place in sorted(folder.glob(f".*{SUFFIX}")):
        recover(folder / place.name.removeprefix(".").removesuffix(SUFFIX))


def _is_left(entry: Path) -> bool:
    """Whether an entry of a hidden folder is one, or the hidden folder of one, and of a process that has ended."""
    name = entry.name.removeprefix(".").removesuffix(SUFFIX)
    found = ENTRY.fullmatch(name)
    if found is None or entry.is_symlink() or not entry.is_dir():
        return False
    if found[2] != _machine():
        return time.time() - entry.stat().st_mtime > DAY
    if int(found[3]) == os.getpid():
        return name not in _in_use
    began = _started(int(found[3]))
    return began is None or abs(began - int(found[4])) > SAME


@functools.cache
def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _started(process: int) -> int | None:
    """When a process of this machine began, in seconds; None if there is none of that number."""
    import psutil  # it takes a while to import

    try:
        return int(psutil.Process(process).create_time())
    except psutil.Error:
        return None
