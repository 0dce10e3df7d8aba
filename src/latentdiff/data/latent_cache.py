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

from latentdiff.data.bad_files import BadFiles
from latentdiff.data.images import Images
from latentdiff.data.stream import Visited
from latentdiff.errors import BadFileError, ConfigError, InputError
from latentdiff.io.files import atomic_folder
from latentdiff.seeding import array_generator


class LatentCache(Dataset[torch.Tensor]):
    """What the first stage makes of each image, unscaled, stored as float16.

    That is (2c, h, w) of a KL posterior, means and then log variances, or the unquantised latents (c, h, w) of a VQ
    model. Row i is image i; with `random_flip`, row N + i is its mirror image.

    Args:
        folder: Made by `cache_latents`.
        images: The number N of images.

    Attributes:
        bad: Numbers of images that couldn't be decoded, to the reason.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images = folder, images
        self.moments = np.load(folder / "moments.npy", mmap_mode="r")
        bad = json.loads((folder / "meta.json").read_text())["bad"]
        self.bad = {int(image): reason for image, reason in bad.items()}

    def __reduce__(self) -> tuple[type[LatentCache], tuple[Path, int]]:
        return LatentCache, (self.folder, self.images)  # a process that starts afresh maps the file, too, not a copy

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index % self.images in self.bad:
            raise BadFileError(self.bad[index % self.images])
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


class _Attempts(Dataset[Any]):
    """Images, or the reasons why they can't be decoded."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor | str:
        try:
            return self.images[index]
        except BadFileError as error:
            return str(error)


def weights_of(network: nn.Module) -> str:
    """Changes with the weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def cache_latents(
    folder: Path,
    vae: Any,
    images: Images,
    bad_files: BadFiles,
    *,
    random_flip: bool,
    batch_size: int = 64,
    autocast: bool = False,
    resuming: bool = False,
) -> LatentCache:
    """The cache of `images` in `folder`, encoded now unless it is there for these very weights and files.

    Args:
        folder: Of the cache.
        vae: The first stage, where it is to encode.
        images: To encode.
        bad_files: Where images that can't be decoded are said; the cache raises BadFileError for them.
        random_flip: Whether mirror images are encoded, too.
        batch_size: Images encoded at once.
        autocast: Whether to encode in bfloat16.
        resuming: Whether a run goes on, whose latents have to be the same first stage's.

    Raises:
        ConfigError: If they aren't.
        InputError: If too many images can't be decoded.
    """
    stamp = {"first_stage": weights_of(vae), "images": images.fingerprint(), "random_flip": random_flip}
    there = _stamp_of(folder)
    if stamp.items() <= there.items():
        cache = LatentCache(folder, len(images))
        for image, reason in cache.bad.items():
            bad_files.add(str(images.files[image]), reason)
        return cache
    if resuming and there.get("first_stage", stamp["first_stage"]) != stamp["first_stage"]:
        raise ConfigError(
            f"the latents in {folder} are of another first stage; resume with the first stage that the run began with, "
            "or begin anew in another output_dir"
        )
    with atomic_folder(folder) as aside:
        bad = _encode(aside / "moments.npy", vae, images, bad_files, 1 + random_flip, batch_size, autocast)
        (aside / "meta.json").write_text(json.dumps({**stamp, "bad": bad}))
    return LatentCache(folder, len(images))


def _stamp_of(folder: Path) -> dict[str, Any]:
    """What the cache in a folder was made of; empty if there is none."""
    try:
        stamp: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        return stamp
    except (OSError, ValueError):
        return {}


def _encode(
    file: Path, vae: Any, images: Images, bad_files: BadFiles, copies: int, batch_size: int, autocast: bool
) -> dict[int, str]:
    """Write the moments; returns the numbers of the images that can't be decoded, with the reasons."""
    device = next(vae.parameters()).device
    bad: dict[int, str] = {}
    rows: np.memmap[Any, np.dtype[np.float16]] | None = None
    start = 0
    for batch in tqdm(DataLoader(_Attempts(images), batch_size, collate_fn=list), desc="encoding images"):
        for place, item in enumerate(batch, start):
            if isinstance(item, str):
                bad[place] = item
                bad_files.add(str(images.files[place]), item)
        places = np.array([place for place, item in enumerate(batch, start) if not isinstance(item, str)], dtype=int)
        start += len(batch)
        if not len(places):
            continue
        whole = torch.stack([item for item in batch if not isinstance(item, str)])
        for copy in range(copies):
            pixels = (whole.flip(-1) if copy else whole).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                moments = _moments(vae.encode(pixels)).float().cpu().numpy()
            if rows is None:
                shape = (copies * len(images), *moments.shape[1:])
                rows = np.lib.format.open_memmap(file, "w+", np.float16, shape)
            rows[copy * len(images) + places] = moments
    if rows is None:
        raise InputError(f"{images.root}: no image can be decoded, the first: {bad[0]}; give others")
    rows.flush()
    return bad


def _moments(encoded: Any) -> torch.Tensor:
    moments: torch.Tensor = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latents
    return moments


def measure_scale(cache: LatentCache, channels: int, images: int, rng: torch.Generator) -> float:
    """The latent scale 1 / std over `images` images (appendix G of the paper); latents have `channels` channels.

    Raises:
        ConfigError: If they are all alike, or not finite.
    """
    order = torch.randperm(len(cache), generator=rng).numpy()
    chosen = np.sort(order[~np.isin(order % cache.images, list(cache.bad))][:images])
    sums = np.zeros(3)  # of means, of their squares, of variances
    for start in range(0, len(chosen), 64):
        moments = cache.moments[chosen[start : start + 64]].astype(np.float64)
        mean, logvar = moments[:, :channels], moments[:, channels:]
        sums += mean.sum(), np.square(mean).sum(), np.exp(np.clip(logvar, -30, 20)).sum() if logvar.size else 0
    first, second, posterior = sums / (len(chosen) * np.prod(cache.moments.shape[2:]) * channels)
    variance = second - first**2 + posterior
    if not 0 < variance < np.inf:
        raise ConfigError(f"the latents have a variance of {variance:g}, so they have no scale; train the first stage")
    return float(1 / np.sqrt(variance))
