"""How far decoded images are from their originals, in pixels and in the features of a VGG16."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.models.lpips import LPIPS, SMALLEST, PerceptualDistance
from latentdiff.training.first_stage.options import FirstStageLossOptions, LPIPSOptions

PIXEL_DISTANCES = {"l1": F.l1_loss, "l2": F.mse_loss}


def load_perceptual(options: LPIPSOptions, channels: int, resolution: int) -> PerceptualDistance:
    """The perceptual distance that a recipe names, which has to be able to see the images.

    Raises:
        ConfigError: If the images have too many channels or too few pixels.
        CheckpointError: If a file can't be loaded.
    """
    if channels not in (1, 3) or resolution < SMALLEST:
        raise ConfigError(
            f"loss.lpips is given for images of {channels} channels and {resolution} pixels; it sees 1 or 3 channels "
            f"and at least {SMALLEST} pixels, leave it out"
        )
    if options.preprocessing is not None:
        return PerceptualDistance.from_file(options.vgg16, options.preprocessing)
    return LPIPS.from_files(options.vgg16, options.heads)


class Reconstruction:
    """The distance in pixels, and by `perceptual_weight` that in features, both meant over images and elements.

    No module, so that the perceptual network, which stays as it is, is in no checkpoint.

    Args:
        options: Give the kind and the weight.
        perceptual: On the images' device; needed where the weight isn't 0.
    """

    def __init__(self, options: FirstStageLossOptions, perceptual: PerceptualDistance | None = None) -> None:
        self.distance, self.perceptual = PIXEL_DISTANCES[options.reconstruction], perceptual
        self.weight = options.perceptual_weight

    def __call__(
        self, decoded: Tensor, images: Tensor, of_pixels: float = 1.0, of_features: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The distance () of decoded images (B, C, H, W) from images of that shape, and values to log.

        Args:
            decoded: The decoded images.
            images: The images.
            of_pixels: Factor of the distance in pixels.
            of_features: Factor of the weight of that in features.
        """
        pixels, weight = self.distance(decoded, images), self.weight * of_features
        if not weight:
            return of_pixels * pixels, {"reconstruction": pixels.detach()}
        assert self.perceptual is not None
        features = self.perceptual(decoded, images).mean()
        values = {"reconstruction": pixels.detach(), self.perceptual.title: features.detach()}
        return of_pixels * pixels + weight * features, values
