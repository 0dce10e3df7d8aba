"""The rules, as data, that turn the names of a component's tensors into those of an original checkpoint.

A rule rewrites one piece of our name; all rules of a component are applied in their order. Names are only ever
rewritten in this direction: the map of a component is made from its own parameter names, so its inverse is that map
read backwards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Rule = tuple[str, Callable[..., str]]
"""A pattern in our name, and a function that makes the original's piece from the numbers that the pattern matched."""

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
    """Projections that are separate here and one tensor in the original, one below the other.

    Attributes:
        parts: The pieces of our names, in the order of the original's rows.
        original: The piece of the original's name.
        per_head: Whether the original's rows run over (heads, parts, width); otherwise over (parts, heads, width).
    """

    parts: tuple[str, ...]
    original: str
    per_head: bool


@dataclass(frozen=True)
class Rules:
    """The rules of one kind of component.

    Attributes:
        names: The rules for names, in the order in which they are applied.
        joined: The projections that are one tensor in the original; `names` must leave their pieces as they are.
        trailing: The layers that are convolutions of kernel size 1 in the original and linear here: a pattern of
            original names, and the number of dimensions of size 1 at the end of their weights' shape.
    """

    names: tuple[Rule, ...] = ()
    joined: Joined | None = None
    trailing: tuple[str, int] | None = None

    def original_name(self, name: str) -> str:
        """The original's name of our tensor `name`, before projections are joined."""
        for pattern, piece in self.names:
            name = re.sub(pattern, lambda match, piece=piece: piece(*map(int, match.groups())), name)  # type: ignore[misc]
        return name


def unet_rules(layers: int, attention_levels: Sequence[bool], mid_attention: bool, plain: bool) -> Rules:
    """The rules of the UNet, whose blocks are flat lists in the original and levels of blocks here.

    Args:
        layers: Number of residual blocks in a level on the way down.
        attention_levels: For every level, fine to coarse, whether it has attention.
        mid_attention: Whether the middle has attention.
        plain: Whether attention is self-attention without a context.
    """
    each = layers + 1  # blocks of a level in the original's lists, with the one that resamples
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
        (r"^mid_block\.resnets\.(\d)\.", lambda j: f"middle_block.{2 * j if mid_attention else j}."),
        (r"^mid_block\.attentions\.0\.", lambda: "middle_block.1."),
        (r"^up_blocks\.(\d+)\.resnets\.(\d+)\.", lambda i, j: f"output_blocks.{i * each + j}.0."),
        (r"^up_blocks\.(\d+)\.attentions\.(\d+)\.", lambda i, j: f"output_blocks.{i * each + j}.1."),
        (
            r"^up_blocks\.(\d+)\.upsamplers\.0\.",
            lambda i: f"output_blocks.{i * each + layers}.{2 if coarse_first[i] else 1}.",
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
    """The rules of the noisy-latent classifier: the UNet's way down, and a pooling layer in place of its output.

    Args:
        layers: Number of residual blocks in a level.
        attention_levels: For every level, fine to coarse, whether it has attention.
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
    """The rules of autoencoders, KL or VQ; the original counts the decoder's levels from fine to coarse.

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
"""The rules of the LDM text transformer ("BERT"): in the original, attention and feed-forward alternate in one list."""

SAME_RULES = Rules()
"""The rules of components whose names are equal on both sides: class embedder and segmentation encoder."""

CLIP_RULES = Rules(((r"^", lambda: "text_model."),))
"""The rules of the CLIP text model of SD 1.x, which is transformers' class in the original code, too."""

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
"""The rules of the OpenCLIP text model of SD 2.x."""
