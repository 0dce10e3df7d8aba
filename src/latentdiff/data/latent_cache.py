"""The latent cache: the first-stage posteriors of a whole data set, encoded once and read from disk when needed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from latentdiff.data.bad_files import BadFiles
from latentdiff.data.images import Images
from latentdiff.data.stream import VisitedDataset
from latentdiff.errors import BadFileError, ConfigError, InputError
from latentdiff.io.files import atomic_folder
from latentdiff.io.mapped import Mapped, MappedArray, create_mapped
from latentdiff.seeding import array_generator
from latentdiff.types import JSON, Component, FirstStage


class LatentCache(Dataset[torch.Tensor]):
    """The unscaled latents of each image, stored as float16.

    A row is the posterior (2c, h, w) of a KL model, the means and then the log variances, or the unquantised latents
    (c, h, w) of a VQ model. Row i is image i; with `random_flip`, row N + i is its mirror image.

    Args:
        folder: The folder that `cache_latents` made.
        images: The number N of images.

    Attributes:
        first_stage: The fingerprint of the weights that made it.
        bad: The numbers of images that can't be decoded, with the reasons.

    Raises:
        OSError, ValueError, KeyError: If the cache is of other images, or not whole.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images = folder, images
        self.moments: NDArray[np.float16] = MappedArray(folder / "moments.npy").rows
        if len(self.moments) not in (images, 2 * images):
            raise ValueError(f"{folder} has {len(self.moments)} latents of {images} images")
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        self.first_stage = str(meta["first_stage"])
        self.bad = {int(image): str(reason) for image, reason in meta["bad"].items()}

    def __reduce__(self) -> tuple[type[LatentCache], tuple[Path, int]]:
        return LatentCache, (self.folder, self.images)  # a process that starts afresh maps the file, too, not a copy

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index % self.images in self.bad:
            raise BadFileError(self.bad[index % self.images])
        return torch.from_numpy(self.moments[index].astype(np.float32))


class Rows(Protocol):
    """The source of the tensors that a batch has beside the latents, such as the classes or masks of the images."""

    def __call__(self, image: int, mirrored: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The tensors of an image at one visit, by their names in the batch.

        Args:
            image: The number of the image.
            mirrored: Whether the visit is to its mirror image.
            rng: Source of all randomness.
        """


class Columns:
    """`Rows` of integer tensors (N, ...), which are the same for an image and its mirror image; rows are int64."""

    def __init__(self, **columns: torch.Tensor) -> None:
        self.columns = columns

    def __call__(self, image: int, mirrored: bool, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """The row of an image in each tensor, as the protocol `Rows` describes."""
        return {name: column[image].long() for name, column in self.columns.items()}


class LatentRows(VisitedDataset[dict[str, torch.Tensor]]):
    """The rows of a latent cache, as `moments`, with the tensors that belong to each image.

    Args:
        latents: The cache.
        rows: The source of the other tensors.
        seed: The seed of the run; the generator of a visit depends on it and on the number of the sample.
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


class _ImagesOrReasons(Dataset[torch.Tensor | str]):
    """Images, or for those that can't be decoded the reason."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor | str:
        try:
            return self.images[index]
        except BadFileError as error:
            return str(error)


def weights_fingerprint(network: Component) -> str:
    """A text that changes with the weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def cache_latents(
    folder: Path,
    vae: FirstStage,
    images: Images,
    bad_files: BadFiles,
    *,
    random_flip: bool,
    batch_size: int = 64,
    autocast: bool = False,
    first_stage: str | None = None,
) -> LatentCache:
    """The latent cache in a folder, which is made unless there is one of the same weights and the same files.

    Args:
        folder: The folder of the cache.
        vae: The first stage, on the device that encodes.
        images: The images to encode.
        bad_files: The reporter of images that can't be decoded; for these, the cache raises BadFileError.
        random_flip: Whether mirror images are encoded, too.
        batch_size: The number of images that are encoded at once.
        autocast: Whether to encode in bfloat16.
        first_stage: The fingerprint of the weights that a resumed run began with.

    Raises:
        ConfigError: If these are other weights.
        InputError: If too many images can't be decoded.
    """
    stamp = {"first_stage": weights_fingerprint(vae), "images": images.fingerprint(), "random_flip": random_flip}
    if first_stage not in (None, stamp["first_stage"]):
        raise ConfigError(
            f"the latents of the run in {folder.parent} are of another first stage; resume with the first stage that "
            "the run began with, or begin anew in another output_dir"
        )
    there = _stamp_of(folder)
    if stamp.items() <= there.items() and (cache := _whole_cache(folder, len(images))):
        for image, reason in cache.bad.items():
            bad_files.add(str(images.files[image]), reason)
        return cache
    with atomic_folder(folder) as aside:
        copies = 2 if random_flip else 1
        bad = _encode(aside / "moments.npy", vae, images, bad_files, copies, batch_size, autocast)
        (aside / "meta.json").write_text(json.dumps({**stamp, "bad": bad}), encoding="utf-8")
    return LatentCache(folder, len(images))


def _whole_cache(folder: Path, images: int) -> LatentCache | None:
    """The cache in a folder; None if it is damaged or cut off, so that it has to be made anew."""
    try:
        return LatentCache(folder, images)
    except (OSError, ValueError, KeyError):
        return None


def _stamp_of(folder: Path) -> JSON:
    """The stamp of the cache in a folder, which says what it was made from; empty if there is no cache."""
    try:
        stamp = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def _encode(
    file: Path, vae: FirstStage, images: Images, bad_files: BadFiles, copies: int, batch_size: int, autocast: bool
) -> dict[int, str]:
    """Encode images into a file; for `copies` of 2, their mirror images follow.

    Returns:
        The numbers of the images that can't be decoded, with the reasons.
    """
    device = next(vae.parameters()).device
    bad: dict[int, str] = {}
    rows: Mapped[np.float16] | None = None
    start = 0
    for batch in tqdm(DataLoader(_ImagesOrReasons(images), batch_size, collate_fn=list), desc="encoding images"):
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
                moments = _moments(vae, pixels).float().cpu().numpy()
            if rows is None:
                shape = (copies * len(images), *moments.shape[1:])
                rows = create_mapped(file, np.float16, shape)
            rows[copy * len(images) + places] = moments
    if rows is None:
        raise InputError(f"{images.root}: no image can be decoded, the first: {bad[0]}; give others")
    rows.flush()
    return bad


def _moments(vae: FirstStage, pixels: torch.Tensor) -> torch.Tensor:
    """The row of the cache for each image, as `LatentCache` describes it."""
    encoded = vae.encode(pixels)
    moments: torch.Tensor = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latents
    return moments


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
    sums = np.zeros(3)  # of the means, of their squares, and of the posteriors' variances
    for start in range(0, len(chosen), 64):
        moments = cache.moments[chosen[start : start + 64]].astype(np.float64)
        mean, logvar = moments[:, :channels], moments[:, channels:]
        variances = np.exp(np.clip(logvar, -30, 20))  # empty for a VQ model
        sums += [mean.sum(), np.square(mean).sum(), variances.sum()]
    first, second, posterior = sums / (len(chosen) * np.prod(cache.moments.shape[2:]) * channels)
    variance = second - first**2 + posterior
    if not 0 < variance < np.inf:
        raise ConfigError(f"the latents have a variance of {variance:g}, so they have no scale; train the first stage")
    return float(1 / np.sqrt(variance))
