"""A classifier of noisy latents, for guidance (appendix C of the paper; Dhariwal & Nichol 2021, arXiv 2105.05233)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from latentdiff.errors import ConfigError, InputError
from latentdiff.labels import check_class_names, class_number
from latentdiff.models.unet_config import check_numbers, check_sample, levels_of
from latentdiff.nn.blocks import BlockStyle, DownBlock, MidBlock
from latentdiff.nn.layers import TimestepEmbedding, timestep_embedding
from latentdiff.nn.pooling import AttentionPool, MeanPool


class NoisyLatentClassifier(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """log p(y | z_t, t), up to a constant: the encoder half of a UNet, pooled to one logit for each class.

    Args:
        sample_size: Height and width of the latents; other sizes are possible with pool "adaptive" only.
        in_channels: Channels of the latents.
        num_classes: Number of classes.
        block_out_channels: Channels of every level, fine to coarse.
        layers_per_block: Number of residual blocks in a level.
        attention_levels: For every level, fine to coarse, whether attention follows its residual blocks.
        num_attention_heads: Number of attention heads, one for all levels or one for each. Give either this or
            `num_head_channels`.
        num_head_channels: Width of the attention heads.
        resnet_time_scale_shift: "default" adds the time embedding, "scale_shift" scales and shifts by it.
        resnet_resampling: Whether residual blocks instead of convolutions resample between levels.
        dropout: Dropout probability in the residual blocks.
        norm_num_groups: Groups of every GroupNorm.
        pool: "attention" for attention pooling, or "adaptive" for the mean, which takes latents of any size.
        class_names: The name of each class, in order, which `label_ids` takes; None if classes have numbers only.

    Raises:
        ConfigError: If an option is not valid.
    """

    _supports_gradient_checkpointing = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        sample_size: int = 32,
        in_channels: int = 4,
        num_classes: int = 1000,
        block_out_channels: Sequence[int] = (128, 256, 384, 512),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (False, False, True, True),
        num_attention_heads: int | Sequence[int] | None = None,
        num_head_channels: int | None = None,
        resnet_time_scale_shift: str = "default",
        resnet_resampling: bool = False,
        dropout: float = 0.0,
        norm_num_groups: int = 32,
        pool: str = "attention",
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        positive = {"sample_size": sample_size, "in_channels": in_channels, "num_classes": num_classes}
        positive |= {"layers_per_block": layers_per_block, "norm_num_groups": norm_num_groups}
        check_numbers(block_out_channels, positive, norm_num_groups, dropout, resnet_time_scale_shift)
        levels, middle = levels_of(
            block_out_channels=block_out_channels,
            attention_levels=attention_levels,
            mid_block_attention=True,
            num_attention_heads=num_attention_heads,
            num_head_channels=num_head_channels,
            transformer_layers_per_block=1,
        )
        factor = 2 ** (len(levels) - 1)
        if sample_size % factor:
            raise ConfigError(f"sample_size is {sample_size}; {len(levels)} levels need a multiple of {factor}")
        check_class_names(class_names, num_classes)
        width = block_out_channels[0]
        style = BlockStyle(
            temb_channels=4 * width,
            groups=norm_num_groups,
            dropout=dropout,
            scale_shift=resnet_time_scale_shift == "scale_shift",
            resnet_resampling=resnet_resampling,
        )
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.time_embedding = TimestepEmbedding(width, 4 * width)
        below = [levels[0], *levels[:-1]]
        self.down_blocks = nn.ModuleList(
            DownBlock(style, level, before.channels, layers_per_block, last=level is levels[-1])
            for before, level in zip(below, levels, strict=True)
        )
        self.mid_block = MidBlock(style, middle)
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, middle.channels, eps=1e-5)
        if pool == "attention":
            self.pooling: nn.Module = AttentionPool(
                middle.channels, (sample_size // factor) ** 2, middle.heads, num_classes
            )
        elif pool == "adaptive":
            self.pooling = MeanPool(middle.channels, num_classes)
        else:
            raise ConfigError(f"pool is {pool!r}; choose 'attention' or 'adaptive'")

    def forward(self, sample: Tensor, timestep: Tensor | float) -> Tensor:
        """The logits (B, num_classes).

        Args:
            sample: Noisy latents (B, in_channels, H, W), at unit variance.
            timestep: The timestep: a number, a 0-d tensor or a tensor (B,).

        Raises:
            InputError: If a shape is not as above.
        """
        check_sample(sample, timestep, self.config["in_channels"], 2 ** (len(self.down_blocks) - 1))
        side = self.config["sample_size"]
        if self.config["pool"] == "attention" and sample.shape[2:] != (side, side):
            raise InputError(
                f"sample is {sample.shape[2]}x{sample.shape[3]}, this classifier was trained for {side}x{side}; "
                "other sizes need one with pool 'adaptive'"
            )
        embedding = timestep_embedding(timestep, self.time_embedding.linear_1.in_features, sample.device)
        temb = F.silu(self.time_embedding(embedding.to(sample.dtype)))
        hidden = self.conv_in(sample)
        for block in self.down_blocks:
            hidden = block(hidden, temb, None)[-1]
        hidden = self.mid_block(hidden, temb, None)
        logits: Tensor = self.pooling(F.silu(self.conv_norm_out(hidden)))
        return logits

    def label_ids(self, labels: object) -> Tensor:
        """The numbers, int64 (N,), of one class or several.

        Args:
            labels: A name, a number, or a list, array or tensor of them.

        Raises:
            InputError: If there is no such class, or none is given.
        """
        given: list[object] = [labels]
        if isinstance(labels, (list, tuple)) or (isinstance(labels, (np.ndarray, Tensor)) and labels.ndim > 0):
            given = list(labels)
        if not given:
            raise InputError("no class is given; give one for all images, or one for each image")
        names, count = self.config["class_names"], self.config["num_classes"]
        return torch.tensor([class_number(label, count, names) for label in given])
