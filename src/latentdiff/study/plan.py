"""Which pairs a participant sees, in which order, and on which side each image stands.

All of it is a function of the study's seed and the participant's number. It is made of hashes rather than of a random
generator, so that another version of Python or numpy can't change a study that has begun.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

METHOD_A, METHOD_B, REFERENCE = "a", "b", "reference"
"""The roles of images: of the first method, of the second, and the ground truth."""

INTACT, DEGRADED = "intact", "degraded"
"""The roles in an attention check: an image, which is the right answer, and a strongly degraded copy of it."""


@dataclass(frozen=True)
class Pair:
    """Two images that a participant chooses between.

    Attributes:
        name: The name that both have in their folders.
        left: The role of the image on the left.
        right: The role of the one on the right.
    """

    name: str
    left: str
    right: str

    def swapped(self) -> Pair:
        """The pair with its sides exchanged."""
        return replace(self, left=self.right, right=self.left)


@dataclass(frozen=True)
class Plan:
    """The pairs of a study, and how many of them each participant sees.

    Attributes:
        names: The names of the images.
        comparisons: Pairs of roles: of a method and the reference (task 1), of both methods (task 2).
        checks: The names of the images of attention checks, which each participant sees besides.
        count: How many pairs a participant sees, checks aside; at most all.
        seed: The seed of orders and sides.
    """

    names: Sequence[str]
    comparisons: Sequence[tuple[str, str]]
    checks: Sequence[str]
    count: int
    seed: int

    def total(self) -> int:
        """How many different pairs there are, checks aside."""
        return len(self.names) * len(self.comparisons)

    def pairs(self, participant: int) -> Sequence[Pair]:
        """The pairs of the participant of a number from 0, in order.

        All pairs of a study form a ring, and each participant takes the next `count` of it: each pair is shown equally
        often, give or take one. The ring goes through all names before one comes again, and through the comparisons in
        turn. So does a participant: an image comes again only after all others, attention checks aside.
        """
        names = _shuffled(tuple(self.names), self.seed)
        rounds = -(-self.count // len(names))
        asked: list[tuple[int, Pair]] = []
        for step in range(self.count):
            turn, number = divmod((participant * self.count + step) % self.total(), len(names))
            first, second = self.comparisons[(turn + number) % len(self.comparisons)]
            asked.append((step // len(names), Pair(names[number], first, second)))
        for name in self.checks:
            of = int.from_bytes(_draw(self.seed, participant, "round", name)) % rounds
            asked.append((of, Pair(name, INTACT, DEGRADED)))

        def draw(what: str, pair: Pair) -> bytes:
            return _draw(self.seed, participant, what, pair.name, pair.left, pair.right)

        asked.sort(key=lambda item: (item[0], draw("order", item[1])))
        return [pair.swapped() if draw("side", pair)[0] % 2 else pair for _, pair in asked]


def shuffled(names: Sequence[str], seed: int, what: str) -> list[str]:
    """The names in an order that depends on them, the seed and what the order is for."""
    return sorted(names, key=lambda name: _draw(seed, what, name))


@lru_cache(maxsize=4)
def _shuffled(names: tuple[str, ...], seed: int) -> list[str]:
    return shuffled(names, seed, "ring")


def _draw(*parts: int | str) -> bytes:
    return hashlib.sha256(json.dumps(parts).encode()).digest()
