"""Several data sets as one: their records together, and the order in which samples come from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from latentdiff.config import check
from latentdiff.data.records import Column, Mixture, Records
from latentdiff.errors import InputError
from latentdiff.seeding import array_generator, generator

BLOCK = 1000  # samples in a row, of which each data set has its share
ORDER, EPOCH = 4, 3  # the last numbers of generators of blocks and of epochs, which no other generator ends in


def join(parts: Sequence[Records], weights: Sequence[float]) -> Records:
    """The records of several data sets as those of one, in which each image knows its data set.

    What is known of some data sets alone is left out, and a note says so.

    Args:
        parts: The data sets.
        weights: Their shares of the samples, in any unit.

    Raises:
        InputError: If they say something in different ways, such as classes by names and by numbers.
    """
    known = [set(part.columns) for part in parts]
    shared = set.intersection(*known)
    notes = [
        f"{name} is known of {', '.join(str(p.root) for p in parts if name in p.columns)} alone of the data sets, and "
        "goes unused"
        for name in sorted(set.union(*known) - shared)
    ]
    columns: dict[str, Column] = {name: _joined(name, parts) for name in sorted(shared)}
    boxes = {part.boxes for part in parts}
    if "objects" in shared and len(boxes) > 1:
        raise InputError(f"the boxes of {_names(parts)} are in different formats or units; write all of them in one")
    sources = np.repeat(np.arange(len(parts)), [len(part.files) for part in parts])
    return Records(
        root=Path(_names(parts)),
        files=[file for part in parts for file in part.files],
        columns=columns,
        metadata=[line for part in parts for line in part.metadata] if all(part.metadata for part in parts) else (),
        boxes=parts[0].boxes if len(boxes) == 1 else None,
        frames=_frames(parts),
        notes=[*chain.from_iterable(part.notes for part in parts), *notes],
        ignored=[*chain.from_iterable(part.ignored for part in parts)],
        damaged=[*chain.from_iterable(part.damaged for part in parts)],
        watched=[*chain.from_iterable(part.watched for part in parts)],
        identity=" ".join(part.identity for part in parts).strip(),
        mixture=Mixture(sources, tuple(weights), tuple(str(p.root) for p in parts), tuple(p.identity for p in parts)),
    )


def _joined(name: str, parts: Sequence[Records]) -> Column:
    column: Column = [*chain.from_iterable(part.columns[name] for part in parts)]
    if name == "label" and len({type(label) for label in column}) > 1:
        raise InputError(f"the classes of {_names(parts)} are names here and numbers there; give all of them alike")
    return column


def _names(parts: Sequence[Records]) -> str:
    return ", ".join(str(part.root) for part in parts)


def _frames(parts: Sequence[Records]) -> list[tuple[int, int] | None]:
    if not any(part.frames for part in parts):
        return []
    return [frame for part in parts for frame in part.frames or [None] * len(part.files)]


@dataclass
class _Epochs:
    """The items of one data set, and the order that they have in an epoch of it."""

    items: NDArray[np.int64]
    seed: tuple[int, int]
    epoch: int = -1
    order: torch.Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))

    def __call__(self, number: int) -> int:
        epoch, position = divmod(number, len(self.items))
        if epoch != self.epoch:
            rng = generator(*self.seed, epoch, EPOCH)
            self.epoch, self.order = epoch, torch.randperm(len(self.items), generator=rng)
        return int(self.items[int(self.order[position])])


class MixtureOrder:
    """The item that is sample n of a run on several data sets, a pure function of (seed, n).

    Of each `BLOCK` samples in a row every data set has its share, in an order that is drawn for the block. A data set
    goes through its own items epoch by epoch, in an order that the others have no part in.

    Args:
        mixture: The data sets.
        length: The number of items, of which an image may have several, those of all images in turn.
        seed: The seed of the run.
    """

    def __init__(self, mixture: Mixture, length: int, seed: int) -> None:
        sources = np.resize(mixture.sources, length)
        there = [number for number in range(len(mixture.weights)) if (sources == number).any()]
        self.epochs = [_Epochs(np.flatnonzero(sources == number), (seed, number)) for number in there]
        self.counts = shares([mixture.weights[number] for number in there])
        self.seed, self.block = seed, -1
        self.sources = self.ranks = np.empty(0, np.int64)

    def __call__(self, number: int) -> int:
        """The item of sample `number`."""
        block, place = divmod(number, BLOCK)
        if block != self.block:
            self.block = block
            self.sources = np.repeat(np.arange(len(self.counts)), self.counts)
            array_generator(self.seed, block, ORDER).shuffle(self.sources)
            self.ranks = np.empty(BLOCK, np.int64)
            for source, count in enumerate(self.counts):
                self.ranks[self.sources == source] = np.arange(count)
        source = int(self.sources[place])
        return self.epochs[source](block * self.counts[source] + int(self.ranks[place]))


def shares(weights: Sequence[float]) -> list[int]:
    """How many samples of a block each data set has: its weight's part, rounded so that they add up.

    Raises:
        ConfigError: If a weight is so small that its data set would have none.
    """
    exact = [BLOCK * weight / sum(weights) for weight in weights]
    check(
        min(exact) >= 1,
        f"data.train_data has weights {[*weights]}; the smallest must be at least a thousandth of their sum",
    )
    counts = [int(part) for part in exact]
    rest = sorted(range(len(exact)), key=lambda number: counts[number] - exact[number])[: BLOCK - sum(counts)]
    return [count + (number in rest) for number, count in enumerate(counts)]
