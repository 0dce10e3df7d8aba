"""The one worker: requests of all pages wait in a line, are made one after another, and may be cancelled."""

from __future__ import annotations

import gc
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from latentdiff.demo.texts import say
from latentdiff.errors import InputError, LatentDiffError

if TYPE_CHECKING:
    from PIL.Image import Image

LOG = logging.getLogger("latentdiff.demo")
MOST_WAITING = 32

T = TypeVar("T")


class CancelledError(Exception):
    """The page has no use for the image any more."""


@dataclass(frozen=True)
class Progress:
    """A step is done.

    Attributes:
        step: Its number, from 1.
        of: How many there are.
        preview: What the image is becoming; None if it is not shown at this step.
    """

    step: int
    of: int
    preview: Image | None = None


@dataclass(frozen=True)
class Done(Generic[T]):
    """The result."""

    result: T


@dataclass(frozen=True)
class Failed:
    """There is no result: the reason, or None if it was cancelled."""

    reason: str | None


Event: TypeAlias = "Progress | Done[T] | Failed"


class Request(Generic[T]):
    """Work that waits, is being done, or is over.

    Args:
        work: Makes the result. It tells its progress by `tell`, which ends it if the request is cancelled.
    """

    def __init__(self, work: Callable[[Request[T]], T]) -> None:
        self.work = work
        self.events: queue.SimpleQueue[Event[T]] = queue.SimpleQueue()
        self._cancelled = threading.Event()

    def tell(self, progress: Progress) -> None:
        """Tell the page of a step.

        Raises:
            CancelledError: If the page wants no more.
        """
        self.check()
        self.events.put(progress)

    def check(self) -> None:
        """Raise CancelledError if the page wants no more."""
        if self._cancelled.is_set():
            raise CancelledError

    def cancel(self) -> None:
        """Have it end with the step that it is in; nothing happens if it is over."""
        self._cancelled.set()

    def latest(self, seconds: float) -> Event[T] | None:
        """The latest thing that has happened since the last call; None if nothing does for so long.

        Of several steps, the number is that of the last, and the preview the last that there is.
        """
        event, preview = None, None
        try:
            event = self.events.get(timeout=seconds)
            while isinstance(event, Progress):
                preview = event.preview or preview
                event = replace(event, preview=preview)
                event = self.events.get_nowait()
        except queue.Empty:
            pass
        return event


class Worker(Generic[T]):
    """Does requests one after another, in a thread of its own."""

    def __init__(self) -> None:
        self._line: deque[Request[T]] = deque()
        self._current: Request[T] | None = None
        self._change = threading.Condition()
        threading.Thread(target=self._run, name="latentdiff demo", daemon=True).start()

    def submit(self, work: Callable[[Request[T]], T]) -> Request[T]:
        """Have work done when its turn comes.

        Raises:
            InputError: If too many wait already.
        """
        request = Request(work)
        with self._change:
            if len(self._line) >= MOST_WAITING:
                raise InputError(say("error.busy", most=MOST_WAITING))
            self._line.append(request)
            self._change.notify()
        return request

    def ahead(self, request: Request[T]) -> int:
        """How many are done before a request; 0 if it is being done or over."""
        with self._change:
            if request not in self._line:
                return 0
            return self._line.index(request) + (self._current is not None)

    def cancel(self, request: Request[T]) -> None:
        """Take a request out of the line, or have it end with the step that it is in."""
        with self._change:
            if request in self._line:
                self._line.remove(request)
                request.events.put(Failed(None))
        request.cancel()

    @property
    def is_free(self) -> bool:
        """Whether nothing is done and nothing waits."""
        with self._change:
            return self._current is None and not self._line

    def _run(self) -> None:
        while True:
            with self._change:
                self._current = None
                self._change.wait_for(lambda: self._line)
                self._current = request = self._line.popleft()
            request.events.put(_outcome(request))


def _outcome(request: Request[T]) -> Event[T]:
    """Do the work; whatever goes wrong is told to the page, and the worker lives."""
    try:
        request.check()
        result = request.work(request)
        request.check()
        return Done(result)
    except CancelledError:
        return Failed(None)
    except LatentDiffError as error:
        return Failed(str(error))
    except Exception as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error) or "allocate memory" in str(error):
            reason = say("error.memory")
        else:
            LOG.exception("a request failed")
            reason = say("error.unknown")
    gc.collect()  # what the failed call held
    return Failed(reason)
