"""Sums that have the same bits however many threads there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def side_by_side(function: Callable[[Given], Made], items: Iterable[Given], device: torch.device) -> Iterator[Made]:
    """The results of a function, in order, computed side by side: on the CPU each by one thread, so in the same bits.

    Convolutions, too, are split by the number of threads. Items are many and alike, so all cores have work.
    """
    workers = torch.get_num_threads() if device.type == "cpu" else WORKERS_OF_ACCELERATOR
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)
