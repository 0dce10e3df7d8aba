"""The structure of a checkpoint's networks, read from the names and shapes of its tensors or from a configuration.

Names and shapes determine everything but the number of attention heads, the noise schedule, the latent scale and the
image size. `zoo.recognise` compares the structures of both origins.
"""

from __future__ import annotations

import re

from latentdiff.conversion.nodes import class_of, params_of
from latentdiff.conversion.plan import COND_STAGE_PREFIX, FIRST_STAGE_PREFIX, UNET_PREFIX
from latentdiff.conversion.tensor_map import Shapes
from latentdiff.types import JSON

Structure = dict[str, object]

# A tensor that only this class of conditioning stage has.
COND_TENSORS = {
    "embedding.weight": "ClassEmbedder",
    "transformer.token_emb.weight": "BERTEmbedder",
    "channel_mapper.weight": "SpatialRescaler",
    "encoder.conv_in.weight": "__is_first_stage__",
    "transformer.text_model.embeddings.token_embedding.weight": "FrozenCLIPEmbedder",
    "transformer.embeddings.token_embedding.weight": "FrozenCLIPEmbedder",  # by transformers 5
    "model.token_embedding.weight": "FrozenOpenCLIPEmbedder",
}


def without_prefix(shapes: Shapes, prefix: str) -> Shapes:
    """The entries whose names start with `prefix`, without the prefix."""
    return {key[len(prefix) :]: shape for key, shape in shapes.items() if key.startswith(prefix)}


def structure_of_shapes(shapes: Shapes) -> Structure:
    """The structure of a checkpoint; empty if it holds no network that the original code makes."""
    if any(key.startswith(UNET_PREFIX) for key in shapes):
        return {
            "unet": unet_of_shapes(without_prefix(shapes, UNET_PREFIX)),
            "first_stage": first_stage_of_shapes(without_prefix(shapes, FIRST_STAGE_PREFIX)),
            "cond_stage": cond_stage_of_shapes(without_prefix(shapes, COND_STAGE_PREFIX)),
        }
    return {"first_stage": first_stage_of_shapes(shapes)} if "encoder.conv_in.weight" in shapes else {}


def structure_of_config(node: JSON) -> Structure:
    """The structure of the networks that a model node describes."""
    params = params_of(node, "model")
    if "unet_config" not in params:
        return {"first_stage": first_stage_of_config(node)}
    return {
        "unet": unet_of_config(params_of(params["unet_config"], "unet_config")),
        "first_stage": first_stage_of_config(params["first_stage_config"]),
        "cond_stage": cond_stage_of_config(params["cond_stage_config"]),
    }


def unet_of_shapes(shapes: Shapes) -> Structure:
    """The structure of a UNet: among others the widths and the attention of every block of its flat lists."""
    widths, attends, depth, context = [], [], 0, None
    for side in ("input_blocks", "output_blocks"):
        for block in range(count_blocks(shapes, rf"{side}\.(\d+)\.")):
            first = f"{side}.{block}.0."
            names = (first + "weight", first + "op.weight", first + "in_layers.2.weight")
            widths.append(next((shapes[name][:2] for name in names if name in shapes), ()))
            attends.append(any(f"{side}.{block}.1.{tail}" in shapes for tail in ("qkv.weight", "proj_in.weight")))
    for key, shape in shapes.items():
        found = re.search(r"\.transformer_blocks\.(\d+)\.attn2\.to_k\.weight$", key)
        if found:
            depth, context = max(depth, int(found[1]) + 1), shape[1]
    return {
        "widths": tuple(widths),
        "attends": tuple(attends),
        "depth": depth,
        "context": context,
        "out": shapes.get("out.2.weight", ())[:1],
        "embedding": shapes.get("input_blocks.1.0.emb_layers.1.weight", ())[:1],
        "linear": len(shapes.get("middle_block.1.proj_in.weight", ())) == 2,
    }


def unet_of_config(params: JSON) -> Structure:
    """The structure of the UNet that the parameters of `unet_config` describe."""
    width, layers = params["model_channels"], params["num_res_blocks"]
    channels = [width * factor for factor in params["channel_mult"]]
    crossed = params.get("use_spatial_transformer", False)
    attention = [2**level in params["attention_resolutions"] for level in range(len(channels))]
    widths, attends, skips, current = [(width, params["in_channels"])], [False], [width], width
    for level, out in enumerate(channels):
        for _ in range(layers):
            widths.append((out, current))
            attends.append(attention[level])
            skips.append(out)
            current = out
        if level < len(channels) - 1:
            widths.append((out, out))
            attends.append(False)
            skips.append(out)
    for level in reversed(range(len(channels))):
        for _ in range(layers + 1):
            widths.append((channels[level], current + skips.pop()))
            attends.append(attention[level])
            current = channels[level]
    return {
        "widths": tuple(widths),
        "attends": tuple(attends),
        "depth": params.get("transformer_depth", 1) if crossed else 0,
        "context": params.get("context_dim") if crossed else None,
        "out": (params["out_channels"],),
        "embedding": (channels[0] * (2 if params.get("use_scale_shift_norm") else 1),),
        "linear": bool(params.get("use_linear_in_transformer", False)),
    }


def first_stage_of_shapes(shapes: Shapes) -> Structure:
    """The structure of an autoencoder: the widths of the encoder's levels, its attention, its latents and its codes."""
    levels = count_blocks(shapes, r"encoder\.down\.(\d+)\.")
    return {
        "widths": tuple(shapes.get(f"encoder.down.{i}.block.0.conv2.weight", ())[:1] for i in range(levels)),
        "blocks": count_blocks(shapes, r"encoder\.down\.0\.block\.(\d+)\."),
        "attends": tuple(f"encoder.down.{i}.attn.0.q.weight" in shapes for i in range(levels)),
        "middle": "encoder.mid.attn_1.q.weight" in shapes,
        "latents": shapes.get("encoder.conv_out.weight", ())[:1],
        "codes": shapes.get("quantize.embedding.weight"),
    }


def first_stage_of_config(node: object) -> Structure:
    """The structure of the autoencoder that a first stage's node describes."""
    params = params_of(node, "first_stage_config")
    network = params["ddconfig"]
    vanilla = network.get("attn_type", "vanilla") != "none"
    sides = [network["resolution"] // 2**i for i in range(len(network["ch_mult"]))]
    quantised = class_of(node, "first_stage_config") != "AutoencoderKL"
    return {
        "widths": tuple((network["ch"] * factor,) for factor in network["ch_mult"]),
        "blocks": network["num_res_blocks"],
        "attends": tuple(vanilla and side in network["attn_resolutions"] for side in sides),
        "middle": vanilla,
        "latents": (network["z_channels"] * (1 if quantised else 2),),
        "codes": (params["n_embed"], params["embed_dim"]) if quantised else None,
    }


def cond_stage_of_shapes(shapes: Shapes) -> str | None:
    """The class of the conditioning stage; None if it has no tensors."""
    return next((name for tensor, name in COND_TENSORS.items() if tensor in shapes), None)


def cond_stage_of_config(node: object) -> str | None:
    """The class in a conditioning stage's node; None if it has no tensors."""
    name = class_of(node, "cond_stage_config")
    return name if name in COND_TENSORS.values() else None


def count_blocks(shapes: Shapes, pattern: str) -> int:
    """The number of blocks: one more than the largest number that the pattern matches in a name, 0 without a match."""
    numbers = (int(found[1]) for key in shapes if (found := re.match(pattern, key)))
    return 1 + max(numbers, default=-1)
