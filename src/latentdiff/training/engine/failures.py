"""What the system does to a run: it refuses memory or a write, or sends a signal; no run is lost by it."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from types import FrameType

import torch

from latentdiff.errors import LatentDiffError, LatentDiffWarning
from latentdiff.io.files import system_errno
from latentdiff.training.engine.options import Recipe

# Texts of errors without a type of their own: the CPU's allocator's, GPU libraries', a killed worker's.
SIGNS = ("can't allocate memory", "not enough memory", "_ALLOC_FAILED", "killed by signal: Killed")

# Options to what to do with them, and the values at which there is nothing left to do.
LEVERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "train_batch_size": ("lower train_batch_size (it is {}) and raise gradient_accumulation_steps as much", (1,)),
    "gradient_checkpointing": ("set gradient_checkpointing", (True,)),
    "mixed_precision": ("set mixed_precision to bf16 (it is {})", ("bf16", "fp16")),
    "data.num_workers": ("lower data.num_workers (it is {})", (0,)),
    "data.resolution": ("lower data.resolution (it is {})", ()),
}
FORWARDED_S = 1.0  # a launcher sends its processes the Ctrl-C that the terminal has sent them, too


@contextmanager
def explain_out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Turn an error for want of memory, on a GPU or the CPU, into a LatentDiffError that says what lowers the need."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and not any(sign in str(error) for sign in SIGNS):
            raise
        reason = (str(error).splitlines() or ["no memory left"])[0].split(". GPU")[0]
        values = {name: attrgetter(name)(recipe) for name in LEVERS}
        levers = [LEVERS[name][0].format(value) for name, value in values.items() if value not in LEVERS[name][1]]
        raise LatentDiffError(f"not enough memory for a step ({reason}): {', '.join(levers)}") from None


@contextmanager
def tolerate_os_errors(what: str, then: Callable[[], str]) -> Iterator[None]:
    """Turn an error of the system in the block into a warning.

    Args:
        what: What was tried.
        then: What is the case now, asked for in case of an error.
    """
    try:
        yield
    except Exception as error:
        number = system_errno(error)
        if not number:
            raise
        warnings.warn(LatentDiffWarning(f"{what} failed ({os.strerror(number)}); {then()}"), stacklevel=3)


class Interrupts:
    """SIGTERM and Ctrl-C as a wish to stop at the next good moment.

    In the context `number` is that of the signal that came, else 0; a second Ctrl-C ends the process at once. In a
    thread other than the main one, where Python handles no signals, it stays 0.
    """

    def __init__(self) -> None:
        self.number, self.time = 0, 0.0
        self.before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.number:
            self.number, self.time = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.time > FORWARDED_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
