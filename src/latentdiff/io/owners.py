"""Names of processes, by which others know what is left of one that has ended, and what one is still at work on."""

from __future__ import annotations

import functools
import os
import platform
import time
import zlib
from pathlib import Path

OWNER = r"[0-9a-f]{8}-\d{1,10}-\d{1,12}"
DAY = 24 * 3600  # seconds after which what another machine made is taken for left over
SAME = 2  # seconds by which the clock may have been set meanwhile


def this_process() -> str:
    """The name of this process, which matches OWNER: its machine, its number there, and when it began."""
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid())}"


def is_this_process(owner: str) -> bool:
    """Whether a name is that of this process, or of one that had its number on this machine."""
    machine, number, _ = owner.split("-")
    return (machine, int(number)) == (_machine(), os.getpid())


def has_ended(owner: str, mark: Path) -> bool:
    """Whether the process of a name has ended.

    Args:
        owner: The name.
        mark: A file or folder of that process. If it is another machine's, the process is taken to have ended a day
            after this was changed.
    """
    machine, number, began = owner.split("-")
    if machine != _machine():
        return time.time() - mark.stat().st_mtime > DAY
    started = _started(int(number))
    return started is None or abs(started - int(began)) > SAME


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
