"""Writing folders that plain diffusers loads, for the models that its own classes can represent exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import diffusers
import torch

from latentdiff.conversion.convert import check_output_is_new, write_weights
from latentdiff.conversion.weights import BytesWritten, Weights, weights_of
from latentdiff.errors import ConfigError
from latentdiff.io.files import atomic_folder
from latentdiff.models.latent_colours import ENTRIES
from latentdiff.types import JSON, Components, FirstStage, Scheduler, TextEncoder

# Components that a Stable Diffusion pipeline may have, and that no model here has.
STABLE_DIFFUSION_OPTIONAL = {name: [None, None] for name in ("safety_checker", "feature_extractor", "image_encoder")}

# diffusers' pipelines of tasks by CLIP's text, and by none.
STABLE_DIFFUSION_PIPELINES = {
    "text-to-image": "StableDiffusionPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}
STOCK_PIPELINES = {"unconditional": "LDMPipeline", "super-resolution": "LDMSuperResolutionPipeline"}

# diffusers' block types of a UNet's level, by whether it has attention.
CROSS_DOWN_BLOCKS = {False: "DownBlock2D", True: "CrossAttnDownBlock2D"}
CROSS_UP_BLOCKS = {False: "UpBlock2D", True: "CrossAttnUpBlock2D"}
PLAIN_DOWN_BLOCKS = {False: "DownBlock2D", True: "AttnDownBlock2D"}
PLAIN_UP_BLOCKS = {False: "UpBlock2D", True: "AttnUpBlock2D"}
RESNET_DOWN_BLOCKS = {False: "ResnetDownsampleBlock2D", True: "AttnDownBlock2D"}
RESNET_UP_BLOCKS = {False: "ResnetUpsampleBlock2D", True: "AttnUpBlock2D"}


def save_diffusers(
    task: str | None,
    components: Components,
    out: str | Path,
    dtype: torch.dtype | None = None,
    *,
    weights: Mapping[str, Weights] | None = None,
    progress: BytesWritten | None = None,
) -> None:
    """Write a model as a folder of diffusers' own classes.

    Args:
        task: The task, as in `load_original`; None for a first stage alone.
        components: The components, with the names of `load_original` and pipelines.
        out: The folder to make; it must not exist.
        dtype: The data type of the weights; None keeps theirs.
        weights: The weights of networks that have none in memory.
        progress: A function that is called with the number of bytes written since the last call.

    Raises:
        ConfigError: If diffusers' classes can't represent the model; the message says why. No weights have been read
            then.
        InputError: If `out` exists.
    """
    out = Path(out)
    check_output_is_new(out)
    found = weights_of(components, weights, dtype)
    if task is None:
        if "vae" not in components:
            raise ConfigError(f"diffusers has no class for {', '.join(components)}; keep it as a latentdiff folder")
        vae = StockPart("vae", stock_vae_config(components["vae"]))
        with atomic_folder(out) as aside:
            _write(aside, vae, found, progress)
        return
    index, parts = _pipeline(task, components)
    with atomic_folder(out) as aside:
        for name, part in parts.items():
            (aside / name).mkdir()
            _write(aside / name, part, found, progress)
        stock_scheduler(components["scheduler"]).save_pretrained(aside / "scheduler")
        if components.get("tokenizer") is not None:
            components["tokenizer"].save_pretrained(aside / "tokenizer")
            index["tokenizer"] = ["transformers", type(components["tokenizer"]).__name__]
        (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def refusal(task: str | None, components: Components) -> str | None:
    """The reason why `save_diffusers` would refuse a model, or None if it would not."""
    try:
        if task is not None:
            _pipeline(task, components)
    except ConfigError as error:
        return str(error)
    return None


class StockPart(NamedTuple):
    """A component in a folder of plain diffusers.

    Attributes:
        name: The component's name here.
        config: The configuration of the stock class that it is there.
        file: The name of the file of weights.
    """

    name: str
    config: JSON
    file: str = "diffusion_pytorch_model.safetensors"


def _pipeline(task: str, components: Components) -> tuple[JSON, dict[str, StockPart]]:
    """The index of the folder, and the components in it, by the names that diffusers' pipeline has for them."""
    unet = StockPart("unet", stock_unet_config(components["unet"].config))
    vae = StockPart("vae", stock_vae_config(components["vae"]))
    unet_class, vae_class = ["diffusers", unet.config["_class_name"]], ["diffusers", vae.config["_class_name"]]
    common = {"_diffusers_version": diffusers.__version__, "scheduler": ["diffusers", "DDIMScheduler"]}
    text: TextEncoder | None = components.get("text_encoder")
    if task == "text-to-image" and text is not None and type(text).__name__ == "LDMTextEncoder":
        if len(components["vae"].config.block_out_channels) != 4:
            raise _refuse("LDMTextToImagePipeline makes latents of an eighth of the image's sides, this model others")
        index = {
            "_class_name": "LDMTextToImagePipeline",
            "bert": ["latent_diffusion", "LDMBertModel"],
            "unet": unet_class,
            "vqvae": vae_class,
        }
        bert = StockPart("text_encoder", ldm_bert_config(text.config), "model.safetensors")
        return {**index, **common}, {"unet": unet, "vqvae": vae, "bert": bert}
    if task in STABLE_DIFFUSION_PIPELINES and text is not None:
        if type(text).__name__ == "LDMTextEncoder":
            raise _refuse(f"{STABLE_DIFFUSION_PIPELINES[task]} takes a CLIP text encoder, this model has another")
        if vae.config["_class_name"] != "AutoencoderKL":
            raise _refuse(f"{STABLE_DIFFUSION_PIPELINES[task]} takes an AutoencoderKL, this model has a VQModel")
        index = {
            "_class_name": STABLE_DIFFUSION_PIPELINES[task],
            "text_encoder": ["transformers", type(text).__name__],
            "unet": unet_class,
            "vae": vae_class,
            **STABLE_DIFFUSION_OPTIONAL,
        }
        config = {**text.config.to_diff_dict(), "architectures": [type(text).__name__]}
        encoder = StockPart("text_encoder", config, "model.safetensors")
        return {**index, **common}, {"unet": unet, "vae": vae, "text_encoder": encoder}
    if task not in STOCK_PIPELINES or text is not None:
        raise _refuse(f"diffusers has no pipeline for {task}{'' if text is None else ' by text'}")
    if vae.config["_class_name"] != "VQModel":
        raise _refuse(f"{STOCK_PIPELINES[task]} takes a VQModel, this model has a KL autoencoder")
    index = {"_class_name": STOCK_PIPELINES[task], "unet": unet_class, "vqvae": vae_class}
    return {**index, **common}, {"unet": unet, "vqvae": vae}


def stock_unet_config(config: JSON) -> JSON:
    """The configuration of diffusers' `UNet2DConditionModel` or `UNet2DModel` that is this network.

    Raises:
        ConfigError: If neither class can be this network.
    """
    attention = _cross_attention if config["cross_attention_dim"] is not None else _plain_attention
    return {
        **attention(config),
        "sample_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "layers_per_block": config["layers_per_block"],
        "dropout": config["dropout"],
        "block_out_channels": config["block_out_channels"],
        "norm_num_groups": config["norm_num_groups"],
        "resnet_time_scale_shift": config["resnet_time_scale_shift"],
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "norm_eps": 1e-5,
        "act_fn": "silu",
    }


def _cross_attention(config: JSON) -> JSON:
    """The options of attention and resampling in a `UNet2DConditionModel`."""
    if config["resnet_resampling"] or not config["mid_block_attention"]:
        raise _refuse("UNet2DConditionModel joins its levels by convolutions and attends in the middle")
    attends, width = config["attention_levels"], config["num_head_channels"]
    heads = config["num_attention_heads"]
    if width is not None:
        heads = [max(1, channels // width) for channels in config["block_out_channels"]]
    return {
        "_class_name": "UNet2DConditionModel",
        "down_block_types": [CROSS_DOWN_BLOCKS[attend] for attend in attends],
        "up_block_types": [CROSS_UP_BLOCKS[attend] for attend in reversed(attends)],
        "cross_attention_dim": config["cross_attention_dim"],
        "transformer_layers_per_block": config["transformer_layers_per_block"],
        "attention_head_dim": heads,  # in this class, the option of this name is the number of heads
        "use_linear_projection": config["use_linear_projection"],
    }


def _plain_attention(config: JSON) -> JSON:
    """The options of attention and resampling in a `UNet2DModel`."""
    attends, resnets = config["attention_levels"], config["resnet_resampling"]
    channels, heads = config["block_out_channels"], config["num_attention_heads"]
    width = config["num_head_channels"]
    if width is None:
        numbers = [heads] * len(channels) if isinstance(heads, int) else list(heads)
        middle = (channels[-1], numbers[-1], config["mid_block_attention"])
        levels = [*zip(channels, numbers, attends, strict=True), middle]
        widths = {channel // number for channel, number, attend in levels if attend}
        if len(widths) > 1:
            raise _refuse(f"UNet2DModel has heads of one width, this network has widths {sorted(widths)}")
        width = widths.pop() if widths else None
    down, up = (RESNET_DOWN_BLOCKS, RESNET_UP_BLOCKS) if resnets else (PLAIN_DOWN_BLOCKS, PLAIN_UP_BLOCKS)
    return {
        "_class_name": "UNet2DModel",
        "down_block_types": [down[attend] for attend in attends],
        "up_block_types": [up[attend] for attend in reversed(attends)],
        "attention_head_dim": width,
        "add_attention": config["mid_block_attention"],
        "attn_norm_num_groups": config["norm_num_groups"],
        "downsample_type": "resnet" if resnets else "conv",
        "upsample_type": "resnet" if resnets else "conv",
    }


def stock_vae_config(vae: FirstStage) -> JSON:
    """The configuration of diffusers' `AutoencoderKL` or `VQModel` that is this first stage.

    Raises:
        ConfigError: If it is of another class, which diffusers hasn't got.
    """
    if type(vae).__name__ not in ("AutoencoderKL", "VQModel"):
        raise _refuse(f"diffusers has no {type(vae).__name__}")
    options = {name: value for name, value in vae.config.items() if not name.startswith("_") or name in ENTRIES}
    return {"_class_name": "VQModel" if "num_vq_embeddings" in options else "AutoencoderKL", **options}


def ldm_bert_config(config: JSON) -> JSON:
    """The configuration of diffusers' `LDMBertModel`; `translate_ldm_bert_config` is the inverse."""
    return {
        "model_type": "ldmbert",
        "architectures": ["LDMBertModel"],
        "vocab_size": config["vocab_size"],
        "max_position_embeddings": config["max_position_embeddings"],
        "d_model": config["hidden_size"],
        "encoder_layers": config["num_hidden_layers"],
        "encoder_attention_heads": config["num_attention_heads"],
        "encoder_ffn_dim": 4 * config["hidden_size"],
        "head_dim": config["attention_head_dim"],
        "activation_function": "gelu",
        "scale_embedding": False,
        "pad_token_id": 0,
    }


def stock_scheduler(scheduler: Scheduler) -> diffusers.DDIMScheduler:
    """diffusers' `DDIMScheduler` with the model's noise schedule."""
    from latentdiff.schedulers.select import make_scheduler

    config = {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}
    return make_scheduler(diffusers.DDIMScheduler, scheduler.config, **config)


def _write(folder: Path, part: StockPart, weights: Mapping[str, Weights], progress: BytesWritten | None) -> None:
    """Write the configuration and the weights of a component."""
    (folder / "config.json").write_text(json.dumps(part.config, indent=2, default=list) + "\n", encoding="utf-8")
    write_weights(folder / part.file, weights[part.name], progress)


def _refuse(reason: str) -> ConfigError:
    return ConfigError(f"this model can't be a folder of plain diffusers: {reason}; use --to latentdiff")
