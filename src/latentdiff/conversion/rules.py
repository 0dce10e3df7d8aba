"""Where each tensor of a component stands in an original checkpoint: the rules, as data.

A rule rewrites one piece of our name; all rules of a component are applied in their order. Names are only ever
rewritten in this direction: the map of a component is made of its own parameter names, so its inverse is that map read
backwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Rule = tuple[str, Callable[..., str]]
"""A pattern in our name, and the original's piece, made of the numbers that the pattern matched."""

IN_RESNET = r"(?:(?<=resnets\.\d\.)|(?<=samplers\.0\.))"
RESNET: tuple[Rule, ...] = (
    (IN_RESNET + r"norm1\.", lambda: "in_layers.0."),
    (IN_RESNET + r"conv1\.", lambda: "in_layers.2."),
    (IN_RESNET + r"time_emb_proj\.", lambda: "emb_layers.1."),
    (IN_RESNET + r"norm2\.", lambda: "out_layers.0."),
    (IN_RESNET + r"conv2\.", lambda: "out_layers.3."),
    (IN_RESNET + r"conv_shortcut\.", lambda: "skip_connection."),
)
PLAIN_ATTENTION: tuple[Rule, ...] = (
    (r"\.group_norm\.", lambda: ".norm."),
    (r"\.to_out\.0\.", lambda: ".proj_out."),
)


@dataclass(frozen=True)
class Joined:
    """Several projections of ours that are one tensor in the original, whose rows run over (heads, parts, width).

    Attributes:
        parts: Pieces of our names, in the order of the rows.
        original: The piece that stands for them there.
        per_head: Whether each head holds all parts; otherwise each part holds all heads.
    """

    parts: tuple[str, ...]
    original: str
    per_head: bool


@dataclass(frozen=True)
class Rules:
    """The rules of one kind of component.

    Attributes:
        names: Rewritten in this order.
        joined: Projections that are one tensor there; their pieces must survive `names`.
        trailing: Layers that are 1x1 convolutions there and linear here, as a pattern of original names and the number
            of dimensions of size 1 that their weights end with.
    """

    names: tuple[Rule, ...] = ()
    joined: Joined | None = None
    trailing: tuple[str, int] | None = None

    def original_name(self, name: str) -> str:
        """The original's name of our tensor `name`, parts of joined tensors left apart."""
        for pattern, piece in self.names:
            name = re.sub(pattern, lambda match, piece=piece: piece(*map(int, match.groups())), name)  # type: ignore[misc]
        return name


def unet_rules(layers: int, attention_levels: Sequence[bool], mid_attention: bool, plain: bool) -> Rules:
    """The UNet: flat lists of blocks there, levels of blocks here.

    Args:
        layers: Residual blocks of a level on the way down.
        attention_levels: Whether a level attends, fine to coarse.
        mid_attention: Whether the middle attends.
        plain: Whether attention is plain, without a context.
    """
    each = layers + 1
    coarse_first = attention_levels[::-1]
    places: tuple[Rule, ...] = (
        (r"^conv_in\.", lambda: "input_blocks.0.0."),
        (r"^time_embedding\.linear_(\d)\.", lambda n: f"time_embed.{2 * (n - 1)}."),
        (r"^conv_norm_out\.", lambda: "out.0."),
        (r"^conv_out\.", lambda: "out.2."),
        (r"^down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"input_blocks.{1 + i * each + j}.0."),
        (r"^down_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"input_blocks.{1 + i * each + j}.1."),
        (r"^down_blocks\.(\d+)\.downsamplers\.0\.conv\.", lambda i: f"input_blocks.{(i + 1) * each}.0.op."),
        (r"^down_blocks\.(\d+)\.downsamplers\.0\.", lambda i: f"input_blocks.{(i + 1) * each}.0."),
        (r"^mid_block\.resnets\.(\d)\.", lambda j: f"middle_block.{j * (1 + mid_attention)}."),
        (r"^mid_block\.attentions\.0\.", lambda: "middle_block.1."),
        (r"^up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"output_blocks.{i * each + j}.0."),
        (r"^up_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"output_blocks.{i * each + j}.1."),
        (
            r"^up_blocks\.(\d+)\.upsamplers\.0\.",
            lambda i: f"output_blocks.{i * each + layers}.{1 + coarse_first[i]}.",
        ),
    )
    if not plain:
        return Rules(RESNET + places)
    return Rules(
        PLAIN_ATTENTION + RESNET + places,
        Joined((".to_q.", ".to_k.", ".to_v."), ".qkv.", per_head=True),
        (r"\.(qkv|proj_out)\.weight$", 1),
    )


def classifier_rules(layers: int, attention_levels: Sequence[bool]) -> Rules:
    """The noisy-latent classifier: the UNet's way down, and a pooling layer in the place of its output.

    Args:
        layers: Residual blocks of a level.
        attention_levels: Whether a level attends, fine to coarse.
    """
    unet = unet_rules(layers, attention_levels, True, plain=True)
    pool: tuple[Rule, ...] = (
        (r"^pooling\.qkv\.", lambda: "out.2.qkv_proj."),
        (r"^pooling\.to_out\.", lambda: "out.2.c_proj."),
        (r"^pooling\.positional_embedding$", lambda: "out.2.positional_embedding"),
        (r"^pooling\.conv\.", lambda: "out.3."),
    )
    return Rules(pool + unet.names, unet.joined, (r"\.(qkv|proj_out|qkv_proj|c_proj)\.weight$", 1))


def first_stage_rules(levels: int) -> Rules:
    """Autoencoders, KL or VQ: the original counts the decoder's levels from fine to coarse.

    Args:
        levels: Number of levels.
    """
    return Rules(
        (
            *PLAIN_ATTENTION,
            (r"\.conv_shortcut\.", lambda: ".nin_shortcut."),
            (r"\.to_q\.", lambda: ".q."),
            (r"\.to_k\.", lambda: ".k."),
            (r"\.to_v\.", lambda: ".v."),
            (r"\.down_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f".down.{i}.block.{j}."),
            (r"\.down_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f".down.{i}.attn.{j}."),
            (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", lambda i: f".down.{i}.downsample."),
            (r"\.up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f".up.{levels - 1 - i}.block.{j}."),
            (r"\.up_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f".up.{levels - 1 - i}.attn.{j}."),
            (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", lambda i: f".up.{levels - 1 - i}.upsample."),
            (r"\.mid_block\.resnets\.(\d)\.", lambda j: f".mid.block_{j + 1}."),
            (r"\.mid_block\.attentions\.0\.", lambda: ".mid.attn_1."),
            (r"\.conv_norm_out\.", lambda: ".norm_out."),
        ),
        trailing=(r"\.attn[_.]\d\.(q|k|v|proj_out)\.weight$", 2),
    )


TEXT_RULES = Rules(
    (
        (r"^model\.embed_tokens\.", lambda: "token_emb."),
        (r"^model\.embed_positions\.", lambda: "pos_emb.emb."),
        (r"^model\.layer_norm\.", lambda: "norm."),
        (r"^model\.layers\.(\d+)\.self_attn_layer_norm\.", lambda n: f"attn_layers.layers.{2 * n}.0."),
        (r"^model\.layers\.(\d+)\.self_attn\.", lambda n: f"attn_layers.layers.{2 * n}.1."),
        (r"^model\.layers\.(\d+)\.final_layer_norm\.", lambda n: f"attn_layers.layers.{2 * n + 1}.0."),
        (r"^model\.layers\.(\d+)\.fc1\.", lambda n: f"attn_layers.layers.{2 * n + 1}.1.net.0.0."),
        (r"^model\.layers\.(\d+)\.fc2\.", lambda n: f"attn_layers.layers.{2 * n + 1}.1.net.2."),
        (r"\.q_proj\.", lambda: ".to_q."),
        (r"\.k_proj\.", lambda: ".to_k."),
        (r"\.v_proj\.", lambda: ".to_v."),
        (r"\.out_proj\.", lambda: ".to_out."),
    )
)
"""The LDM text transformer ("BERT"): attention and feed-forward alternate in one list there."""

SAME_RULES = Rules()
"""Components whose names are equal on both sides: class embedder, segmentation encoder."""

CLIP_RULES = Rules(((r"^", lambda: "text_model."),))
"""The CLIP text model of SD 1.x, which already was transformers' class."""

OPEN_CLIP_RULES = Rules(
    (
        (r"^embeddings\.token_embedding\.", lambda: "token_embedding."),
        (r"^embeddings\.position_embedding\.weight", lambda: "positional_embedding"),
        (r"^final_layer_norm\.", lambda: "ln_final."),
        (r"^encoder\.layers\.(\d+)\.", lambda n: f"transformer.resblocks.{n}."),
        (r"\.layer_norm(\d)\.", lambda n: f".ln_{n}."),
        (r"\.mlp\.fc1\.", lambda: ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", lambda: ".mlp.c_proj."),
        (r"\.self_attn\.", lambda: ".attn."),
    ),
    Joined((".q_proj.", ".k_proj.", ".v_proj."), ".in_proj_", per_head=False),
)
"""The OpenCLIP text model of SD 2.x."""
