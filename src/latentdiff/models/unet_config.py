"""Checks of the UNet's configuration and input, and the options of every level that follow from the configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from latentdiff.errors import ConfigError, InputError
from latentdiff.nn.blocks import Level
from latentdiff.nn.context import TimeEmbedding
from latentdiff.registry import nearest


def per_level(name: str, value: int | Sequence[int], levels: int) -> tuple[int, ...]:
    """One positive number for each level, from an option that is one number or a sequence of `levels` numbers.

    Raises:
        ConfigError: If the option is neither.
    """
    numbers = (value,) * levels if isinstance(value, int) else tuple(value)
    if len(numbers) != levels:
        raise ConfigError(f"{name} has {len(numbers)} entries; give one number, or one for each of the {levels} levels")
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        raise ConfigError(f"{name} is {value!r}; it must be a positive integer, or one for each level")
    return numbers


def head_counts(
    channels: Sequence[int],
    num_attention_heads: int | Sequence[int] | None,
    num_head_channels: int | None,
) -> tuple[int, ...]:
    """The number of attention heads at every level, from their number or their width.

    Args:
        channels: Channels of every level.
        num_attention_heads: Number of heads, one for all levels or one for each.
        num_head_channels: Width of the heads; the number of heads is 0 where it does not divide the channels.

    Raises:
        ConfigError: Unless exactly one of the two is given.
    """
    if (num_attention_heads is None) == (num_head_channels is None):
        given = "neither" if num_attention_heads is None else "both"
        raise ConfigError(
            f"{given} of num_attention_heads and num_head_channels given; give one: how many heads, or how wide"
        )
    if num_attention_heads is not None:
        return per_level("num_attention_heads", num_attention_heads, len(channels))
    width = per_level("num_head_channels", num_head_channels or 0, 1)[0]
    return tuple(max(1, count // width) if count % width == 0 else 0 for count in channels)


def levels_of(
    *,
    block_out_channels: Sequence[int],
    attention_levels: Sequence[bool],
    mid_block_attention: bool,
    num_attention_heads: int | Sequence[int] | None,
    num_head_channels: int | None,
    transformer_layers_per_block: int | Sequence[int],
) -> tuple[list[Level], Level]:
    """The levels from fine to coarse, and the middle, of a configuration; see `UNet2DConditionModel` for the options.

    Raises:
        ConfigError: If options differ in length, or heads don't divide a level's channels.
    """
    count = len(block_out_channels)
    channels = per_level("block_out_channels", tuple(block_out_channels), count)
    if len(attention_levels) != count:
        raise ConfigError(
            f"attention_levels has {len(attention_levels)} entries, block_out_channels {count}; give one per level"
        )
    attends = [*attention_levels, mid_block_attention]
    depths = per_level("transformer_layers_per_block", transformer_layers_per_block, count)
    heads = head_counts(channels, num_attention_heads, num_head_channels) if any(attends) else (1,) * count
    levels = []
    for width, number, depth, attend in zip(
        [*channels, channels[-1]], [*heads, heads[-1]], [*depths, depths[-1]], attends, strict=True
    ):
        if attend and (number == 0 or width % number):
            option = f"num_head_channels {num_head_channels}" if num_head_channels else f"{number} attention heads"
            raise ConfigError(f"{option} does not divide a level's {width} channels; choose a divisor")
        levels.append(Level(width, number if attend else 0, depth))
    return levels[:-1], levels[-1]


def check_numbers(
    block_out_channels: Sequence[int],
    positive: dict[str, int],
    norm_num_groups: int,
    dropout: float,
    resnet_time_scale_shift: str,
) -> None:
    """Check options that don't depend on each other.

    Args:
        block_out_channels: Channels of every level, at least one, the first even.
        positive: Names and values of options that must be positive integers.
        norm_num_groups: Groups of the norms, which must divide every level's channels.
        dropout: Dropout probability, which must be in [0, 1).
        resnet_time_scale_shift: The option of that name, "default" or "scale_shift".

    Raises:
        ConfigError: If an option is wrong; the message names the first.
    """
    if not block_out_channels:
        raise ConfigError("block_out_channels is empty; give the channels of at least one level")
    for name, value in positive.items():
        per_level(name, value, 1)
    bad = [width for width in block_out_channels if width % norm_num_groups]
    if bad:
        raise ConfigError(f"norm_num_groups {norm_num_groups} does not divide a level's {bad[0]} channels")
    if block_out_channels[0] % 2:
        raise ConfigError(f"block_out_channels starts with {block_out_channels[0]}; it must be even")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout is {dropout}; it must be at least 0 and less than 1")
    if resnet_time_scale_shift not in ("default", "scale_shift"):
        raise ConfigError(f"resnet_time_scale_shift is {resnet_time_scale_shift!r}; choose 'default' or 'scale_shift'")


def check_sample(sample: Tensor, timestep: float | TimeEmbedding, channels: int, factor: int) -> None:
    """Check the shapes of a network's input; no values are read, so it waits for no device.

    Args:
        sample: The sample, which must be (B, channels, H, W).
        timestep: The timestep, which must be a number, a 0-d tensor or a tensor (B,), or prepared.
        channels: Number of channels that the network takes.
        factor: Number that must divide H and W.

    Raises:
        InputError: If a shape is not so.
    """
    if sample.ndim != 4 or sample.shape[1] != channels:
        raise InputError(f"sample has shape {tuple(sample.shape)}; this network takes (B, {channels}, H, W)")
    height, width = sample.shape[2:]
    if height % factor or width % factor:
        raise InputError(f"sample is {height}x{width}; height and width must be multiples of {factor}")
    if isinstance(timestep, Tensor) and timestep.shape not in ((), (1,), sample.shape[:1]):
        raise InputError(f"timestep has shape {tuple(timestep.shape)}; give a number or {sample.shape[0]} of them")


STOCK_INPUTS = (
    "class_labels",
    "timestep_cond",
    "attention_mask",
    "encoder_attention_mask",
    "added_cond_kwargs",
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
)
"""Inputs of diffusers' UNet for which the networks here have no place."""


def check_stock_inputs(attention: Mapping[str, object] | None, others: Mapping[str, object]) -> None:
    """Raise an InputError if a pipeline of diffusers gives its network what this one has no place for.

    Args:
        attention: `cross_attention_kwargs`, from which the scale of adapters has been taken.
        others: Inputs that must be None, or an empty mapping, by name.
    """
    for name in attention or ():
        raise InputError(f"cross_attention_kwargs has {name!r}; this network takes {{'scale': s}}, for adapters, only")
    for name, value in others.items():
        if name not in STOCK_INPUTS:
            raise InputError(f"this network takes no {name!r}; {nearest(name, STOCK_INPUTS)}")
        if value is not None and value != {}:
            raise InputError(f"{name} is given, but this network has no place for it; leave it out")
