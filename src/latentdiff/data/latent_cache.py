"""First-stage posteriors of a whole data set, encoded once and read from disk as they are needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from latentdiff.data.folder import ImageFolder
from latentdiff.io.files import atomic_folder


class LatentCache(Dataset[torch.Tensor]):
    """Posterior parameters (2c, h, w) of each image: means, then log variances, unscaled; stored as float16.

    Row i is image i; with `random_flip`, row N + i is its mirror image.

    Args:
        folder: Made by `cache_latents`.
    """

    def __init__(self, folder: Path) -> None:
        self.moments = np.load(folder / "moments.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.moments[index].astype(np.float32))


class LatentRows(Dataset[dict[str, torch.Tensor]]):
    """Rows of a latent cache as `moments` (2c, h, w), with what is known of each image beside them.

    Args:
        latents: The cache, of N images or of N images and their mirror images.
        **columns: Tensors (N, ...), of which mirror images get the same rows; small integers are made int64.
    """

    def __init__(self, latents: LatentCache, **columns: torch.Tensor) -> None:
        self.latents, self.columns = latents, columns

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        columns = {name: column[index % len(column)].long() for name, column in self.columns.items()}
        return {"moments": self.latents[index], **columns}


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
        return LatentCache(folder)
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
                    moments = vae.encode(pixels).latent_dist.parameters.float().cpu().numpy()
                if rows is None:
                    shape = (copies * len(images), *moments.shape[1:])
                    rows = np.lib.format.open_memmap(aside / "moments.npy", "w+", np.float16, shape)
                at = copy * len(images) + start
                rows[at : at + len(moments)] = moments
            start += len(batch)
        assert rows is not None
        rows.flush()
        (aside / "meta.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return LatentCache(folder)


def measure_scale(cache: LatentCache, images: int, rng: torch.Generator) -> float:
    """The latent scale 1 / std of posterior samples over `images` images (appendix G of the paper)."""
    chosen = torch.randperm(len(cache), generator=rng)[:images].sort().values.numpy()
    mean, logvar = np.split(cache.moments[chosen].astype(np.float64), 2, axis=1)
    variance = mean.var() + np.exp(np.clip(logvar, -30, 20)).mean()
    return float(1 / np.sqrt(variance))
