"""The blocks of the UNet: one for each level on the way down, one in the middle, one for each level on the way up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentdiff.nn.attention import SpatialSelfAttention
from latentdiff.nn.context import ContextCache, TimeEmbedding, repeat_batch
from latentdiff.nn.layers import Downsample, Upsample
from latentdiff.nn.resnet import Direction, ResnetBlock
from latentdiff.nn.transformer import SpatialTransformer

Context = Tensor | ContextCache | None


@dataclass(frozen=True)
class BlockStyle:
    """The options that all levels of a network share; its methods make their layers.

    Attributes:
        temb_channels: Width of the time embedding.
        context_dim: Channels of the context; None for self-attention without a context.
        groups: Groups of the norms.
        dropout: Dropout probability in the residual blocks.
        scale_shift: Whether the time embedding scales and shifts the features (True) or is added to them (False).
        resnet_resampling: Whether residual blocks (True) or convolutions (False) resample between two levels.
        linear_projection: Whether spatial transformers project by linear layers (True) or 1x1 convolutions (False).
    """

    temb_channels: int
    context_dim: int | None = None
    groups: int = 32
    dropout: float = 0.0
    scale_shift: bool = False
    resnet_resampling: bool = False
    linear_projection: bool = False

    def resnet(self, in_channels: int, out_channels: int, resize: Direction | None = None) -> ResnetBlock:
        """A residual block, which also halves ("down") or doubles ("up") the resolution if `resize` is given."""
        return ResnetBlock(
            in_channels,
            out_channels,
            temb_channels=self.temb_channels,
            groups=self.groups,
            dropout=self.dropout,
            scale_shift=self.scale_shift,
            resize=resize,
        )

    def attention(self, channels: int, heads: int, depth: int) -> nn.Module:
        """A spatial transformer of `depth` blocks, or self-attention where there is no context."""
        if self.context_dim is None:
            return SpatialSelfAttention(channels, heads, groups=self.groups)
        return SpatialTransformer(
            channels,
            self.context_dim,
            heads,
            depth=depth,
            groups=self.groups,
            linear_projection=self.linear_projection,
        )

    def resampler(self, channels: int, direction: Direction) -> nn.Module:
        """The layer between two levels, which halves ("down") or doubles ("up") the resolution."""
        if self.resnet_resampling:
            return self.resnet(channels, channels, direction)
        return Downsample(channels) if direction == "down" else Upsample(channels)


@dataclass(frozen=True)
class Level:
    """One level of the network.

    Attributes:
        channels: Channels of its feature maps.
        heads: Number of attention heads; 0 for no attention.
        depth: Number of transformer blocks in each of its spatial transformers.
    """

    channels: int
    heads: int
    depth: int


class CheckpointedBlock(nn.Module):
    """A block that recomputes its layers in the backward pass when diffusers' gradient checkpointing is on."""

    _gradient_checkpointing_func: Callable[..., Tensor]
    resnets: nn.ModuleList

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def run(self, layer: nn.Module, *args: object) -> Tensor:
        """`layer(*args)`, with gradient checkpointing if it is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(layer, *args)
        out: Tensor = layer(*args)
        return out

    def attention_layers(self) -> Sequence[nn.Module | None]:
        """The attention after each residual block; None for all of a block that has none."""
        found: Sequence[nn.Module | None] = getattr(self, "attentions", [None] * len(self.resnets))
        return found


class DownBlock(CheckpointedBlock):
    """A level on the way down: `layers` times residual block and attention, then halving except on the last level."""

    def __init__(self, style: BlockStyle, level: Level, in_channels: int, layers: int, *, last: bool) -> None:
        super().__init__()
        width = level.channels
        self.resnets = nn.ModuleList(style.resnet(width if i else in_channels, width) for i in range(layers))
        if level.heads:  # diffusers takes the attribute for a sign that the block attends
            self.attentions = nn.ModuleList(style.attention(width, level.heads, level.depth) for _ in range(layers))
        self.downsamplers = nn.ModuleList([] if last else [style.resampler(width, "down")])

    def forward(
        self, hidden: Tensor, temb: TimeEmbedding, context: Context, limit: int | None = None
    ) -> tuple[Tensor, ...]:
        """Map (B, in_channels, H, W) to every layer's output, of which the last is (B, channels, H/2, W/2).

        With `limit`, only so many of the first layers are computed.

        The outputs are returned and not appended to a list that is given, since the hooks of diffusers and accelerate
        that offload blocks hand a block copies of its arguments.
        """
        outputs = []
        for resnet, attention in zip(list(self.resnets)[:limit], self.attention_layers(), strict=False):
            hidden = self.run(resnet, hidden, temb)
            if attention is not None:
                hidden = self.run(attention, hidden, context)
            outputs.append(hidden)
        for downsampler in () if limit is not None and limit <= len(self.resnets) else self.downsamplers:
            hidden = self.run(downsampler, hidden, temb)
            outputs.append(hidden)
        return tuple(outputs)


class MidBlock(CheckpointedBlock):
    """The middle: residual block, attention (unless the level has no heads), residual block."""

    def __init__(self, style: BlockStyle, level: Level) -> None:
        super().__init__()
        width = level.channels
        self.resnets = nn.ModuleList(style.resnet(width, width) for _ in range(2))
        if level.heads:
            self.attentions = nn.ModuleList([style.attention(width, level.heads, level.depth)])

    def forward(self, hidden: Tensor, temb: TimeEmbedding, context: Context) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        hidden = self.run(self.resnets[0], hidden, temb)
        for attention in getattr(self, "attentions", ()):
            hidden = self.run(attention, hidden, context)
        return self.run(self.resnets[1], hidden, temb)


class UpBlock(CheckpointedBlock):
    """A level on the way up: for each skip connection, concatenate it, residual block, attention; then doubling.

    Args:
        style: Options that all levels share.
        level: Options of this level.
        in_channels: Channels of the features from the level below.
        skip_channels: Channels of the skip connections, in the order in which they are used.
        last: Whether this is the level of the output's resolution, which doubles nothing.
    """

    def __init__(
        self, style: BlockStyle, level: Level, in_channels: int, skip_channels: list[int], *, last: bool
    ) -> None:
        super().__init__()
        width = level.channels
        self.resnets = nn.ModuleList(
            style.resnet((width if i else in_channels) + skip, width) for i, skip in enumerate(skip_channels)
        )
        if level.heads:
            self.attentions = nn.ModuleList(style.attention(width, level.heads, level.depth) for _ in skip_channels)
        self.upsamplers = nn.ModuleList([] if last else [style.resampler(width, "up")])

    def forward(
        self, hidden: Tensor, temb: TimeEmbedding, context: Context, skips: tuple[Tensor, ...], first: int = 0
    ) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, 2H, 2W); the last of `skips` is joined first.

        From layer number `first` on, as many layers are computed as there are skip connections; the resolution doubles
        behind the last.
        """
        end = first + len(skips)
        layers = zip(list(self.resnets)[first:end], list(self.attention_layers())[first:end], strict=True)
        for (resnet, attention), skip in zip(layers, reversed(skips), strict=True):
            hidden = self.run(resnet, torch.cat([hidden, repeat_batch(skip, hidden.shape[0])], dim=1), temb)
            if attention is not None:
                hidden = self.run(attention, hidden, context)
        for upsampler in self.upsamplers if end == len(self.resnets) else ():
            hidden = self.run(upsampler, hidden, temb)
        return hidden
