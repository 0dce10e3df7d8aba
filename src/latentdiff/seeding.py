"""Stateless randomness: a draw is a function of the numbers that identify it, such as (seed, image number)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from latentdiff.errors import InputError

MAX_SEED = 2**63 - 1
Seed = int | Sequence[int] | None
Generators = torch.Generator | list[torch.Generator] | None
"""The source of a batch's noise: one generator for all images, one for each, or None for torch's global one."""


def check_seed(seed: object, name: str = "seed") -> int:
    """Return `seed` if it is an integer from 0 to 2**63 - 1.

    Raises:
        InputError: If it isn't; the message calls it `name`.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise InputError(f"{name} is {seed!r}; it must be an integer from 0 to 2**63 - 1, choose another")
    return seed


def generator(*numbers: int) -> torch.Generator:
    """Make a CPU generator that depends on all of `numbers` and on nothing else."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator("cpu").manual_seed(int(words[0]) << 31 ^ int(words[1]))


def array_generator(*numbers: int) -> np.random.Generator:
    """Make a numpy generator that depends on all of `numbers` and on nothing else."""
    return np.random.default_rng(np.random.SeedSequence(numbers))


def image_generators(seed: Seed, given: Generators, batch_size: int) -> Generators:
    """Make one CPU generator an image: image i of seed s draws what image 0 of seed s + i draws.

    Args:
        seed: An int, one int for each image, or None for fresh noise.
        given: diffusers' `generator` argument, which is used as it is.
        batch_size: The number of images in the call.

    Raises:
        InputError: If a seed is out of range, or the number of seeds or generators is not the batch's.
    """
    if given is not None:
        if isinstance(given, list) and len(given) != batch_size:
            raise InputError(f"{len(given)} generators are given for {batch_size} images; give one each, or one")
        return given
    if seed is None:
        return None
    if isinstance(seed, (list, tuple)):
        seeds = [check_seed(number) for number in seed]
    else:
        first = check_seed(seed)
        seeds = [check_seed(first + i) for i in range(batch_size)]
    if len(seeds) != batch_size:
        raise InputError(f"{len(seeds)} seeds are given for {batch_size} images; give one each, or one int")
    return [generator(number) for number in seeds]


class SampleGenerators:
    """The generators of a batch, one for each row, made from (seed, number of the row's sample).

    A sample therefore meets the same noise in whichever batch and process it is. This costs about 20 microseconds a
    sample.

    Args:
        seed: The seed of the run.
        samples: The number in the run of each sample of the batch.
    """

    def __init__(self, seed: int, samples: Sequence[int]) -> None:
        self.rows = [generator(seed, sample, 1) for sample in samples]  # without the 1 it would be an epoch's generator

    def normal_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Draw standard normal numbers (B, ...) in the shape and on the device of `tensor`, float32."""
        drawn = torch.empty(tensor.shape)
        for row, rng in zip(drawn, self.rows, strict=True):
            row.normal_(generator=rng)
        return drawn.to(tensor.device)

    def uniform(self) -> torch.Tensor:
        """Draw numbers (B,) uniformly from [0, 1), on the CPU."""
        return torch.cat([torch.rand(1, generator=rng) for rng in self.rows])

    def integers(self, end: int) -> torch.Tensor:
        """Draw integers (B,) from 0 to `end` - 1, on the CPU."""
        return torch.cat([torch.randint(end, (1,), generator=rng) for rng in self.rows])
