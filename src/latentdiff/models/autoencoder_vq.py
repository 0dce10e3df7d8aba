"""The vector-quantised first stage (section 3.1 and appendix G of the paper; Esser et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import diffusers
import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.types import JSON

# Options of the parent class that are no options here. Its constructor saves them with these values.
PARENT_OPTIONS = {"act_fn": "silu", "force_upcast": False, "lookup_from_codebook": False, "norm_type": "group"}


class VQModel(diffusers.VQModel):  # type: ignore[misc]
    """diffusers' VQModel with methods for the codes, and by default the latent scale of the paper's models, 1.

    As in the paper, `encode` returns latents *before* quantisation, which is what the diffusion model is trained on,
    and `decode` quantises first: the quantisation layer belongs to the decoder.

    Args:
        in_channels: Channels of the images.
        out_channels: Channels of the decoded images.
        down_block_types: The block type of every level of the encoder, fine to coarse: `DownEncoderBlock2D` or, with
            attention, `AttnDownEncoderBlock2D`.
        up_block_types: The block type of every level of the decoder, coarse to fine: `UpDecoderBlock2D` or, with
            attention, `AttnUpDecoderBlock2D`.
        block_out_channels: Channels of every level, fine to coarse.
        layers_per_block: Number of residual blocks in a level of the encoder; the decoder has one more.
        latent_channels: Channels of the encoder's output.
        sample_size: Side of the training images, in pixels.
        num_vq_embeddings: Number of codes.
        norm_num_groups: Groups of every GroupNorm.
        vq_embed_dim: Channels of a code; by default `latent_channels`.
        scaling_factor: The factor by which latents are multiplied for the diffusion model.
        mid_block_add_attention: Whether the middle blocks of encoder and decoder have attention.
    """

    allowed_values: ClassVar[Mapping[str, object]] = PARENT_OPTIONS
    counterpart: ClassVar[str] = "VQModel"
    _supports_gradient_checkpointing = True  # its parts are those of AutoencoderKL

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
        norm_num_groups: int = 32,
        vq_embed_dim: int | None = None,
        scaling_factor: float = 1.0,
        mid_block_add_attention: bool = True,
    ) -> None:
        options = {name: value for name, value in self.config.items() if not name.startswith("_")}
        super().__init__(**options)
        self.register_to_config(**options)  # the parent's constructor adds options of its own

    @classmethod
    def extract_init_dict(cls, config_dict: JSON, **kwargs: object) -> tuple[JSON, JSON, JSON]:
        """Used by `from_config`: leave out the parent's options, of which diffusers would warn as unknown."""
        fixed = cls.allowed_values.items()
        known = {name: value for name, value in config_dict.items() if (name, value) not in fixed}
        split: tuple[JSON, JSON, JSON] = super().extract_init_dict(known, **kwargs)
        return split

    def encode_to_indices(self, images: Tensor) -> Tensor:
        """The codes (B, h, w), int64 in [0, num_vq_embeddings), of images (B, 3, H, W) in [-1, 1]."""
        return self.indices(self.encode(images).latents)

    def indices(self, latents: Tensor) -> Tensor:
        """The nearest codes (B, h, w), int64, of unquantised latents (B, C, h, w)."""
        codes: Tensor = self.quantize(latents)[2][2]
        return codes.view(latents.shape[0], *latents.shape[2:])

    def decode_indices(self, indices: Tensor) -> Tensor:
        """Decode codes (B, h, w) to images (B, 3, H, W) in about [-1, 1].

        Raises:
            InputError: If the codes are not integers of shape (B, h, w).
        """
        if indices.ndim != 3 or indices.dtype not in (torch.int64, torch.int32):
            raise InputError(f"indices are {indices.dtype} of shape {tuple(indices.shape)}; give int64 (B, h, w)")
        latents = self.quantize.embedding(indices).permute(0, 3, 1, 2)
        images: Tensor = self.decode(latents, force_not_quantize=True).sample
        return images
