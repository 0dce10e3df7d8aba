"""What a tiny decoder learns from: the latents of a trained first stage, and what that decodes them to."""

from __future__ import annotations

import torch
from torch import Tensor

from latentdiff.config import check
from latentdiff.data.latent_cache import weights_fingerprint
from latentdiff.errors import ConfigError
from latentdiff.models.latent_colours import LatentColours
from latentdiff.models.tiny_decoder import TinyDecoder
from latentdiff.pipelines import codec
from latentdiff.pipelines.preview import chosen_for_fit
from latentdiff.seeding import SampleGenerators
from latentdiff.training.first_stage.autoencoder import Autoencoder
from latentdiff.training.first_stage.held_out import Tensors
from latentdiff.types import JSON


class Teacher:
    """A first stage that stays as it is. No module, so that it is in no checkpoint.

    Args:
        vae: KL or VQ, on the device of the run.
    """

    def __init__(self, vae: Autoencoder) -> None:
        self.vae = vae.requires_grad_(False).eval()

    @torch.no_grad()
    def latents(self, images: Tensor, draws: SampleGenerators) -> Tensor:
        """Latents (B, c, h, w) of images (B, C, H, W) in [-1, 1]: draws from a KL posterior, or unquantised ones."""
        output = self.vae.encode(images)
        if not hasattr(output, "latent_dist"):
            latents: Tensor = output.latents
            return latents
        mean, std = output.latent_dist.mean, output.latent_dist.std
        drawn: Tensor = mean + std * draws.normal_like(mean)
        return drawn

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """The images (B, C, H, W) of its latents."""
        images: Tensor = self.vae.decode(latents).sample
        return images

    def fingerprint(self) -> str:
        """What tells its weights from others."""
        return weights_fingerprint(self.vae)


def make_tiny_decoder(options: JSON, vae: Autoencoder, images: Tensors) -> TinyDecoder:
    """A new decoder of a first stage's latents, with that one's map from latents to colours.

    Args:
        options: Constructor arguments of `TinyDecoder`; those that follow from the first stage may be left out.
        vae: The first stage, which stays as it is.
        images: (C, H, W) in [-1, 1], of which some are encoded to measure the latents' scale.

    Raises:
        ConfigError: If the arguments are not those of the class, or don't fit the first stage.
    """
    config = vae.config
    size = len(config.block_out_channels)
    follows = {name: config[name] for name in ("latent_channels", "in_channels", "out_channels", "scaling_factor")}
    follows["shift_factor"] = config.get("shift_factor")
    for name, value in follows.items():
        check(
            options.get(name, value) == value,
            f"decoder.{name} is {options.get(name)!r}, but the first stage has {value!r}; leave it out",
        )
    defaults = {**follows, "block_out_channels": [64] * size, **options}
    if "latent_scale" not in options:
        chosen = torch.stack([images[number] for number in chosen_for_fit(len(images), images[0].shape[-1])])
        defaults["latent_scale"] = float(1 / codec.encode(vae, chosen, scaled=False).float().std())
    try:
        decoder: TinyDecoder = TinyDecoder(**defaults)
    except TypeError as error:
        raise ConfigError(f"decoder does not fit TinyDecoder ({error}); see its documentation") from None
    levels = len(decoder.config.block_out_channels)
    check(levels == size, f"decoder.block_out_channels has {levels} levels, but the first stage {size}; give as many")
    colours = LatentColours.of(vae)
    if colours is not None:
        colours.store(decoder)
    return decoder
