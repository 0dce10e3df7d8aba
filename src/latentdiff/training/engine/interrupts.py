"""SIGTERM and Ctrl-C as a wish to stop at the next good moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

FORWARDED_S = 1.0  # a launcher sends its processes the Ctrl-C that the terminal has sent them, too


class Interrupts:
    """A context in which `number` is that of the signal that came, else 0; a second Ctrl-C ends the process at once.

    In a thread other than the main one, where Python handles no signals, it stays 0.
    """

    def __init__(self) -> None:
        self.number, self.time = 0, 0.0
        self.before: dict[int, Any] = {}

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
            os.kill(os.getpid(), number)
