"""A first stage with residual vector quantisation (Lee et al. 2022, arXiv 2203.01941)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import diffusers
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vq_model import VectorQuantizer
from torch import Tensor

from latentdiff.errors import ConfigError, InputError
from latentdiff.models.autoencoder_vq import PARENT_OPTIONS, VQModel
from latentdiff.models.stock_options import with_stock_options


class ResidualQuantizer(VectorQuantizer):  # type: ignore[misc]
    """Adds up codes of one codebook, each the nearest to what the ones before leave of the latent.

    Args:
        codes: Number of codes.
        channels: Channels of a code.
        depth: Number of codes that are added up.
    """

    def __init__(self, codes: int, channels: int, depth: int) -> None:
        super().__init__(codes, channels, beta=0.25)
        self.depth = depth

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        """The sums of codes, through which gradients pass straight.

        Args:
            z: Latents (B, C, h, w).

        Returns:
            The sums (B, C, h, w); the loss (), a mean over the depths (eq. 7 of the paper, with the codebook's term of
            van den Oord et al. 2017 beside it, weighted as in `VQModel`); and, as diffusers' quantiser has them, the
            numbers of the codes (B h w depth,) last of three.
        """
        latents = z.movedim(1, -1)
        found: list[Tensor] = []
        losses: list[Tensor] = []
        total = torch.zeros_like(latents)
        for _ in range(self.depth):
            rest = (latents - total).detach()
            indices = torch.cdist(rest.reshape(-1, rest.shape[-1]), self.embedding.weight).argmin(dim=1)
            codes = self.embedding(indices).view(rest.shape)
            to_latents = (latents.detach() - total.detach() - codes).square().mean()  # moves codes
            to_codes = (latents - (total + codes).detach()).square().mean()  # moves latents
            first, second = (to_codes, to_latents) if self.legacy else (to_latents, to_codes)
            losses.append(first + self.beta * second)
            total, found = total + codes.detach(), [*found, indices]
        sums = (latents + (total - latents).detach()).movedim(-1, 1).contiguous()
        return sums, torch.stack(losses).mean(), (None, None, torch.stack(found, dim=-1).flatten())


class ResidualVQModel(VQModel):
    """An autoencoder like `VQModel`, whose latents are sums of several codes: D codes of K say as much as K^D.

    Args:
        in_channels: Channels of the images.
        out_channels: Channels of the decoded images.
        down_block_types: The block type of every level of the encoder, as in `VQModel`.
        up_block_types: The block type of every level of the decoder, as in `VQModel`.
        block_out_channels: Channels of every level, fine to coarse.
        layers_per_block: Number of residual blocks in a level of the encoder; the decoder has one more.
        latent_channels: Channels of the latents and of a code.
        sample_size: Side of the training images, in pixels.
        num_vq_embeddings: Number of codes K, of one codebook for all depths.
        num_quantizers: Number of codes D that are added up.
        norm_num_groups: Groups of every GroupNorm.
        scaling_factor: The factor by which latents are multiplied for the diffusion model.
        mid_block_add_attention: Whether the middle blocks of encoder and decoder have attention.

    Raises:
        ConfigError: If there is no code to add.
    """

    allowed_values: ClassVar[Mapping[str, object]] = {**PARENT_OPTIONS, "vq_embed_dim": None}
    counterpart: ClassVar[str] = ""

    @with_stock_options
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = ("DownEncoderBlock2D",),
        up_block_types: Sequence[str] = ("UpDecoderBlock2D",),
        block_out_channels: Sequence[int] = (64,),
        layers_per_block: int = 1,
        *,
        latent_channels: int = 3,
        sample_size: int = 32,
        num_vq_embeddings: int = 256,
        num_quantizers: int = 4,
        norm_num_groups: int = 32,
        scaling_factor: float = 1.0,
        mid_block_add_attention: bool = True,
    ) -> None:
        if type(num_quantizers) is not int or num_quantizers < 1:
            raise ConfigError(f"num_quantizers is {num_quantizers!r}; it must be an integer of at least 1")
        options = {name: value for name, value in self.config.items() if not name.startswith("_")}
        diffusers.VQModel.__init__(self, **{k: v for k, v in options.items() if k != "num_quantizers"})
        self.quantize = ResidualQuantizer(num_vq_embeddings, latent_channels, num_quantizers)
        self.register_to_config(**options)

    def indices(self, latents: Tensor) -> Tensor:
        """The codes (B, h, w, D), int64, of unquantised latents (B, C, h, w), coarse to fine."""
        codes: Tensor = self.quantize(latents)[2][2]
        return codes.view(latents.shape[0], *latents.shape[2:], -1)

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Decode codes (B, h, w, D), or the first few of each, to images (B, 3, H, W) in about [-1, 1].

        Raises:
            InputError: If the codes are not integers of such a shape.
        """
        if indices.ndim != 4 or indices.dtype not in (torch.int64, torch.int32):
            raise InputError(f"indices are {indices.dtype} of shape {tuple(indices.shape)}; give int64 (B, h, w, D)")
        latents = self.quantize.embedding(indices).sum(dim=-2).permute(0, 3, 1, 2)
        images: Tensor = self.decode(latents, force_not_quantize=True).sample
        return images
