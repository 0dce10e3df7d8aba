"""The stream of training samples: sample n is a pure function of (seed, n), so a run can stop and resume anywhere."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from latentdiff.data.buckets import BucketOrder
from latentdiff.errors import LatentDiffError
from latentdiff.io.system import delay_sigterm
from latentdiff.seeding import generator

GRACE = 300  # seconds that a worker goes on after SIGTERM
Collated = TypeVar("Collated")
ItemT_co = TypeVar("ItemT_co", covariant=True)


class VisitedDataset(Dataset[ItemT_co], ABC):
    """A data set with random augmentation: an item is a pure function of its index and the number of the sample."""

    @abstractmethod
    def visit(self, index: int, number: int) -> ItemT_co:
        """Item `index` as sample `number` of the run."""

    def __getitem__(self, index: int) -> ItemT_co:
        return self.visit(index, index)

    def groups(self) -> list[NDArray[np.int64]]:
        """The items of each size; one group of all where they have one."""
        return [np.arange(len(self))]  # type: ignore[arg-type]  # all data sets here have a length


class _EpochOrder:
    """The order of items of one size: sample n is in epoch n // N, at its place in the permutation of that epoch."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self.epoch, self.order = -1, torch.empty(0, dtype=torch.long)

    def __call__(self, number: int) -> int:
        epoch, position = divmod(number, self.length)
        if epoch != self.epoch:
            self.epoch, self.order = epoch, torch.randperm(self.length, generator=generator(self.seed, epoch))
        return int(self.order[position])


class _Shuffled(Dataset[object]):
    """An endless data set, in which item n is sample n of the run."""

    def __init__(self, items: Dataset[object], order: Callable[[int], int]) -> None:
        self.items, self.order = items, order

    def __getitem__(self, n: int) -> object:
        index = self.order(n)
        try:
            return self.items.visit(index, n) if isinstance(self.items, VisitedDataset) else self.items[index]
        except LatentDiffError as error:
            return _Failure(error)


@dataclass
class _Failure:
    """An error of a worker process, passed on as a value, since torch would make it an error of many lines."""

    error: LatentDiffError


class _CollateOrFail:
    """The function that makes a batch of samples, or returns the first failure among them."""

    def __init__(self, collate: Callable[[list[Any]], Collated]) -> None:
        self.collate = collate

    def __call__(self, samples: list[object]) -> object:
        for item in samples:
            if isinstance(item, _Failure):
                return item
        return self.collate(samples)


def sample_numbers(micro_step: int, batch_size: int, rank: int = 0, world_size: int = 1) -> range:
    """The numbers of the samples in one process's micro-step.

    In every micro-step, the samples of rank 0 come first, then those of rank 1, and so on.

    Args:
        micro_step: The number of the forward pass, of which several may make a training step.
        batch_size: The number of samples in a process's micro-step.
        rank: The number of the process.
        world_size: The number of processes.
    """
    start = (micro_step * world_size + rank) * batch_size
    return range(start, start + batch_size)


class _Steps(Sampler[list[int]]):
    """The sample numbers of each micro-step of one process, from `first_step` on, without end."""

    def __init__(self, batch_size: int, rank: int, world_size: int, first_step: int) -> None:
        self.batch_size, self.rank, self.world_size, self.first_step = batch_size, rank, world_size, first_step

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            yield list(sample_numbers(step, self.batch_size, self.rank, self.world_size))
            step += 1


def stream(
    items: Dataset[object],
    batch_size: int,
    *,
    seed: int,
    first_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    samples_in_step: int | None = None,
    collate_fn: Callable[[list[Any]], Any] = default_collate,
) -> Iterator[Any]:
    """Endless batches of a data set, reshuffled in every epoch, starting at micro-step `first_step`.

    Args:
        items: The data set.
        batch_size: The number of samples in a process's batch.
        seed: The seed of the run.
        first_step: The number of the first micro-step.
        rank: The number of this process.
        world_size: The number of processes.
        num_workers: The number of worker processes that load samples; 0 loads them in this process.
        samples_in_step: The number of samples in a training step, of all processes and micro-steps, which are of one
            size where the items have several; by default those of a micro-step.
        collate_fn: The function that makes a batch of samples.

    Raises:
        LatentDiffError: If an item raises one, also in a worker process.
    """
    sampler = _Steps(batch_size, rank, world_size, first_step)
    length: int = len(items)  # type: ignore[arg-type]  # all data sets here have a length
    groups = items.groups() if isinstance(items, VisitedDataset) else []
    order: Callable[[int], int] = _EpochOrder(length, seed)
    if len(groups) > 1:
        order = BucketOrder(groups, samples_in_step or batch_size * world_size, seed)
    shuffled = _Shuffled(items, order)
    loader = DataLoader(
        shuffled,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=_CollateOrFail(collate_fn),
        worker_init_fn=_leave_signals_to_parent,
    )
    for batch in loader:
        if isinstance(batch, _Failure):
            raise batch.error
        yield batch


def _leave_signals_to_parent(_: int) -> None:
    """Keep a worker alive when a signal stops the run, which needs its workers to finish the current step.

    SIGTERM ends a worker after a while all the same, since the run itself sends it to a worker that doesn't end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    delay_sigterm(GRACE)
