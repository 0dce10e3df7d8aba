"""What systems do in different ways. Linux is what is tested; the fallbacks for macOS and Windows stand here."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None  # type: ignore[assignment]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Errors of systems, such as Windows, that don't open or sync folders; their renames need no help.
FOLDERS_NOT_SYNCED = (errno.EACCES, errno.EINVAL, errno.ENOTSUP)

# Errors of file systems that can't promise space.
NO_PROMISES = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODEV)
# Errors of file systems that have no locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
LOCKED_BYTE = 2**30  # Windows locks bytes; nobody reads or writes this one

# Windows syncs only files that are open for writing; elsewhere a file can be synced that only reading is allowed of.
SYNCED_AS = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself, so that they outlast a loss of power."""
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else SYNCED_AS)
        try:
            sync_open(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in FOLDERS_NOT_SYNCED or not path.is_dir():
            raise


def sync_open(descriptor: int) -> None:
    """Have what was written to an open file on the disk itself."""
    thorough = getattr(fcntl, "F_FULLFSYNC", None)
    if thorough is not None:  # macOS, whose fsync leaves data in the cache of the drive
        try:
            fcntl.fcntl(descriptor, thorough)
            return
        except OSError:  # a file system without it, such as one of a network
            pass
    os.fsync(descriptor)


def allocate(descriptor: int, size: int) -> None:
    """Make an open file `size` bytes long, with space on the disk for all of them; what it holds stays.

    Where the system or the file system can't promise space (macOS, Windows, some network drives), zeros are written.

    Raises:
        OSError: If there is no space; the file may be longer than it was.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            if error.errno not in NO_PROMISES:
                raise
    position = os.lseek(descriptor, 0, os.SEEK_END)
    while position < size:
        position += os.write(descriptor, bytes(min(size - position, 2**20)))


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file for this process, without waiting; the lock ends with the process.

    Returns:
        Whether it is locked now; None on a file system without locks.
    """
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where there are no hard links. A symbolic link stays one."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError, AttributeError):  # of file system, Windows' os.link, a system without os.link
        shutil.copy2(source, target, follow_symlinks=False)


def delay_sigterm(seconds: int) -> None:
    """Let a SIGTERM end this process only so many seconds after it came.

    Windows has no alarms. It ends processes without a signal, so there is nothing to delay.
    """
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(seconds))


def errno_of(code: int) -> int:
    """C's number of an error that a library has by the system's number, which is another one on Windows."""
    if sys.platform == "win32":
        return OSError(0, "", None, code).errno or 0
    return code


def usable_cores() -> int:
    """The cores that this process may run on, where the system says so; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_trusted(found: os.stat_result) -> bool:
    """Whether a file is this user's or root's, as far as the system has users."""
    return not hasattr(os, "getuid") or found.st_uid in (os.getuid(), 0)
