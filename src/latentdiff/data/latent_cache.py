"""The latent cache: the first-stage posteriors of a whole data set, encoded once and read from disk when needed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from latentdiff.data.stream import VisitedDataset
from latentdiff.data.views import View, Views
from latentdiff.errors import BadFileError, ConfigError
from latentdiff.io.latent_files import MOMENTS, read_bad, stamp_of
from latentdiff.io.mapped import MappedArray
from latentdiff.seeding import array_generator
from latentdiff.types import Component


class LatentCache(Dataset[torch.Tensor]):
    """The unscaled latents of each image, stored as float16.

    A row is the posterior (2c, h, w) of a KL model, the means and then the log variances, or the unquantised latents
    (c, h, w) of a VQ model. Row k N + i is view k of image i: of `random_flip` alone, view 1 is the mirror image. Rows
    of several sizes are flat in the file, and end in zeros.

    Args:
        folder: The folder that `LatentEncoding` made.
        images: The number N of images.
        views: How the images are shown.

    Attributes:
        first_stage: The fingerprint of the weights that made it.
        bad: The numbers of images that can't be decoded, with the reasons.

    Raises:
        OSError, ValueError, TypeError: If the cache is of other images, or not whole.
    """

    def __init__(self, folder: Path, images: int, views: Views) -> None:
        self.folder, self.images, self.views = folder, images, views
        self.moments: NDArray[np.float16] = MappedArray(folder / MOMENTS).rows
        if len(self.moments) % images:
            raise ValueError(f"{folder} has {len(self.moments)} latents of {images} images")
        meta = stamp_of(folder)
        self.shapes: list[tuple[int, ...]] = [tuple(shape) for shape in meta.get("shapes", ())]
        self.first_stage = str(meta.get("first_stage"))
        self.bad = read_bad(meta.get("bad"), range(images))

    def __reduce__(self) -> tuple[type[LatentCache], tuple[Path, int, Views]]:
        return LatentCache, (self.folder, self.images, self.views)  # a process that starts afresh maps the file, too

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index % self.images in self.bad:
            raise BadFileError(self.bad[index % self.images])
        return torch.from_numpy(self.row(index).astype(np.float32))

    def row(self, index: int) -> NDArray[np.float16]:
        """Row `index` as it is stored, (2c or c, h, w)."""
        row: NDArray[np.float16] = self.moments[index]
        if not self.shapes:
            return row
        shape = self.shapes[self.views.buckets[index % self.images]]
        row = row[: math.prod(shape)].reshape(shape)
        return row


class Rows(Protocol):
    """The source of the tensors that a batch has beside the latents, such as the classes or masks of the images."""

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The tensors of an image at one visit, by their names in the batch.

        Args:
            image: The number of the image.
            view: What the visit shows of it; `Images.at` gives its pixels.
            rng: Source of all randomness.
        """


class Columns:
    """`Rows` of integer tensors (N, ...), which are the same for all views of an image; rows are int64."""

    def __init__(self, **columns: torch.Tensor) -> None:
        self.columns = columns

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The row of an image in each tensor, as the protocol `Rows` describes."""
        return {name: column[image].long() for name, column in self.columns.items()}


class LatentRows(VisitedDataset[dict[str, torch.Tensor]]):
    """The rows of a latent cache, as `moments`, with the tensors that belong to each image.

    Args:
        latents: The cache.
        rows: The source of the other tensors.
        seed: The seed of the run; the generator of a visit depends on it and on the number of the sample.
        crops: Whether rows say which part of the image they are, as `crop`; see `View.numbers`.
    """

    def __init__(self, latents: LatentCache, rows: Rows, seed: int = 0, *, crops: bool = False) -> None:
        self.latents, self.rows, self.seed, self.crops = latents, rows, seed, crops

    def __len__(self) -> int:
        return len(self.latents)

    def visit(self, index: int, number: int) -> dict[str, torch.Tensor]:
        """Row `index` of the cache as sample `number` of the run."""
        copy, image = divmod(index, self.latents.images)
        view, rng = self.latents.views.copy(image, copy), array_generator(self.seed, number)
        said = {"crop": view.numbers()} if self.crops else {}
        return {"moments": self.latents[index], **self.rows(image, view, rng), **said}

    def groups(self) -> list[NDArray[np.int64]]:
        """The items of each size."""
        images = self.latents.images
        copies = images * np.arange(len(self) // images)[:, None]
        return [(copies + group).ravel() for group in self.latents.views.groups(images)]


def weights_fingerprint(network: Component) -> str:
    """A text that changes with the weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


def _of_one_size(cache: LatentCache, places: NDArray[np.int64]) -> Iterator[NDArray[np.float16]]:
    """Rows of a cache (N, 2c or c, h, w), those of one size together."""
    if not cache.shapes:
        yield cache.moments[places]
        return
    rows = [cache.row(int(place)) for place in places]
    for shape in dict.fromkeys(row.shape for row in rows):
        yield np.stack([row for row in rows if row.shape == shape])


def measure_scale(cache: LatentCache, channels: int, images: int, rng: torch.Generator) -> float:
    """The latent scale 1 / std (appendix G of the paper).

    Args:
        cache: The latent cache.
        channels: The number of channels c of the latents.
        images: The number of images over which it is measured.
        rng: The generator that chooses these images.

    Raises:
        ConfigError: If all latents are equal, or some are not finite.
    """
    order = torch.randperm(len(cache), generator=rng).numpy()
    chosen = np.sort(order[~np.isin(order % cache.images, list(cache.bad))][:images])
    sums = np.zeros(4)  # of the means, of their squares, and of the posteriors' variances; and their number
    for start in range(0, len(chosen), 64):
        for alike in _of_one_size(cache, chosen[start : start + 64]):
            moments = alike.astype(np.float64)
            mean, logvar = moments[:, :channels], moments[:, channels:]
            variances = np.exp(np.clip(logvar, -30, 20))  # empty for a VQ model
            sums += [mean.sum(), np.square(mean).sum(), variances.sum(), mean.size]
    first, second, posterior = sums[:3] / sums[3]
    variance = second - first**2 + posterior
    if not 0 < variance < np.inf:
        raise ConfigError(f"the latents have a variance of {variance:g}, so they have no scale; train the first stage")
    return float(1 / np.sqrt(variance))
