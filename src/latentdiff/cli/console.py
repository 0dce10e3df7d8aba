"""What a command shows: its own lines, progress on a terminal, and nothing that libraries log."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO

from latentdiff.bulk import processes
from latentdiff.errors import LatentDiffWarning


class _Nowhere(io.TextIOBase):
    """A stream that forgets. It is never closed, as a library that was imported meanwhile may hold on to it.

    Args:
        behind: The stream that it stands for, for our own lines; itself if there are to be none.
    """

    def __init__(self, behind: TextIO | None) -> None:
        self.behind = behind or self

    def write(self, text: str) -> int:
        return len(text)


def progress_shown(quiet: bool) -> bool:
    """Whether progress bars are of use: someone watches, and wants to."""
    return sys.stderr.isatty() and not quiet


@contextlib.contextmanager
def progress(total: int, what: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield what hears of finished images; a bar shows them where someone watches, and some are to be made."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="images", disable=not (total and progress_shown(quiet))) as bar:

        def done(images: int) -> None:
            bar.update(images)

        yield done


@contextlib.contextmanager
def quiet_libraries(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Keep warnings and log lines of libraries away from stderr, and progress bars too unless a terminal shows them.

    Our own warnings are a line each, unless `quiet`. Yields what prints an error as a line on the stderr of before.
    """
    stderr = sys.stderr
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            if not quiet:
                warnings.simplefilter("always", LatentDiffWarning)
                warnings.showwarning = lambda message, *_, **__: _warn(message, stderr)
            if not progress_shown(quiet):
                stack.enter_context(contextlib.redirect_stderr(_Nowhere(None if quiet else stderr)))
            yield lambda line: _print(f"latentdiff: error: {line}", stderr)
    finally:
        logging.disable(before)


def _warn(message: Warning | str, stderr: TextIO) -> None:
    with contextlib.suppress(OSError):  # it may be that very warning that the disk is full
        _print(f"latentdiff: warning: {message}", stderr)


def announce(line: str, quiet: bool = False) -> None:
    """Say on a terminal what is about to begin; before torch is imported, since that alone takes seconds."""
    if progress_shown(quiet) and processes.rank() == 0:
        _print(f"latentdiff: {line}", sys.stderr)


def say(line: str) -> None:
    """Print a line, with escapes for what the terminal's encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    _print(line.encode(encoding, "backslashreplace").decode(encoding), sys.stdout)


def _print(line: str, stream: TextIO) -> None:
    """Print a line above the progress bars, if there are any."""
    tqdm = sys.modules.get("tqdm")
    with contextlib.nullcontext() if tqdm is None else tqdm.tqdm.external_write_mode(stream):
        print(line, file=stream, flush=True)
