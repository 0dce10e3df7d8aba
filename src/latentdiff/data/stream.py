"""The order of training samples: sample n is a pure function of (seed, n), so a run can stop and go on anywhere."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from latentdiff.errors import LatentDiffError
from latentdiff.io.system import delay_sigterm
from latentdiff.seeding import generator

GRACE = 300  # seconds that a worker goes on after SIGTERM


class Visited(Dataset[Any], ABC):
    """Items that differ from visit to visit, each a pure function of its index and the visit's number."""

    @abstractmethod
    def visit(self, index: int, number: int) -> Any:
        """Item `index` as sample `number` of the run."""


class _Shuffled(Dataset[Any]):
    """An endless view: item n lies in epoch n // N, at the place that the epoch's own permutation gives it."""

    def __init__(self, items: Dataset[Any], length: int, seed: int) -> None:
        self.items, self.length, self.seed = items, length, seed
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.long)

    def __getitem__(self, n: int) -> Any:
        epoch, position = divmod(n, self.length)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, torch.randperm(self.length, generator=generator(self.seed, epoch))
        index = int(self.order[position])
        try:
            return self.items.visit(index, n) if isinstance(self.items, Visited) else self.items[index]
        except LatentDiffError as error:
            return _Failure(error)


@dataclass
class _Failure:
    """An error on its way out of a worker process, from which torch would make one of many lines."""

    error: LatentDiffError


class _Collated:
    """A batch of the samples, or the first failure among them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        return next((item for item in samples if isinstance(item, _Failure)), None) or self.collate(samples)


def sample_numbers(micro_step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> range:
    """The samples of one process's micro-step: those of a micro-step of all processes follow each other by rank."""
    start = (micro_step * world_size + rank) * batch_size
    return range(start, start + batch_size)


class _Steps(Sampler[list[int]]):
    """The sample numbers of each step of one rank, from `first_step` on, without end."""

    def __init__(self, batch_size: int, rank: int, world_size: int, first_step: int) -> None:
        self.batch_size, self.rank, self.world_size, self.first_step = batch_size, rank, world_size, first_step

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            yield list(sample_numbers(step, self.batch_size, self.rank, self.world_size))
            step += 1


def stream(
    items: Dataset[Any],
    batch_size: int,
    *,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] = default_collate,
) -> Iterator[Any]:
    """Endless batches of `items`, reshuffled each epoch, starting at micro-step `first_step`.

    Raises:
        LatentDiffError: What an item raises, also in a worker process.
    """
    sampler = _Steps(batch_size, rank, world_size, first_step)
    shuffled = _Shuffled(items, len(items), seed)  # type: ignore[arg-type]
    loader = DataLoader(
        shuffled,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_Collated(collate_fn),
        worker_init_fn=_leave_signals_to_parent,
    )
    for batch in loader:
        if isinstance(batch, _Failure):
            raise batch.error
        yield batch


def _leave_signals_to_parent(_: int) -> None:
    """What stops a job may reach all of its processes, but the run needs its workers for the step that it ends with.

    A SIGTERM may also come from the run, to a worker that would not end; so it ends one, after a while.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    delay_sigterm(GRACE)
