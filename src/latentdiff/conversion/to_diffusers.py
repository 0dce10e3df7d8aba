"""Folders that plain diffusers loads, for the models that its own classes can represent exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from latentdiff.conversion.convert import check_new
from latentdiff.errors import ConfigError
from latentdiff.io.files import atomic_folder
from latentdiff.io.safetensors_writer import write_safetensors

Config = Mapping[str, Any]

STABLE_DIFFUSION = {"safety_checker": [None, None], "feature_extractor": [None, None], "image_encoder": [None, None]}


def save_diffusers(
    task: str | None, components: Mapping[str, Any], out: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Write a model as a folder of diffusers' own classes.

    Args:
        task: As `load_original` names it; None for a first stage alone.
        components: As `load_original` and pipelines name them.
        out: The folder to make; it must not exist.
        dtype: Of the weights; None keeps theirs.

    Raises:
        ConfigError: Where those classes can't represent the model; it says why.
        InputError: If `out` exists.
    """
    out = Path(out)
    check_new(out)
    if task is None:
        if "vae" not in components:
            raise ConfigError(f"diffusers has no class for {', '.join(components)}; keep it as a latentdiff folder")
        config = stock_vae_config(components["vae"])
        with atomic_folder(out) as aside:
            _write(aside, components["vae"], config, "diffusion_pytorch_model.safetensors", dtype)
        return
    index, parts = _pipeline(task, components)
    with atomic_folder(out) as aside:
        for name, (model, config, file) in parts.items():
            (aside / name).mkdir()
            _write(aside / name, model, config, file, dtype)
        stock_scheduler(components["scheduler"]).save_pretrained(aside / "scheduler")
        if components.get("tokenizer") is not None:
            components["tokenizer"].save_pretrained(aside / "tokenizer")
            index["tokenizer"] = ["transformers", type(components["tokenizer"]).__name__]
        (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def refusal(task: str | None, components: Mapping[str, Any]) -> str | None:
    """Why `save_diffusers` would refuse a model, or None."""
    try:
        if task is not None:
            _pipeline(task, components)
    except ConfigError as error:
        return str(error)
    return None


Parts = dict[str, tuple[nn.Module, dict[str, Any], str]]


def _pipeline(task: str, components: Mapping[str, Any]) -> tuple[dict[str, Any], Parts]:
    """The index, and for every folder of weights the model, its stock configuration and the name of its file."""
    weights = "diffusion_pytorch_model.safetensors"
    unet = components["unet"], stock_unet_config(components["unet"].config), weights
    vae = components["vae"], stock_vae_config(components["vae"]), weights
    classes = {"unet": unet[1]["_class_name"], "vae": vae[1]["_class_name"]}
    common = {"_diffusers_version": diffusers.__version__, "scheduler": ["diffusers", "DDIMScheduler"]}
    if task == "text-to-image" and type(components["text_encoder"]).__name__ == "LDMTextEncoder":
        if len(components["vae"].config.block_out_channels) != 4:
            raise _refusal("LDMTextToImagePipeline makes latents of an eighth of the image's sides, this model others")
        bert = components["text_encoder"], ldm_bert_config(components["text_encoder"].config), "model.safetensors"
        index = {
            "_class_name": "LDMTextToImagePipeline",
            "bert": ["latent_diffusion", "LDMBertModel"],
            "unet": ["diffusers", classes["unet"]],
            "vqvae": ["diffusers", classes["vae"]],
        }
        return {**index, **common}, {"unet": unet, "vqvae": vae, "bert": bert}
    if task == "text-to-image":
        text = components["text_encoder"]
        index = {
            "_class_name": "StableDiffusionPipeline",
            "text_encoder": ["transformers", type(text).__name__],
            "unet": ["diffusers", classes["unet"]],
            "vae": ["diffusers", classes["vae"]],
            **STABLE_DIFFUSION,
        }
        config = {**text.config.to_diff_dict(), "architectures": [type(text).__name__]}
        return {**index, **common}, {"unet": unet, "vae": vae, "text_encoder": (text, config, "model.safetensors")}
    pipelines = {"unconditional": "LDMPipeline", "super-resolution": "LDMSuperResolutionPipeline"}
    if task not in pipelines:
        raise _refusal(f"diffusers has no pipeline for {task}")
    if classes["vae"] != "VQModel":
        raise _refusal(f"{pipelines[task]} takes a VQModel, this model has a KL autoencoder")
    index = {
        "_class_name": pipelines[task],
        "unet": ["diffusers", classes["unet"]],
        "vqvae": ["diffusers", classes["vae"]],
    }
    return {**index, **common}, {"unet": unet, "vqvae": vae}


def stock_unet_config(config: Config) -> dict[str, Any]:
    """The configuration of diffusers' `UNet2DConditionModel` or `UNet2DModel` that is this network.

    Raises:
        ConfigError: If neither class can be this network.
    """
    stock = _crossed(config) if config["cross_attention_dim"] is not None else _plain(config)
    stock |= {
        name: config[name] for name in ("sample_size", "in_channels", "out_channels", "layers_per_block", "dropout")
    }
    stock |= {name: config[name] for name in ("block_out_channels", "norm_num_groups", "resnet_time_scale_shift")}
    return {
        **stock,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "norm_eps": 1e-5,
        "act_fn": "silu",
    }


def _crossed(config: Config) -> dict[str, Any]:
    if config["resnet_resampling"] or not config["mid_block_attention"]:
        raise _refusal("UNet2DConditionModel joins its levels by convolutions and attends in the middle")
    attends, width = config["attention_levels"], config["num_head_channels"]
    heads = config["num_attention_heads"]
    if width is not None:
        heads = [max(1, channels // width) for channels in config["block_out_channels"]]
    return {
        "_class_name": "UNet2DConditionModel",
        "down_block_types": [f"{'CrossAttn' * yes}DownBlock2D" for yes in attends],
        "up_block_types": [f"{'CrossAttn' * yes}UpBlock2D" for yes in reversed(attends)],
        "cross_attention_dim": config["cross_attention_dim"],
        "transformer_layers_per_block": config["transformer_layers_per_block"],
        "attention_head_dim": heads,  # this class calls the number of heads so
        "use_linear_projection": config["use_linear_projection"],
    }


def _plain(config: Config) -> dict[str, Any]:
    attends, resnets = config["attention_levels"], config["resnet_resampling"]
    channels, heads = config["block_out_channels"], config["num_attention_heads"]
    width = config["num_head_channels"]
    if width is None:
        levels = [channels[i] for i, yes in enumerate(attends) if yes] + [channels[-1]] * config["mid_block_attention"]
        numbers = [heads] * len(channels) if isinstance(heads, int) else heads
        widths = {level // number for level, number in zip(levels, numbers, strict=False)}
        if len(widths) > 1:
            raise _refusal(f"UNet2DModel has heads of one width, this network {heads} of them at every width")
        width = widths.pop() if widths else None
    down, up = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnets else ("DownBlock2D", "UpBlock2D")
    return {
        "_class_name": "UNet2DModel",
        "down_block_types": ["AttnDownBlock2D" if yes else down for yes in attends],
        "up_block_types": ["AttnUpBlock2D" if yes else up for yes in reversed(attends)],
        "attention_head_dim": width,
        "add_attention": config["mid_block_attention"],
        "attn_norm_num_groups": config["norm_num_groups"],
        "downsample_type": "resnet" if resnets else "conv",
        "upsample_type": "resnet" if resnets else "conv",
    }


def stock_vae_config(vae: Any) -> dict[str, Any]:
    """The configuration of diffusers' `AutoencoderKL` or `VQModel`."""
    options = {name: value for name, value in vae.config.items() if not name.startswith("_")}
    return {"_class_name": "VQModel" if "num_vq_embeddings" in options else "AutoencoderKL", **options}


def ldm_bert_config(config: Config) -> dict[str, Any]:
    """The configuration of diffusers' `LDMBertModel`; `translate_ldm_bert_config` is its inverse."""
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


def stock_scheduler(scheduler: Any) -> Any:
    """diffusers' DDIMScheduler with the model's noise schedule."""
    from latentdiff.schedulers.select import make_scheduler

    config = {"set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}
    return make_scheduler(diffusers.DDIMScheduler, scheduler.config, **config)


def _write(folder: Path, model: nn.Module, config: dict[str, Any], file: str, dtype: torch.dtype | None) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2, default=list) + "\n", encoding="utf-8")
    state = {
        name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()]
    write_safetensors(folder / file, layout, state.items())


def _refusal(reason: str) -> ConfigError:
    return ConfigError(f"this model can't be a folder of plain diffusers: {reason}; use --to latentdiff")
