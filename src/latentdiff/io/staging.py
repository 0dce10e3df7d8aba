"""Staging folders: hidden, beside results, which are written in them; and what killed processes leave there.

What belongs to `model` lies in `.model.latentdiff`. The entries of that folder name the process that made them, so that
the next one knows what is left of a killed process, and what another one is still at work on. Nothing but such entries
is ever removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.owners import OWNER, has_ended, is_this_process, this_process

ASIDE, OLD = "aside", "old"  # kinds of entries: what is being written, and what is being replaced
SUFFIX = ".latentdiff"
STAGED_NAME = re.compile(rf"({ASIDE}|{OLD})-({OWNER})-[0-9a-f]{{8}}")

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
    name = f"{kind}-{this_process()}-{secrets.token_hex(4)}"
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
    found = STAGED_NAME.fullmatch(name)
    if found is None or entry.is_symlink() or not entry.is_dir():
        return False
    if is_this_process(found[2]):
        return name not in _in_use
    return has_ended(found[2], entry)
