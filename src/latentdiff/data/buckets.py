"""Aspect buckets: the sizes near that of an image's shape, and batches of one size whose order is a function of a seed.

Images of mixed ratios are trained on in sizes of about one area, as SDXL was (Podell et al. 2023, arXiv 2307.01952,
section 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from latentdiff.seeding import generator

LEAST_AREA = 0.75  # that a bucket has of the square's: with more of it there are more ratios, with less larger images
FIRST, ORDER, GROUPS = 31, 32, 33  # what the generators have beside their numbers, so that no others are like them
Size = tuple[int, int]
"""Height and width in pixels."""


def bucket_sizes(resolution: int, multiple: int, max_ratio: float) -> list[Size]:
    """All sizes with sides that are multiples of a number and with an area of 75 % to 100 % of a square's.

    Args:
        resolution: The side of the square.
        multiple: What divides the sides.
        max_ratio: The greatest ratio of the longer side to the shorter.
    """
    most, least = resolution**2, LEAST_AREA * resolution**2
    sides = range(multiple, int(resolution * max_ratio**0.5) + multiple, multiple)
    return [
        (height, width)
        for height in sides
        for width in sides
        if least <= height * width <= most and max(height, width) <= max_ratio * min(height, width)
    ]


def cut_share(bucket: Size, size: Size) -> float:
    """The share of an image's pixels that is cut away to give it the ratio of a bucket."""
    ratio, own = bucket[0] / bucket[1], size[0] / size[1]
    return 1 - min(ratio / own, own / ratio)


def nearest_bucket(sizes: Sequence[Size], size: Size) -> int:
    """The number of the bucket for which least of an image is cut away; of several such, the largest."""
    return min(range(len(sizes)), key=lambda place: (cut_share(sizes[place], size), -sizes[place][0] * sizes[place][1]))


class BucketOrder:
    """The order of samples where those of a step have one size: sample n is a function of (seed, n, the step's size).

    Each bucket has an endless sequence of its items, reshuffled whenever all have come, of which the next ones make up
    a step; so all items are seen equally often, however few are in a bucket. The steps of an epoch come in random
    order, as many of each bucket as its items fill: what is left over counts for the next epoch.

    Args:
        buckets: The items of each bucket, of which none is empty.
        group: The number of samples in a step, of all processes and micro-steps.
        seed: The seed of the run.
    """

    def __init__(self, buckets: Sequence[NDArray[np.int64]], group: int, seed: int) -> None:
        self.buckets, self.group, self.seed = buckets, group, seed
        self.counts = np.array([len(bucket) for bucket in buckets], dtype=np.int64)
        drawn = torch.randint(group, (len(buckets),), generator=generator(seed, FIRST))
        self.first = drawn.numpy().astype(np.int64)
        self.epoch, self.plan = -1, np.empty((0, 2), np.int64)
        self.orders: dict[tuple[int, int], torch.Tensor] = {}

    def __call__(self, number: int) -> int:
        """The item that is sample `number` of the run."""
        group, within = divmod(number, self.group)
        bucket, own = self._of_group(group)
        round_, place = divmod(own * self.group + within, len(self.buckets[bucket]))
        return int(self.buckets[bucket][int(self._order(bucket, round_)[place])])

    def _before(self, epoch: int) -> NDArray[np.int64]:
        """The number of each bucket's groups before an epoch."""
        return (self.counts * epoch + self.first) // self.group

    def _of_group(self, group: int) -> tuple[int, int]:
        """The bucket of a group, and which of the bucket's groups it is."""
        epoch = group * self.group // int(self.counts.sum())
        while int(self._before(epoch).sum()) > group:
            epoch -= 1
        while int(self._before(epoch + 1).sum()) <= group:
            epoch += 1
        if epoch != self.epoch:
            before, after = self._before(epoch), self._before(epoch + 1)
            plan = [(b, own) for b in range(len(self.buckets)) for own in range(before[b], after[b])]
            order = torch.randperm(len(plan), generator=generator(self.seed, epoch, GROUPS))
            self.epoch, self.plan = epoch, np.array(plan, np.int64)[order.numpy()]
        bucket, own = self.plan[group - int(self._before(epoch).sum())].tolist()
        return bucket, own

    def _order(self, bucket: int, round_: int) -> torch.Tensor:
        """The order of a bucket's items when they come for the time `round_`."""
        found = self.orders.get((bucket, round_))
        if found is None:
            self.orders.pop((bucket, round_ - 2), None)
            rng = generator(self.seed, bucket, round_, ORDER)
            found = self.orders[bucket, round_] = torch.randperm(len(self.buckets[bucket]), generator=rng)
        return found
