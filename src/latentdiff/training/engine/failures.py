"""What the system does to a run: it refuses memory or a write, sends a signal, or ends it; no run is lost by it."""

from __future__ import annotations

import math
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
SAVE = getattr(signal, "SIGUSR1", None)  # which Windows hasn't got
WISHES = ("stop", "save", "time_is_up")
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
    """What is asked of a run from outside: to stop or to save at the next good moment.

    In the context `number` is that of the SIGTERM or Ctrl-C that came, else 0; a second Ctrl-C ends the process at
    once. SIGUSR1 asks for a checkpoint. In a thread other than the main one, where Python handles no signals, nothing
    is heard of them.

    Args:
        deadline: The value of `time.monotonic` at which the run's time is up.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        self.number, self.time, self.asked, self.deadline = 0, 0.0, 0, deadline
        self.before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
            if SAVE is not None:
                self.before[SAVE] = signal.signal(SAVE, self._note_save)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def wishes(self) -> dict[str, float]:
        """What is asked now, by the names in `WISHES`, 0 for no; a checkpoint is said to be asked for once."""
        asked, self.asked = self.asked, 0
        wishes = (self.number, asked, time.monotonic() >= self.deadline)
        return dict(zip(WISHES, map(float, wishes), strict=True))

    def _note(self, number: int, _: FrameType | None) -> None:
        if not self.number:
            self.number, self.time = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self.time > FORWARDED_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _note_save(self, number: int, _: FrameType | None) -> None:
        self.asked = 1


@contextmanager
def deaf_to_saves() -> Iterator[None]:
    """Inside the block SIGUSR1, which would end the process, does nothing: there is nothing to save yet."""
    if SAVE is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(SAVE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(SAVE, signal.SIG_DFL if before is None else before)
