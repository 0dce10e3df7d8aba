"""What the server keeps for the pages for a while: photos, and drawings that links lead back to."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Shelf(Generic[T]):
    """Things that are found by a name that can't be guessed; the oldest go when the room is used up.

    Args:
        room: The bytes that all may have together.
    """

    def __init__(self, room: int) -> None:
        self._room, self._used = room, 0
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, thing: T, size: int) -> str:
        """Keep a thing of so many bytes; what it is found by."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._things[name] = (thing, size)
            self._used += size
            while self._used > self._room and len(self._things) > 1:
                _, (_, freed) = self._things.popitem(last=False)
                self._used -= freed
        return name

    def get(self, name: str) -> T | None:
        """The thing of a name, which is then the youngest; None if it is kept no longer."""
        with self._lock:
            if name not in self._things:
                return None
            self._things.move_to_end(name)
            return self._things[name][0]
