"""Sums that have the same bits however many threads there are."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")
WORKERS_OF_ACCELERATOR = 4  # they decode images while the device computes


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread on the CPU: matrix products are split, and so rounded, by the number of threads.

    Launchers give each of several processes one thread, and a single process all of them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def map_in_threads(
    function: Callable[[Given], Made], items: Iterable[Given], device: torch.device, decoders: int | None = None
) -> Generator[Made, None, None]:
    """The results of a function, in order, computed side by side: on the CPU each by one thread, so in the same bits.

    Convolutions, too, are split by the number of threads. Items are many and alike, so all cores have work; a few are
    computed ahead of what is taken, and no more, so that memory doesn't grow with their number.

    Args:
        function: Of an item.
        items: Taken when their turn comes.
        device: Where the function computes.
        decoders: The threads for an accelerator, which decode images while it computes.
    """
    workers = torch.get_num_threads() if device.type == "cpu" else decoders or WORKERS_OF_ACCELERATOR
    ahead: deque[Future[Made]] = deque()
    # Reading images sets the filters of warnings for all threads for a moment, and the last may leave another's behind.
    with warnings.catch_warnings(), one_thread(), ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()
