"""The networks of the golden cases, built from the original configurations and weights."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from diffusers import AutoencoderKL, VQModel
from original_keys import (
    FIRST_STAGE_ATTENTION,
    PLAIN_ATTENTION,
    RESNET,
    TEXT_ATTENTION,
    TEXT_RULES,
    below,
    convert,
    ema_weights,
    first_stage_rules,
    unet_rules,
)
from safetensors.torch import load_file
from torch import Tensor

from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.unet import UNet2DConditionModel

GOLDEN = Path(__file__).parent / "golden"
CASES = ("ldm_txt2img", "ldm_uncond", "ldm_churches")


@dataclass(frozen=True)
class Case:
    """Networks in eval mode; `config` is the original `model.params`, `io` the recorded tensors."""

    unet: UNet2DConditionModel
    unet_ema: UNet2DConditionModel | None
    vae: AutoencoderKL | VQModel
    text_encoder: LDMTextEncoder | None
    scale_factor: float
    config: dict[str, Any]
    io: dict[str, Tensor]


def unet_config(params: dict[str, Any]) -> dict[str, Any]:
    """Our constructor arguments for the original `UNetModel` arguments."""
    multipliers = params["channel_mult"]
    heads = {"num_attention_heads": params["num_heads"]} if "num_heads" in params else {}
    widths = {"num_head_channels": params["num_head_channels"]} if "num_head_channels" in params else {}
    return {
        "sample_size": params.get("image_size"),
        "in_channels": params["in_channels"],
        "out_channels": params["out_channels"],
        "block_out_channels": tuple(params["model_channels"] * factor for factor in multipliers),
        "layers_per_block": params["num_res_blocks"],
        "attention_levels": tuple(2**i in params["attention_resolutions"] for i in range(len(multipliers))),
        "cross_attention_dim": params.get("context_dim"),
        "transformer_layers_per_block": params.get("transformer_depth", 1),
        "resnet_time_scale_shift": "scale_shift" if params.get("use_scale_shift_norm") else "default",
        "resnet_resampling": params.get("resblock_updown", False),
        **(widths or heads),
    }


def load_unet(params: dict[str, Any], weights: dict[str, Tensor]) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(**unet_config(params)).eval()
    rules = unet_rules(unet.config.layers_per_block, unet.config.attention_levels, True)
    plain = unet.config.cross_attention_dim is None
    convert(unet, weights, rules, PLAIN_ATTENTION if plain else {}, RESNET)
    return unet


def load_first_stage(params: dict[str, Any], weights: dict[str, Tensor]) -> AutoencoderKL | VQModel:
    network = params["ddconfig"]
    levels = len(network["ch_mult"])
    shared = {
        "block_out_channels": tuple(network["ch"] * factor for factor in network["ch_mult"]),
        "layers_per_block": network["num_res_blocks"],
        "latent_channels": network["z_channels"],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    if network["double_z"]:
        vae = AutoencoderKL(**shared)
    else:
        vae = VQModel(**shared, num_vq_embeddings=params["n_embed"], vq_embed_dim=params["embed_dim"])
    convert(vae, weights, first_stage_rules(levels), FIRST_STAGE_ATTENTION)
    return vae.eval()


def load_text_encoder(params: dict[str, Any], weights: dict[str, Tensor]) -> LDMTextEncoder:
    encoder = LDMTextEncoder(
        vocab_size=params["vocab_size"], hidden_size=params["n_embed"], num_hidden_layers=params["n_layer"]
    )
    convert(encoder, weights, TEXT_RULES, TEXT_ATTENTION)
    return encoder.eval()


@cache
def load_case(name: str) -> Case:
    """Build the case `name` of CASES; it is shared between tests, so don't change it."""
    config = yaml.safe_load((GOLDEN / name / "config.yaml").read_text())["model"]["params"]
    weights = load_file(GOLDEN / name / "model.safetensors")
    unet_params = config["unet_config"]["params"]
    ema, text = None, None
    if config.get("use_ema", True):
        ema = load_unet(unet_params, ema_weights(weights))
    if isinstance(config["cond_stage_config"], dict):
        text = load_text_encoder(config["cond_stage_config"]["params"], below(weights, "cond_stage_model.transformer."))
    scale = weights.get("scale_factor", config.get("scale_factor", 1.0))
    return Case(
        unet=load_unet(unet_params, below(weights, "model.diffusion_model.")),
        unet_ema=ema,
        vae=load_first_stage(config["first_stage_config"]["params"], below(weights, "first_stage_model.")),
        text_encoder=text,
        scale_factor=float(scale),
        config=config,
        io=load_file(GOLDEN / name / "io.safetensors"),
    )
