"""Bulk work as a list of shards: each is named, written whole or not at all, and taken by a worker or skipped.

A shard's result depends on its number alone, not on who makes it or how often. So any engine that starts processes may
run the work, a worker that is killed loses one shard at most, and the same command run again makes what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

SHARD = 256
"""Images in a shard of features or latents: seconds of work for an accelerator, minutes for a core."""


@dataclass(frozen=True)
class Shard:
    """A part of some work.

    Attributes:
        name: By which it and its files are known, whoever works on it.
        items: The numbers of its images.
    """

    name: str
    items: range


@dataclass(frozen=True)
class Told:
    """What a worker tells of its progress.

    Attributes:
        images: How many images it has just done.
        line: What is to be printed, if anything.
    """

    images: int = 0
    line: str = ""


Tell = Callable[[Told], None]


class Work(Protocol):
    """Work in shards."""

    def shards(self) -> Sequence[Shard]:
        """All shards, the same for every worker."""
        ...

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard's result is there and whole, whoever made it."""
        ...

    def do(self, shards: Sequence[Shard], tell: Tell, /) -> None:
        """Make the results of some shards.

        Raises:
            LatentDiffError: If something that was given can't be used.
        """
        ...


def split(count: int, size: int = SHARD) -> list[Shard]:
    """The shards of `count` images, `size` at a time."""
    starts = range(0, count, size)
    return [Shard(f"{n:05d}", range(start, min(start + size, count))) for n, start in enumerate(starts)]


def missing(work: Work, shards: Sequence[Shard]) -> list[Shard]:
    """Those of some shards that are not done."""
    return [shard for shard in shards if not work.is_done(shard)]
