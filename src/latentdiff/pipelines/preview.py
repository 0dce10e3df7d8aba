"""Small pictures of latents, at hardly any cost: each latent pixel gets a colour by a linear map."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from diffusers.pipelines.pipeline_utils import DiffusionPipeline as StockPipeline
from PIL import Image
from torch import Tensor

from latentdiff.errors import ConfigError, InputError
from latentdiff.io.inputs import read_images
from latentdiff.models.latent_colours import LatentColours
from latentdiff.pipelines import codec
from latentdiff.seeding import generator
from latentdiff.types import FirstStage, ImageInput

SIDE = 16  # of latents that are drawn for a fit
PIXELS = 2**17  # that are decoded for it, where the channels don't ask for more
ROWS_A_NUMBER = 16  # latent pixels for each number of the map that is fitted


class PreviewMixin(StockPipeline):  # type: ignore[misc]
    """A pipeline's previews.

    Attributes:
        vae: First stage, KL or VQ.
    """

    vae: FirstStage

    def preview(self, latents: Tensor) -> list[Image.Image]:
        """Small pictures of scaled latents, a pixel for each of theirs; the decoder isn't used.

        In a callback, `pipe.preview(tensors["pred_original_sample"])` shows what the run is heading for.

        Args:
            latents: (B, C, h, w), as callbacks receive them and `output_type="latent"` gives them.

        Returns:
            Pictures of w x h pixels, RGB, or grey for a first stage of grey images.

        Raises:
            ConfigError: If the first stage has no map from latents to colours; `fit_preview` fits one.
            InputError: If the latents are not those of the first stage.
        """
        colours, channels = LatentColours.of(self.vae), self.vae.config.latent_channels
        if colours is None:
            raise ConfigError("the first stage has no map from latents to colours; call pipe.fit_preview() once")
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise InputError(f"latents have shape {tuple(latents.shape)}; preview takes (B, {channels}, h, w)")
        pixels = colours.pixels(latents, self.vae.config.scaling_factor, codec.shift(self.vae))
        return [Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image) for image in pixels]

    def fit_preview(self, images: ImageInput | None = None) -> float:
        """Fit the map from latents to colours by least squares, and put it into the first stage's configuration.

        The colours are those of the decoded images, shrunk to the latents' size. `save_pretrained` and `push_to_hub`
        write the map with the first stage, and plain diffusers loads and keeps it.

        Args:
            images: Some dozens of images of one size, like those that the model makes; by default latents are drawn
                as coarse and fine as those of images, whose colours are less true: docs/viz.md has figures.

        Returns:
            The share of the variance of these colours that the map explains, R^2.

        Raises:
            InputError: If the images can't be read, or their sides are no multiples of what a latent pixel covers.
            NonFiniteError: If the first stage makes something else than finite numbers of them.
        """
        if images is None:
            latents = drawn_latents(self.vae).to(self._execution_device)
        else:
            pixels = read_images(images, channels=self.vae.config.in_channels)
            unit = codec.factor(self.vae)
            if any(side % unit for side in pixels.shape[-2:]):
                size = f"{pixels.shape[-1]}x{pixels.shape[-2]}"
                raise InputError(f"images are {size} pixels; their sides must be multiples of {unit}")
            latents = codec.encode(self.vae, pixels, scaled=True)
        explained = fit(self.vae, latents)
        self.maybe_free_model_hooks()
        return explained


def fit(vae: FirstStage, latents: Tensor) -> float:
    """Fit a first stage's map on scaled latents (B, C, h, w), store it in the configuration, and return its R^2.

    Raises:
        NonFiniteError: If the decoded images are not finite.
    """
    images = codec.decode(vae, latents).mul_(2).sub_(1)
    images = images[:, : 3 if images.shape[1] >= 3 else 1]
    colours, own = F.avg_pool2d(images, codec.factor(vae)), codec.unscaled(vae, latents.float())
    found = LatentColours.fit(own, colours)
    found.store(vae)
    return found.explained(own, colours)


def drawn_latents(vae: FirstStage) -> Tensor:
    """Scaled latents (B, C, 16, 16) of variance 1, as coarse and fine as those of images: octaves have equal power."""
    channels, unit = vae.config.latent_channels, codec.factor(vae)
    count = math.ceil(max(PIXELS / unit**2, ROWS_A_NUMBER * (channels + 1)) / SIDE**2)
    sides, rng = [2**octave for octave in range(SIDE.bit_length())], generator(0)
    octaves = (torch.randn(count, channels, side, side, generator=rng) for side in sides)
    latents = torch.stack([F.interpolate(noise, size=(SIDE, SIDE), mode="bilinear") for noise in octaves]).sum(dim=0)
    return latents / latents.std()


def chosen_for_fit(count: int, side: int) -> Iterator[int]:
    """The numbers of those images, of `count` with `side` pixels a side, that a map is fitted on."""
    wanted = min(count, max(8, PIXELS // side**2))
    return (number * count // wanted for number in range(wanted))
