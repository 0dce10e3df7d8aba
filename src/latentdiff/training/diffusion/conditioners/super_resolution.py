"""Low-resolution images, made of the training images themselves (section 4.4 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np
import torch
from PIL import Image

from latentdiff.data.degradations import Degradation
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.views import View
from latentdiff.errors import BadFileError, ConfigError
from latentdiff.io.images import to_tensor
from latentdiff.registry import DEGRADATIONS
from latentdiff.training.diffusion.conditioners.beside_text import BesideTextConditioner
from latentdiff.training.diffusion.conditioners.options import SuperResolutionOptions


class SuperResolutionConditioner(BesideTextConditioner[SuperResolutionOptions]):
    """Conditions on small images, which have the latents' size and are degraded anew at every visit."""

    options_class = SuperResolutionOptions

    @classmethod
    def channels(cls, latent_channels: int) -> int:
        """Those of RGB."""
        return 3

    def channel_rows(self, images: Images) -> Rows:
        """Rows of `small`, the small image (3, h, w) in [-1, 1]."""
        if images.channels != 3:
            raise ConfigError(
                f"the first stage has {images.channels} channels; super-resolution needs one of 3, which are RGB"
            )
        rows = _SmallImages(images, DEGRADATIONS.get(self.options.degradation), self.pipeline.upscale_factor)
        with suppress(BadFileError):  # only to say what the degradation doesn't take
            rows(0, images.views.copy(0, 0), np.random.default_rng(0))
        return rows

    def without(self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor) -> dict[str, torch.Tensor]:
        """A grey small image, where it is dropped."""
        return {**batch, "small": batch["small"].masked_fill(dropped[:, None, None, None], 0.0)}

    def concat(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The small images."""
        return batch["small"]


class _SmallImages:
    def __init__(self, images: Images, degradation: Degradation, factor: int) -> None:
        self.images, self.degradation, self.factor = images, degradation, factor

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        pixels = np.asarray(self.images.picture(image, view))
        return {"small": to_tensor(Image.fromarray(self.degradation(pixels, rng, self.factor)))}
