"""Images with holes, drawn anew at every visit (section 4.5 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.views import View
from latentdiff.registry import MASKS
from latentdiff.training.diffusion.conditioners.beside_text import BesideTextConditioner
from latentdiff.training.diffusion.conditioners.options import InpaintOptions


class InpaintConditioner(BesideTextConditioner[InpaintOptions]):
    """Conditions on images with holes: the network sees the masked image's latents and the mask, and a caption if any.

    The first stage encodes at every step, as the masks are drawn anew at every visit.
    """

    options_class = InpaintOptions

    @classmethod
    def channels(cls, latent_channels: int) -> int:
        """The latents of the masked image, and the mask."""
        return latent_channels + 1

    def channel_rows(self, images: Images) -> Rows:
        """Rows of `pixels`, the image (C, H, W) in [-1, 1], and `holes` (1, H, W), 1 in holes and 0 elsewhere."""
        return _Masked(images, self.options.masks)

    def without(self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor) -> dict[str, torch.Tensor]:
        """An image that is one hole, where it is dropped."""
        return {**batch, "holes": batch["holes"].masked_fill(dropped[:, None, None, None], 1.0)}

    def concat(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The masked images' latents and the masks."""
        shown: torch.Tensor = self.pipeline.encode_masked(batch["pixels"], batch["holes"])
        return shown


class _Masked:
    """Draws masks by weight.

    Args:
        images: To be masked.
        weights: Names of the registry `MASKS` to how often each is drawn, relative to each other.
    """

    def __init__(self, images: Images, weights: Mapping[str, float]) -> None:
        self.images = images
        self.generators = [MASKS.get(name) for name in weights]
        self.shares = np.array(list(weights.values()), dtype=np.float64) / sum(weights.values())
        for size in images.views.shapes:
            for generator in self.generators:  # says what can't be drawn at this size
                generator(size, np.random.default_rng(0))

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        pixels = self.images.at(image, view)
        mask = self.generators[rng.choice(len(self.generators), p=self.shares)](view.size, rng)
        return {"pixels": pixels, "holes": torch.from_numpy(mask)[None].float()}
