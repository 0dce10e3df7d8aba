"""A first stage with finite scalar quantisation in the codebook's place (Mentzer et al. 2023, arXiv 2309.15505)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import diffusers
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vq_model import VQEncoderOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from latentdiff.errors import ConfigError, InputError
from latentdiff.models.autoencoder_vq import PARENT_OPTIONS, VQModel
from latentdiff.models.stock_options import with_stock_options
from latentdiff.types import JSON

FROM_LEVELS = ("latent_channels", "num_vq_embeddings", "vq_embed_dim")  # entries that stand in the configuration, too


class FiniteScalarQuantizer(nn.Module):
    """Rounds each channel to one of a few levels; all combinations of these are the codes, and nothing is learned.

    Args:
        levels: The number of levels of each channel.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)

    def _numbers(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The levels, and half of them rounded down, each (C, 1, 1)."""
        levels = torch.tensor(self.levels, device=like.device, dtype=like.dtype)[:, None, None]
        return levels, (levels / 2).floor()

    def bounded(self, outputs: Tensor) -> Tensor:
        """The encoder's outputs (B, C, h, w) within the levels, in [-1, 1], by a tanh (appendix A of the paper)."""
        levels, half = self._numbers(outputs)
        reach = (levels - 1) * (1 + 1e-3) / 2
        offset = (levels % 2 == 0) * 0.5
        return ((outputs + (offset / reach).atanh()).tanh() * reach - offset) / half

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, tuple[None, None, Tensor]]:
        """The nearest codes, through which gradients pass straight.

        Args:
            latents: Bounded latents (B, C, h, w).

        Returns:
            The codes (B, C, h, w); a loss of 0, (); and, as diffusers' quantiser has them, the numbers of the codes
            (B h w,) last of three.
        """
        levels, half = self._numbers(latents)
        places = torch.minimum(torch.maximum((latents * half).round(), -half), levels - 1 - half)
        codes = latents + (places / half - latents).detach()
        digits = (places + half).long().movedim(1, -1).flatten(0, -2)
        bases = torch.tensor([math.prod(self.levels[:place]) for place in range(len(self.levels))])
        return codes, latents.new_zeros(()), (None, None, (digits * bases.to(digits.device)).sum(dim=-1))

    def embedding(self, indices: Tensor) -> Tensor:
        """The codes (..., C) of their numbers (...), which are refused outside of [0, the product of the levels)."""
        count = math.prod(self.levels)
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
            raise InputError(f"indices go from {indices.min()} to {indices.max()}; there are codes 0 to {count - 1}")
        digits, rest = [], indices
        for level in self.levels:
            digits.append((rest % level - level // 2) / (level // 2))
            rest = rest // level
        return torch.stack(digits, dim=-1)


class FSQModel(VQModel):
    """An autoencoder like `VQModel`, whose codes are a grid: no codebook that could collapse, and no loss for one.

    `encode` returns latents in [-1, 1] before they are rounded, which is what the diffusion model is trained on, and
    `decode` rounds first.

    Args:
        in_channels: Channels of the images.
        out_channels: Channels of the decoded images.
        down_block_types: The block type of every level of the encoder, as in `VQModel`.
        up_block_types: The block type of every level of the decoder, as in `VQModel`.
        block_out_channels: Channels of every level, fine to coarse.
        layers_per_block: Number of residual blocks in a level of the encoder; the decoder has one more.
        levels: The number of levels of each channel of the latents, at least 2; (8, 5, 5, 5) are 1000 codes.
        sample_size: Side of the training images, in pixels.
        norm_num_groups: Groups of every GroupNorm.
        scaling_factor: The factor by which latents are multiplied for the diffusion model.
        mid_block_add_attention: Whether the middle blocks of encoder and decoder have attention.

    Raises:
        ConfigError: If the levels aren't numbers of at least 2.
    """

    allowed_values: ClassVar[Mapping[str, object]] = PARENT_OPTIONS
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
        levels: Sequence[int] = (8, 5, 5, 5),
        sample_size: int = 32,
        norm_num_groups: int = 32,
        scaling_factor: float = 1.0,
        mid_block_add_attention: bool = True,
    ) -> None:
        whole = isinstance(levels, (list, tuple)) and all(type(level) is int and level > 1 for level in levels)
        if not whole or not levels:
            raise ConfigError(
                f"levels is {levels!r}; give a number of at least 2 for each channel, such as [8, 5, 5, 5]"
            )
        options = {name: value for name, value in self.config.items() if not name.startswith("_")}
        parent = {name: value for name, value in options.items() if name != "levels"}
        diffusers.VQModel.__init__(self, **parent, latent_channels=len(levels), num_vq_embeddings=1)
        self.quantize = FiniteScalarQuantizer(levels)
        sizes = {"latent_channels": len(levels), "num_vq_embeddings": math.prod(levels), "vq_embed_dim": len(levels)}
        self.register_to_config(**options, **sizes)

    @classmethod
    def extract_init_dict(cls, config_dict: JSON, **kwargs: object) -> tuple[JSON, JSON, JSON]:
        """Used by `from_config`: leave out what follows from the levels."""
        known = {name: value for name, value in config_dict.items() if name not in FROM_LEVELS}
        split: tuple[JSON, JSON, JSON] = super().extract_init_dict(known, **kwargs)
        return split

    @apply_forward_hook  # type: ignore[untyped-decorator]
    def encode(self, x: Tensor, return_dict: bool = True) -> VQEncoderOutput | tuple[Tensor]:
        """The latents (B, C, h, w) in [-1, 1], not rounded, of images (B, 3, H, W) in [-1, 1]."""
        latents = self.quantize.bounded(super().encode(x).latents)
        return VQEncoderOutput(latents=latents) if return_dict else (latents,)
