"""Configurations of diffusers' own networks in our terms, or a ConfigError that names what we don't have.

`UNet2DConditionModel` calls the number of heads `attention_head_dim`; `UNet2DModel` means their width by it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from diffusers import UNet2DConditionModel, UNet2DModel

from latentdiff.errors import ConfigError

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
"""Options that mean the same here."""

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

FIXED: dict[str, tuple[Any, ...]] = {
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
"""Options that networks here have at one value."""

WITHOUT_EFFECT = (
    "upcast_attention",  # scaled_dot_product_attention accumulates in float32 anyway
    "addition_time_embed_dim",
    "addition_embed_type_num_heads",
    "projection_class_embeddings_input_dim",
    "num_train_timesteps",
)
"""Options that do nothing once those of FIXED have their value."""

REASONS = {
    "addition_embed_type": "networks of the SDXL type add pooled text and sizes to the time embedding",
    "class_embed_type": "classes are a cross-attention context here",
    "num_class_embeds": "classes are a cross-attention context here",
    "dual_cross_attention": "this network has one context",
}


class Block(NamedTuple):
    """What a stock block type stands for; resampling None means that an option tells."""

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


def is_stock_config(config: Mapping[str, Any]) -> bool:
    """Whether a UNet configuration is one of diffusers' (both may say `UNet2DConditionModel`)."""
    return "down_block_types" in config or config.get("_class_name") == "UNet2DModel"


def translate_stock_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of our UNet for the network that a stock configuration describes.

    Args:
        config: What diffusers wrote to a UNet's config.json; options left out have the stock class's defaults.

    Raises:
        ConfigError: If the network differs from all that our UNet can be; it names the option.
    """
    name = config.get("_class_name", "UNet2DConditionModel")
    if name not in STOCK_CLASSES:
        raise ConfigError(f"UNet class {name!r} can't be loaded; allowed: {', '.join(STOCK_CLASSES)}")
    parameters = inspect.signature(STOCK_CLASSES[name].__init__).parameters.values()
    stock = {p.name: config.get(p.name, p.default) for p in parameters if p.name != "self"}
    for option, allowed in FIXED.items():
        if option in stock and not _only(stock[option], allowed):
            raise _refusal(option, stock[option], " or ".join(map(repr, allowed)))
    down, up = _blocks(stock, "down_block_types", DOWN_BLOCKS), _blocks(stock, "up_block_types", UP_BLOCKS)
    kinds = {block.attention for block in down if block.attention}
    if [block.attention for block in reversed(up)] != [block.attention for block in down] or len(kinds) > 1:
        raise _refusal(
            "up_block_types", stock["up_block_types"], "the mirror image of down_block_types, of one attention kind"
        )
    if stock["mid_block_type"] != MID_BLOCKS[name]:
        raise _refusal("mid_block_type", stock["mid_block_type"], repr(MID_BLOCKS[name]))
    if stock["time_embedding_dim"] not in (None, 4 * stock["block_out_channels"][0]):
        raise _refusal("time_embedding_dim", stock["time_embedding_dim"], "None")
    crossed = name == "UNet2DConditionModel"
    if crossed and "plain" in kinds:
        raise _refusal("down_block_types", stock["down_block_types"], "CrossAttnDownBlock2D and DownBlock2D")
    return {
        **{option: stock[option] for option in COPIED},
        "layers_per_block": _uniform(stock, "layers_per_block"),
        "attention_levels": tuple(block.attention is not None for block in down),
        "resnet_resampling": _resampling(stock, down, up) == "resnet",
        **(_cross_attention(stock) if crossed else _plain_attention(stock)),
    }


def translate_ldm_bert_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of our text encoder for a configuration of diffusers' `LDMBertModel`.

    Raises:
        ConfigError: If it asks for another feed-forward width, activation or scaled embeddings.
    """
    fixed = {"encoder_ffn_dim": 4 * config["d_model"], "activation_function": "gelu", "scale_embedding": False}
    for option, value in fixed.items():
        if config.get(option, value) != value:
            raise _refusal(option, config[option], repr(value))
    names = {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "max_position_embeddings",
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "attention_head_dim": "head_dim",
    }
    return {ours: config[theirs] for ours, theirs in names.items()}


def _refusal(option: str, value: object, allowed: str) -> ConfigError:
    reason = f" ({REASONS[option]})" if option in REASONS else ""
    return ConfigError(f"stock configuration has {option}={value!r}{reason}; latentdiff's network allows {allowed}")


def _only(value: object, allowed: tuple[Any, ...]) -> bool:
    """Whether a value, or every entry of a per-level list of values, is allowed."""
    return all(entry in allowed for entry in (value if isinstance(value, (list, tuple)) else [value]))


def _uniform(stock: Mapping[str, Any], option: str) -> Any:
    """The one value of an option that may be a list of equal values."""
    value = stock[option]
    if isinstance(value, (list, tuple)):
        if len(set(value)) != 1:
            raise _refusal(option, value, "one value for all levels")
        value = value[0]
    return value


def _blocks(stock: Mapping[str, Any], option: str, known: Mapping[str, Block]) -> list[Block]:
    names = [name.removeprefix("UNetRes") for name in stock[option]]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise _refusal(option, unknown[0], ", ".join(known))
    return [known[name] for name in names]


def _resampling(stock: Mapping[str, Any], down: Sequence[Block], up: Sequence[Block]) -> str:
    """How the levels are joined, which must be the same everywhere; the last block of each way joins nothing."""
    found = {block.resampling or stock.get("downsample_type", "conv") for block in down[:-1]}
    found |= {block.resampling or stock.get("upsample_type", "conv") for block in up[:-1]}
    if not found <= {"conv", "resnet"} or len(found) > 1:
        raise _refusal("downsample_type", sorted(found), "'conv' or 'resnet', the same for all levels, up and down")
    return found.pop() if found else "conv"


def _cross_attention(stock: Mapping[str, Any]) -> dict[str, Any]:
    depth = stock["transformer_layers_per_block"]
    if isinstance(depth, (list, tuple)) and not all(isinstance(entry, int) for entry in depth):
        raise _refusal("transformer_layers_per_block", depth, "one number, or one per level")
    return {
        "mid_block_attention": True,
        "cross_attention_dim": _uniform(stock, "cross_attention_dim"),
        "transformer_layers_per_block": depth,
        "num_attention_heads": stock["attention_head_dim"],
        "use_linear_projection": stock["use_linear_projection"],
    }


def _plain_attention(stock: Mapping[str, Any]) -> dict[str, Any]:
    # Without attn_norm_num_groups, a stock network with scale-shift norms has no norm before its middle attention.
    groups, needed = stock["attn_norm_num_groups"], stock["norm_num_groups"]
    if groups not in (needed, None if stock["resnet_time_scale_shift"] == "default" else needed):
        raise _refusal("attn_norm_num_groups", groups, repr(needed))
    width = stock["attention_head_dim"]
    return {
        "mid_block_attention": stock["add_attention"],
        "num_head_channels": width,
        "num_attention_heads": 1 if width is None else None,
    }
