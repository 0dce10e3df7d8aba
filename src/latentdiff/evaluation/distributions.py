"""Figures of two sets of features beside the Fréchet distance: KID, CMMD, the Inception score, CLIPScore.

Features are given as `Rows`, so that no more of them lie in memory than are worked on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from latentdiff.bulk.threads import one_thread
from latentdiff.errors import InputError
from latentdiff.types import Array

SEED = 2020  # torch-fidelity's, by which it draws KID's subsets and shuffles for the Inception score
KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000
IS_SPLITS = 10
CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
CLIP_WEIGHT = 2.5
BLOCK = 1024  # rows of a kernel matrix that exist at once


class Rows(Protocol):
    """Features of a set of images (N, D), from memory or from files."""

    def __len__(self) -> int:
        """The number N of images."""
        ...

    @property
    def dim(self) -> int:
        """The number D of features."""
        ...

    def take(self, places: Array) -> Array:
        """The features (len(places), D) of some images, by their numbers."""
        ...


class Spread(NamedTuple):
    """A mean, and the standard deviation (that of a population) over subsets or splits."""

    mean: float
    std: float


class ArrayRows:
    """Features (N, D) in memory."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """The number of features."""
        return int(self.values.shape[1])

    def take(self, places: Array) -> Array:
        """The features of some images."""
        rows: Array = self.values[places]
        return rows


class ChosenRows:
    """Some rows of others, by their places."""

    def __init__(self, rows: Rows, places: Array) -> None:
        self.rows, self.places, self.dim = rows, places, rows.dim

    def __len__(self) -> int:
        return len(self.places)

    def take(self, places: Array) -> Array:
        """The features of some images."""
        return self.rows.take(self.places[places])


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[Tensor]:
    """All features in float64, `size` images at a time."""
    for start in range(0, len(rows), size):
        yield torch.from_numpy(rows.take(np.arange(start, min(start + size, len(rows)))).astype(np.float64))


def kid(
    samples: Rows, reference: Rows, subsets: int = KID_SUBSETS, subset_size: int = KID_SUBSET_SIZE, seed: int = SEED
) -> Spread:
    """Kernel Inception distance: the unbiased squared MMD with the kernel (x . y / D + 1)^3 (Binkowski et al. 2018).

    The subsets are torch-fidelity's: for each, `numpy.random.RandomState(seed)` draws from the samples and then from
    the reference, without replacement.

    Args:
        samples: Features of the samples.
        reference: Features of the reference.
        subsets: The number of subsets.
        subset_size: The number of images of each side in a subset.
        seed: The seed of the draws.

    Raises:
        InputError: If a side has fewer images than a subset needs.
    """
    if min(len(samples), len(reference)) < subset_size or subset_size < 2:
        raise InputError(
            f"KID takes subsets of {subset_size} images from {len(samples)} and {len(reference)}; "
            "give more images, or a smaller subset size of at least 2"
        )
    draws = np.random.RandomState(seed)
    found = []
    with one_thread():
        for _ in range(subsets):
            x, y = (
                torch.from_numpy(rows.take(draws.choice(len(rows), subset_size, replace=False)).astype(np.float64))
                for rows in (samples, reference)
            )
            within = sum(float(k.sum() - k.diagonal().sum()) for k in (_cubic(x, x), _cubic(y, y)))
            found.append(within / (subset_size * (subset_size - 1)) - 2 * float(_cubic(x, y).mean()))
    return Spread(float(np.mean(found)), float(np.std(found)))


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def cmmd(samples: Rows, reference: Rows) -> float:
    """CMMD (Jayasumana et al. 2024, eq. 4): 1000 times the squared MMD of CLIP's image embeddings of unit length.

    The kernel is Gaussian with a standard deviation of 10, and means include the diagonal, as the authors' code has it.
    """
    with one_thread():
        within = _gaussian_mean(samples, samples) + _gaussian_mean(reference, reference)
        return CMMD_SCALE * (within - 2 * _gaussian_mean(samples, reference))


def _gaussian_mean(first: Rows, second: Rows) -> float:
    total = 0.0
    for x in blocks(first):
        for y in blocks(second):
            squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
            total += float((-squares / (2 * CMMD_SIGMA**2)).exp().sum())
    return total / (len(first) * len(second))


def inception_score(logits: Rows, splits: int = IS_SPLITS, seed: int = SEED) -> Spread:
    """The Inception score (Salimans et al. 2016) over equal parts of the images in the order that torch-fidelity draws.

    Args:
        logits: A classifier's logits (N, classes); the published ones are without the bias.
        splits: The number of parts.
        seed: The seed of the order.

    Raises:
        InputError: If there are fewer images than parts.
    """
    if len(logits) < splits:
        raise InputError(f"the Inception score is over {splits} parts, but {len(logits)} images are given; give more")
    order = np.random.RandomState(seed).permutation(len(logits))
    scores = []
    with one_thread():
        for part in range(splits):
            places = order[part * len(logits) // splits : (part + 1) * len(logits) // splits]
            marginal = torch.zeros(logits.dim, dtype=torch.float64)
            negative_entropy = 0.0
            for start in range(0, len(places), BLOCK):
                block = torch.from_numpy(logits.take(places[start : start + BLOCK]).astype(np.float64))
                log_p = block.log_softmax(dim=1)
                marginal += log_p.exp().sum(dim=0)
                negative_entropy += float((log_p.exp() * log_p).sum())
            q = marginal / len(places)
            scores.append(math.exp(negative_entropy / len(places) - float(torch.xlogy(q, q).sum())))
    return Spread(float(np.mean(scores)), float(np.std(scores)))


def clip_score(images: Rows, texts: Rows) -> float:
    """CLIPScore (Hessel et al. 2021, eq. 1): the mean of 2.5 max(cos, 0) over images and their captions.

    Args:
        images: CLIP's image embeddings of unit length.
        texts: CLIP's embeddings of the captions, of unit length, in the same order.

    Raises:
        InputError: If the numbers differ.
    """
    if len(images) != len(texts):
        raise InputError(f"{len(images)} images and {len(texts)} captions are given; give one caption for each image")
    total = sum(
        float((x * y).sum(dim=1).clamp(min=0).sum()) for x, y in zip(blocks(images), blocks(texts), strict=True)
    )
    return CLIP_WEIGHT * total / len(images)
