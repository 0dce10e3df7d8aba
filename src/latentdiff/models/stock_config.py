"""Translation of the configurations of diffusers' own ("stock") networks into configurations of ours.

What ours can't be is a ConfigError that names the option. `attention_head_dim` has two meanings in diffusers: the
number of heads in `UNet2DConditionModel`, their width in `UNet2DModel`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from diffusers import UNet2DConditionModel, UNet2DModel

from latentdiff.errors import ConfigError
from latentdiff.types import JSON

STOCK_CLASSES = {"UNet2DConditionModel": UNet2DConditionModel, "UNet2DModel": UNet2DModel}

COPIED = (
    "sample_size",
    "in_channels",
    "out_channels",
    "block_out_channels",
    "resnet_time_scale_shift",
    "dropout",
    "norm_num_groups",
)
"""Options that have the same name and meaning in our UNet."""

TRANSLATED = (
    "down_block_types",
    "up_block_types",
    "mid_block_type",
    "add_attention",
    "layers_per_block",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "attention_head_dim",
    "use_linear_projection",
    "downsample_type",
    "upsample_type",
    "attn_norm_num_groups",
    "time_embedding_dim",
)
"""Options that `translate_stock_config` reads."""

REQUIRED_VALUES: dict[str, tuple[object, ...]] = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "only_cross_attention": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "norm_eps": (1e-5,),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None,),
    "addition_embed_type": (None,),
    "num_class_embeds": (None,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False),
    "cross_attention_norm": (None,),
}
"""Options of which our UNet implements these values only."""

WITHOUT_EFFECT = (
    "upcast_attention",  # scaled_dot_product_attention accumulates in float32 anyway
    "addition_time_embed_dim",
    "addition_embed_type_num_heads",
    "projection_class_embeddings_input_dim",
    "num_train_timesteps",
)
"""Options that have no effect when those of REQUIRED_VALUES have their values."""

REASONS = {
    "addition_embed_type": "networks of the SDXL type add pooled text and sizes to the time embedding",
    "class_embed_type": "classes are a cross-attention context here",
    "num_class_embeds": "classes are a cross-attention context here",
    "dual_cross_attention": "this network has one context",
}


class Block(NamedTuple):
    """The meaning of a stock block type.

    Attributes:
        attention: "plain" for self-attention alone, "cross" for a spatial transformer, None for no attention.
        resampling: How the block resamples, "conv" or "resnet"; None if `downsample_type` or `upsample_type` says it.
    """

    attention: str | None
    resampling: str | None


DOWN_BLOCKS = {
    "DownBlock2D": Block(None, "conv"),
    "ResnetDownsampleBlock2D": Block(None, "resnet"),
    "AttnDownBlock2D": Block("plain", None),
    "CrossAttnDownBlock2D": Block("cross", "conv"),
}
UP_BLOCKS = {
    "UpBlock2D": Block(None, "conv"),
    "ResnetUpsampleBlock2D": Block(None, "resnet"),
    "AttnUpBlock2D": Block("plain", None),
    "CrossAttnUpBlock2D": Block("cross", "conv"),
}
MID_BLOCKS = {"UNet2DConditionModel": "UNetMidBlock2DCrossAttn", "UNet2DModel": "UNetMidBlock2D"}


def is_stock_config(config: JSON) -> bool:
    """Whether a UNet configuration is one of diffusers'; the class name alone may be that of ours."""
    return "down_block_types" in config or config.get("_class_name") == "UNet2DModel"


def translate_stock_config(config: JSON) -> JSON:
    """Constructor arguments of our UNet for the network that a stock configuration describes.

    Args:
        config: The content of a UNet's config.json; options that it lacks have the stock class's defaults.

    Raises:
        ConfigError: If our UNet can't be this network; the message names the option.
    """
    name = config.get("_class_name", "UNet2DConditionModel")
    if name not in STOCK_CLASSES:
        raise ConfigError(f"UNet class {name!r} can't be loaded; allowed: {', '.join(STOCK_CLASSES)}")
    parameters = inspect.signature(STOCK_CLASSES[name].__init__).parameters.values()
    stock = {p.name: config.get(p.name, p.default) for p in parameters if p.name != "self"}
    for option, allowed in REQUIRED_VALUES.items():
        if option in stock and not _only(stock[option], allowed):
            raise _unsupported(option, stock[option], " or ".join(map(repr, allowed)))
    down, up = _blocks(stock, "down_block_types", DOWN_BLOCKS), _blocks(stock, "up_block_types", UP_BLOCKS)
    kinds = {block.attention for block in down if block.attention}
    if [block.attention for block in reversed(up)] != [block.attention for block in down] or len(kinds) > 1:
        raise _unsupported(
            "up_block_types", stock["up_block_types"], "the mirror image of down_block_types, of one attention kind"
        )
    if stock["mid_block_type"] != MID_BLOCKS[name]:
        raise _unsupported("mid_block_type", stock["mid_block_type"], repr(MID_BLOCKS[name]))
    if stock["time_embedding_dim"] not in (None, 4 * stock["block_out_channels"][0]):
        raise _unsupported("time_embedding_dim", stock["time_embedding_dim"], "None")
    crossed = name == "UNet2DConditionModel"
    if crossed and "plain" in kinds:
        raise _unsupported("down_block_types", stock["down_block_types"], "CrossAttnDownBlock2D and DownBlock2D")
    return {
        **{option: stock[option] for option in COPIED},
        "layers_per_block": _uniform(stock, "layers_per_block"),
        "attention_levels": tuple(block.attention is not None for block in down),
        "resnet_resampling": _resampling(stock, down, up) == "resnet",
        **(_cross_attention(stock) if crossed else _plain_attention(stock)),
    }


def others_than_stock(config: JSON) -> JSON:
    """The entries of a stock UNet's configuration that are no options of it, such as those of diffusers' `EMAModel`."""
    name = config.get("_class_name", "UNet2DConditionModel")
    known = inspect.signature(STOCK_CLASSES[name].__init__).parameters
    return {option: value for option, value in config.items() if option not in known and not option.startswith("_")}


def translate_ldm_bert_config(config: JSON) -> JSON:
    """Constructor arguments of our text encoder for a configuration of diffusers' `LDMBertModel`.

    Raises:
        ConfigError: If it asks for another feed-forward width, activation or scaled embeddings.
    """
    fixed = {"encoder_ffn_dim": 4 * config["d_model"], "activation_function": "gelu", "scale_embedding": False}
    for option, value in fixed.items():
        if config.get(option, value) != value:
            raise _unsupported(option, config[option], repr(value))
    names = {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_position_embeddings",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "attention_head_dim": "head_dim",
    }
    return {ours: config[theirs] for ours, theirs in names.items()}


def _unsupported(option: str, value: object, allowed: str) -> ConfigError:
    reason = f" ({REASONS[option]})" if option in REASONS else ""
    return ConfigError(f"stock configuration has {option}={value!r}{reason}; latentdiff's network allows {allowed}")


def _only(value: object, allowed: tuple[object, ...]) -> bool:
    """Whether a value, or every entry of a per-level list of values, is allowed."""
    return all(entry in allowed for entry in (value if isinstance(value, (list, tuple)) else [value]))


def _uniform(stock: JSON, option: str) -> int | None:
    """The value of an option that may be one number or a list of equal numbers."""
    value = stock[option]
    if isinstance(value, (list, tuple)):
        if len(set(value)) != 1:
            raise _unsupported(option, value, "one value for all levels")
        value = value[0]
    number: int | None = value
    return number


def _blocks(stock: JSON, option: str, known: Mapping[str, Block]) -> list[Block]:
    """The meanings of the block types in an option; names of diffusers' first releases begin with "UNetRes"."""
    names = [name.removeprefix("UNetRes") for name in stock[option]]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _unsupported(option, unknown[0], ", ".join(known))
    return [known[name] for name in names]


def _resampling(stock: JSON, down: Sequence[Block], up: Sequence[Block]) -> str:
    """How the network resamples between levels, "conv" or "resnet"; it must be the same everywhere.

    The last block on the way down and the last on the way up don't resample.
    """
    found = {block.resampling or stock.get("downsample_type", "conv") for block in down[:-1]}
    found |= {block.resampling or stock.get("upsample_type", "conv") for block in up[:-1]}
    if not found <= {"conv", "resnet"} or len(found) > 1:
        raise _unsupported("downsample_type", sorted(found), "'conv' or 'resnet', the same for all levels, up and down")
    return found.pop() if found else "conv"


def _cross_attention(stock: JSON) -> JSON:
    """The options of attention in a `UNet2DConditionModel`."""
    depth = stock["transformer_layers_per_block"]
    if isinstance(depth, (list, tuple)) and not all(isinstance(entry, int) for entry in depth):
        raise _unsupported("transformer_layers_per_block", depth, "one number, or one per level")
    return {
        "mid_block_attention": True,
        "cross_attention_dim": _uniform(stock, "cross_attention_dim"),
        "transformer_layers_per_block": depth,
        "num_attention_heads": stock["attention_head_dim"],
        "use_linear_projection": stock["use_linear_projection"],
    }


def _plain_attention(stock: JSON) -> JSON:
    """The options of attention in a `UNet2DModel`."""
    # Without attn_norm_num_groups, a stock network with scale-shift norms has no norm before its middle attention.
    groups, needed = stock["attn_norm_num_groups"], stock["norm_num_groups"]
    if groups not in (needed, None if stock["resnet_time_scale_shift"] == "default" else needed):
        raise _unsupported("attn_norm_num_groups", groups, repr(needed))
    width = stock["attention_head_dim"]
    return {
        "mid_block_attention": stock["add_attention"],
        "num_head_channels": width,
        "num_attention_heads": 1 if width is None else None,
    }
