"""Progress bars, above which warnings and log lines are written, and the means that they show."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeGuard

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm


@contextmanager
def above_bars() -> Iterator[None]:
    """Inside the block warnings and the lines of loggers appear above all bars of tqdm on a terminal, not in them.

    How a warning is shown is left to what showed it before, as `warnings.catch_warnings` needs it.
    """
    before = warnings.showwarning
    # Kinds of bars share the lock of their base class, if there is one by the time that they are first used.
    tqdm.get_lock()  # type: ignore[no-untyped-call]

    def show(*args: object, **options: object) -> None:
        # Where stderr is no terminal, or its disk is full, there is nothing to move out of the way.
        with suppress(OSError), tqdm.external_write_mode(file=sys.stderr):
            before(*args, **options)  # type: ignore[arg-type]

    loggers = [known for known in (logging.root, *logging.root.manager.loggerDict.values()) if _prints(known)]
    warnings.showwarning = show
    try:
        with logging_redirect_tqdm(loggers):
            yield
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = before


def _prints(logger: logging.Logger | logging.PlaceHolder) -> TypeGuard[logging.Logger]:
    """Whether a logger has a handler of its own that writes to the terminal."""
    handlers = logger.handlers if isinstance(logger, logging.Logger) else []
    return any(
        isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)
        for handler in handlers
    )


class SmoothedMeans:
    """Exponential moving averages of named values, free of the bias that a start at 0 has (Kingma and Ba 2015, eq. 1).

    Args:
        decay: The weight of what was before, in [0, 1).
    """

    def __init__(self, decay: float = 0.98) -> None:
        self.decay = decay
        self.sums: dict[str, float] = {}
        self.weights: dict[str, float] = {}

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """The averages of all names so far, these values included; the first ones are the values themselves."""
        for name, value in values.items():
            self.sums[name] = self.decay * self.sums.get(name, 0.0) + (1 - self.decay) * value
            self.weights[name] = self.decay * self.weights.get(name, 0.0) + 1 - self.decay
        return {name: total / self.weights[name] for name, total in self.sums.items()}


@contextmanager
def elapsed(what: str, shown: bool = True) -> Iterator[None]:
    """Inside the block, show what is being done and for how long; the line stays, with the time that it took.

    Args:
        what: What is done, such as "compiling the unet".
        shown: Whether anything is shown at all.
    """
    if not shown:
        yield
        return
    ended = threading.Event()
    with above_bars(), tqdm(desc=what, bar_format="{desc}: {elapsed}") as bar:

        def tick() -> None:
            while not ended.wait(1):
                bar.refresh()

        ticker = threading.Thread(target=tick, daemon=True)
        ticker.start()
        try:
            yield
        finally:
            ended.set()
            ticker.join()
