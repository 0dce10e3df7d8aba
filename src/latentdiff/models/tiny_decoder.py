"""A tiny decoder of another first stage's latents, after TAESD.

The layout is that of the decoder of Bohan's Tiny AutoEncoder for Stable Diffusion (2023,
https://github.com/madebyollin/taesd) as its README and the model's description say it: latents bounded softly, plain
convolutions in residual blocks with ReLU, nearest-neighbour upsampling, no attention and no normalisation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NoReturn

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from latentdiff.errors import ConfigError, InputError

BOUND = 3.0  # what latents of variance 1 are bounded to; hardly any lies beyond


class ResidualBlock(nn.Module):
    """Three convolutions beside a connection that skips them: (B, C, H, W) to (B, C, H, W).

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)]
        self.layers = nn.Sequential(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2])

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the block."""
        return torch.relu(hidden + self.layers(hidden))


class TinyDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A first stage that only decodes, many times faster and a little worse than the one that it was distilled from.

    `latentdiff train first-stage --distill-decoder` trains it, `pipe.set_decoder` puts it in its teacher's place.

    Args:
        latent_channels: Channels of the latents.
        in_channels: Channels of the images that the teacher encodes.
        out_channels: Channels of the images.
        block_out_channels: Channels of every level, fine to coarse; each but the first halves the resolution.
        layers_per_block: Residual blocks of a level; the finest has one.
        latent_scale: The factor that gives the teacher's own latents variance 1.
        scaling_factor: The factor by which latents are multiplied for the diffusion model.
        shift_factor: What is subtracted from latents before; None for nothing.

    Raises:
        ConfigError: If a number is not positive.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        latent_channels: int = 4,
        in_channels: int = 3,
        out_channels: int = 3,
        block_out_channels: Sequence[int] = (64, 64, 64, 64),
        layers_per_block: int = 3,
        latent_scale: float = 1.0,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
    ) -> None:
        super().__init__()
        counts = (latent_channels, in_channels, out_channels, layers_per_block, *block_out_channels)
        if not block_out_channels or not all(isinstance(count, int) and count > 0 for count in counts):
            raise ConfigError("channels and layers of a TinyDecoder must be positive integers, at least one of each")
        coarse_to_fine = [*reversed(block_out_channels)]
        layers: list[nn.Module] = [nn.Conv2d(latent_channels, coarse_to_fine[0], 3, padding=1), nn.ReLU()]
        for channels, finer in itertools.pairwise(coarse_to_fine):
            layers += [ResidualBlock(channels) for _ in range(layers_per_block)]
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(channels, finer, 3, padding=1, bias=False),
            ]
        finest = coarse_to_fine[-1]
        self.decoder = nn.Sequential(*layers, ResidualBlock(finest), nn.Conv2d(finest, out_channels, 3, padding=1))
        self.latent_scale = latent_scale

    def decode(self, latents: Tensor, return_dict: bool = True) -> DecoderOutput | tuple[Tensor]:
        """Decode the teacher's own latents (B, c, h, w) to images (B, C, H, W) in about [-1, 1].

        Args:
            latents: Before quantisation, of a VQ teacher.
            return_dict: Whether to return an output with `sample`, else a tuple.
        """
        images = self(latents)
        return DecoderOutput(sample=images) if return_dict else (images,)

    def forward(self, latents: Tensor) -> Tensor:
        """The images (B, C, H, W) of latents (B, c, h, w), as `decode`."""
        images: Tensor = self.decoder(torch.tanh(latents * (self.latent_scale / BOUND)) * BOUND)
        return images

    def encode(self, x: Tensor) -> NoReturn:
        """Refuse to encode.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "a TinyDecoder decodes latents and encodes no images, which this task needs; keep the model's own first "
            "stage"
        )
