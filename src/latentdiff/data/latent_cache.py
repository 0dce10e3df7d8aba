"""First-stage posteriors of a whole data set, encoded once and read from disk as they are needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from latentdiff.data.folder import ImageFolder
from latentdiff.data.stream import Visited
from latentdiff.io.files import atomic_folder
from latentdiff.seeding import array_generator


class LatentCache(Dataset[torch.Tensor]):
    """What the first stage makes of each image, unscaled, stored as float16.

    That is (2c, h, w) of a KL posterior, means and then log variances, or the unquantised latents (c, h, w) of a VQ
    model. Row i is image i; with `random_flip`, row N + i is its mirror image.

    Args:
        folder: Made by `cache_latents`.
        images: The number N of images.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.images = images
        self.moments = np.load(folder / "moments.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.moments[index].astype(np.float32))


class Rows(Protocol):
    """What goes into a batch beside an image's latents."""

    def __call__(self, image: int, mirrored: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Names to tensors for image number `image`, or its mirror image, at one visit; all draws come from `rng`."""


class Columns:
    """Rows of tensors (N, ...) that mirror images have too; small integers are made int64."""

    def __init__(self, **columns: torch.Tensor) -> None:
        self.columns = columns

    def __call__(self, image: int, mirrored: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """See `Rows`."""
        return {name: column[image].long() for name, column in self.columns.items()}


class LatentRows(Visited):
    """Rows of a latent cache as `moments`, with what is known of each image beside them.

    Args:
        latents: The cache.
        rows: What is known.
        seed: The generator of a visit depends on it and the number of the visit.
    """

    def __init__(self, latents: LatentCache, rows: Rows, seed: int = 0) -> None:
        self.latents, self.rows, self.seed = latents, rows, seed

    def __len__(self) -> int:
        return len(self.latents)

    def visit(self, index: int, number: int) -> dict[str, torch.Tensor]:
        """Row `index` of the cache as sample `number` of the run."""
        mirrored, image = divmod(index, self.latents.images)
        rng = array_generator(self.seed, number)
        return {"moments": self.latents[index], **self.rows(image, bool(mirrored), rng)}


def _fingerprint(vae: nn.Module, images: ImageFolder, random_flip: bool) -> str:
    """Changes with the weights, the files (name, size, time) and how they are read."""
    digest = hashlib.sha256(f"{images.resolution} {random_flip}".encode())
    for name, tensor in vae.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    for path in images.paths:
        stat = path.stat()
        digest.update(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


@torch.no_grad()
def cache_latents(
    folder: Path,
    vae: Any,
    images: ImageFolder,
    *,
    random_flip: bool,
    batch_size: int = 64,
    autocast: bool = False,
) -> LatentCache:
    """The cache of `images` in `folder`, encoded now unless it is there for these very weights and files."""
    fingerprint = _fingerprint(vae, images, random_flip)
    meta = folder / "meta.json"
    if meta.exists() and json.loads(meta.read_text())["fingerprint"] == fingerprint:
        return LatentCache(folder, len(images))
    device = next(vae.parameters()).device
    copies = 2 if random_flip else 1
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as aside:
        rows: np.memmap[Any, np.dtype[np.float16]] | None = None
        start = 0
        for batch in tqdm(DataLoader(images, batch_size=batch_size), desc="encoding images"):
            for copy in range(copies):
                pixels = (batch.flip(-1) if copy else batch).to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                    moments = _moments(vae.encode(pixels)).float().cpu().numpy()
                if rows is None:
                    shape = (copies * len(images), *moments.shape[1:])
                    rows = np.lib.format.open_memmap(aside / "moments.npy", "w+", np.float16, shape)
                at = copy * len(images) + start
                rows[at : at + len(moments)] = moments
            start += len(batch)
        assert rows is not None
        rows.flush()
        (aside / "meta.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return LatentCache(folder, len(images))


def _moments(encoded: Any) -> torch.Tensor:
    moments: torch.Tensor = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latents
    return moments


def measure_scale(cache: LatentCache, channels: int, images: int, rng: torch.Generator) -> float:
    """The latent scale 1 / std over `images` images (appendix G of the paper); latents have `channels` channels."""
    chosen = torch.randperm(len(cache), generator=rng)[:images].sort().values.numpy()
    moments = cache.moments[chosen].astype(np.float64)
    mean, logvar = moments[:, :channels], moments[:, channels:]
    variance = mean.var() + (np.exp(np.clip(logvar, -30, 20)).mean() if logvar.size else 0)
    return float(1 / np.sqrt(variance))
