"""Stateless randomness: every draw comes from the numbers that name it, such as (seed, image) or (seed, step, rank)."""

from __future__ import annotations

import numpy as np
import torch

from latentdiff.errors import InputError

MAX_SEED = 2**63 - 1


def check_seed(seed: object, name: str = "seed") -> int:
    """`seed` as an int, or an InputError, which calls it `name`, when it isn't an integer of 0 to 2**63 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise InputError(f"{name} is {seed!r}; it must be an integer from 0 to 2**63 - 1, choose another")
    return seed


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on all of `numbers` and on nothing else."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    return torch.Generator("cpu").manual_seed(int(words[0]) << 31 ^ int(words[1]))


def array_generator(*numbers: int) -> np.random.Generator:
    """A numpy generator that depends on all of `numbers` and on nothing else."""
    return np.random.default_rng(np.random.SeedSequence(numbers))
