"""What a first stage makes of images that are not trained on: figures and a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.evaluation.metrics import WINDOW, frechet_distance
from latentdiff.io.files import atomic_file
from latentdiff.pipelines.outputs import convert
from latentdiff.registry import METRICS
from latentdiff.training.first_stage.reconstruction import Reconstruction
from latentdiff.viz.grid import image_grid

SHOWN_IMAGES = 8  # images in a picture
Reconstruct = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Images (B, C, H, W) in [-1, 1] to the originals in [-1, 1] and the decoded ones in [0, 1], on the run's device."""


class Tensors(Protocol):
    """Images (C, H, W) in [-1, 1] by their number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Tensor: ...


class HeldOut:
    """Images that are not trained on, and what a first stage makes of them.

    Args:
        images: At least two.
        batch_size: How many are decoded at once.
        reconstruction: Gives the loss, and the perceptual network that some values need.
    """

    def __init__(self, images: Tensors, batch_size: int, reconstruction: Reconstruction) -> None:
        self.images, self.batch_size, self.reconstruction = images, batch_size, reconstruction

    @torch.no_grad()
    def look(self, reconstruct: Reconstruct, picture: Path) -> dict[str, float]:
        """Write a picture, the first images above their reconstructions, and return means over all images.

        Args:
            reconstruct: Of images that are held out, gives those to be compared and shown.
            picture: The file.

        Returns:
            `loss`, that of the reconstruction; every metric of the registry `METRICS`, such as `psnr` in dB; and with a
            perceptual network `lpips`, or `perceptual` where it has no learned weights, and `frechet_vgg16`: the
            Fréchet distance of its pooled features, which is no FID.
        """
        rows: dict[str, list[Tensor]] = {}
        shown: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(self.images), self.batch_size):
            numbers = range(start, min(start + self.batch_size, len(self.images)))
            images = torch.stack([self.images[number] for number in numbers])
            targets, decoded = reconstruct(images)
            shown += zip(targets.add(1).div(2).cpu(), decoded.cpu(), strict=True) if start < SHOWN_IMAGES else ()
            for name, values in self._compare(targets, decoded).items():
                rows.setdefault(name, []).append(values.cpu())
        _draw(shown[:SHOWN_IMAGES], picture)
        columns = {name: torch.cat(parts) for name, parts in rows.items()}
        features = [columns.pop(name) for name in ("real", "decoded") if name in columns]
        found = {name: float(values.mean()) for name, values in columns.items()}
        return {**found, "frechet_vgg16": frechet_distance(*features)} if features else found

    def _compare(self, images: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """A row for each of images in [-1, 1] and decoded ones in [0, 1]."""
        seen, targets, perceptual = decoded.mul(2).sub(1), images.add(1).div(2), self.reconstruction.perceptual
        loss, _ = self.reconstruction(seen, images)
        values = {"loss": loss.expand(len(images))}
        values |= {name: METRICS.get(name)(decoded, targets) for name in METRICS.names()}
        if perceptual is not None:
            values |= {perceptual.title: perceptual(seen, images)}
            values |= {"real": perceptual.pooled(images), "decoded": perceptual.pooled(seen)}
        return values


def check_held_out(images: Tensors, resolution: int) -> None:
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
    with atomic_file(picture) as aside:
        image_grid([image for row in rows for image in row], columns=len(pairs), margin=2).save(aside)
