"""How far decoded images are from their originals, and what of it is logged and shown for images held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.evaluation.metrics import WINDOW, frechet_distance, psnr, ssim
from latentdiff.models.lpips import LPIPS, SMALLEST, PerceptualDistance
from latentdiff.pipelines.codec import decode, encode
from latentdiff.pipelines.outputs import convert
from latentdiff.training.recipes import FirstStageRecipe
from latentdiff.viz.grid import image_grid

DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}
SHOWN = 8  # images in a picture


def load_perceptual(options: Mapping[str, Any], channels: int, resolution: int) -> PerceptualDistance:
    """The perceptual distance that a recipe's `lpips` names, which has to be able to see the images.

    Raises:
        ConfigError: If the options are none, or the images have too many channels or too few pixels.
        CheckpointError: If a file can't be loaded.
    """
    if channels not in (1, 3) or resolution < SMALLEST:
        raise ConfigError(
            f"lpips is given for images of {channels} channels and {resolution} pixels; it sees 1 or 3 channels "
            f"and at least {SMALLEST} pixels, leave it out"
        )
    load = PerceptualDistance.from_file if "preprocessing" in options else LPIPS.from_files
    try:
        return load(**options)
    except TypeError as error:
        raise ConfigError(
            f"lpips does not fit ({error}); give {{vgg16: FILE, heads: FILE}}, or, without learned weights, "
            "{vgg16: FILE, preprocessing: torchvision or caffe}"
        ) from None


class Reconstruction:
    """The distance in pixels, and by `perceptual_weight` that in features, both meant over images and elements.

    No module, so that the perceptual network, which stays as it is, is in no checkpoint.

    Args:
        recipe: Gives the kind and the weight.
        perceptual: On the images' device; needed where the weight isn't 0.
    """

    def __init__(self, recipe: FirstStageRecipe, perceptual: PerceptualDistance | None = None) -> None:
        self.distance, self.weight, self.perceptual = (
            DISTANCES[recipe.reconstruction],
            recipe.perceptual_weight,
            perceptual,
        )

    def __call__(self, decoded: Tensor, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The distance () of decoded images (B, C, H, W) from images of that shape, and values to log."""
        pixels = self.distance(decoded, images)
        if not self.weight:
            return pixels, {"reconstruction": pixels.detach()}
        assert self.perceptual is not None
        features = self.perceptual(decoded, images).mean()
        values = {"reconstruction": pixels.detach(), "lpips": features.detach()}
        return pixels + self.weight * features, values


class HeldOut:
    """Images that are not trained on, and what a first stage makes of them.

    Args:
        images: (C, H, W) in [-1, 1] each, at least two.
        batch_size: How many are decoded at once.
        reconstruction: For the loss, and the values that need its perceptual network.
    """

    def __init__(self, images: Sequence[Tensor], batch_size: int, reconstruction: Reconstruction) -> None:
        self.images, self.batch_size, self.reconstruction = images, batch_size, reconstruction

    @torch.no_grad()
    def look(self, vae: Any, picture: Path) -> dict[str, float]:
        """Write a picture, the first images above their reconstructions, and return means over all images.

        Returns:
            `loss`, that of the reconstruction, `psnr` in dB, `ssim`, and with a perceptual network `lpips` and
            `frechet_lpips`: the Fréchet distance of its pooled features, which is no FID.
        """
        rows: dict[str, list[Tensor]] = {}
        shown: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(self.images), self.batch_size):
            numbers = range(start, min(start + self.batch_size, len(self.images)))
            images = torch.stack([self.images[number] for number in numbers])
            decoded = decode(vae, encode(vae, images, scaled=True))
            shown += zip(images.add(1).div(2), decoded, strict=True) if start < SHOWN else ()
            for name, values in self._compare(images.to(vae.device), decoded.to(vae.device)).items():
                rows.setdefault(name, []).append(values.cpu())
        _draw(shown[:SHOWN], picture)
        columns = {name: torch.cat(parts) for name, parts in rows.items()}
        features = [columns.pop(name) for name in ("real", "decoded") if name in columns]
        found = {name: float(values.mean()) for name, values in columns.items()}
        return {**found, "frechet_lpips": frechet_distance(*features)} if features else found

    def _compare(self, images: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """A row for each of images in [-1, 1] and decoded ones in [0, 1]."""
        seen, targets, perceptual = decoded.mul(2).sub(1), images.add(1).div(2), self.reconstruction.perceptual
        loss, _ = self.reconstruction(seen, images)
        values = {"loss": loss.expand(len(images)), "psnr": psnr(decoded, targets), "ssim": ssim(decoded, targets)}
        if perceptual is not None:
            values |= {"lpips": perceptual(seen, images)}
            values |= {"real": perceptual.pooled(images), "decoded": perceptual.pooled(seen)}
        return values


def check_held_out(images: Sequence[Tensor], resolution: int) -> None:
    """Refuse what can't be measured.

    Raises:
        ConfigError: If there are less than two images, or they are smaller than SSIM's window.
    """
    if len(images) < 2 or resolution < WINDOW:
        raise ConfigError(
            f"{len(images)} images of {resolution} pixels are held out; validation needs at least 2 of {WINDOW} pixels"
        )


def _draw(pairs: Sequence[tuple[Tensor, Tensor]], picture: Path) -> None:
    """Images above their reconstructions; of more than three channels the first three, of two the first."""
    channels = 3 if len(pairs[0][0]) >= 3 else 1
    rows = [convert(torch.stack(row)[:, :channels], "pil") for row in zip(*pairs, strict=True)]
    image_grid([image for row in rows for image in row], columns=len(pairs), margin=2).save(picture)
