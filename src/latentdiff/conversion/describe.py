"""From components to the original's configuration: the YAML with which the original code would make them."""

from __future__ import annotations

from itertools import compress

from latentdiff.conversion.plan import ORIGINAL_BETA_SCHEDULES, ORIGINAL_PREDICTION_TYPES
from latentdiff.conversion.zoo import (
    ENCODER_MODULE,
    KL_TARGET,
    LDM_MODULE,
    LDM_TARGET,
    UNET_TARGET,
    VQ_INTERFACE_TARGET,
    VQ_TARGET,
)
from latentdiff.errors import ConfigError
from latentdiff.tasks import TASKS
from latentdiff.types import JSON, Components, Config, FirstStage, TextEncoder


def model_node(components: Components) -> JSON:
    """The model node of a pipeline's components, or of a first stage alone.

    Args:
        components: The components, with the names of `load_original` and pipelines.

    Raises:
        ConfigError: If the original code can't make one of them; the message says which and why.
    """
    if "vae" not in components:
        raise ConfigError(f"no first stage is in {', '.join(components)}; only models with one go back to the original")
    vae = components["vae"]
    if "unet" not in components:
        return first_stage_node(vae, interface=False)
    target, conditioning = _conditioning(components)
    unet, schedule = unet_node(components["unet"].config), schedule_params(components["scheduler"].config)
    return {
        "target": target,
        "params": {
            **schedule,
            "image_size": unet["params"]["image_size"],
            "channels": unet["params"]["out_channels"],
            "scale_factor": float(vae.config.scaling_factor),
            "use_ema": False,
            **conditioning,
            "unet_config": unet,
            "first_stage_config": first_stage_node(vae, interface=True),
        },
    }


def unet_node(config: JSON) -> JSON:
    """The node `unet_config` for the configuration of our UNet."""
    channels = list(config["block_out_channels"])
    width = channels[0]
    if any(channel % width for channel in channels):
        raise _impossible("unet", f"block_out_channels {channels}", "multiples of the first")
    if config["norm_num_groups"] != 32 or not config["mid_block_attention"]:
        raise _impossible(
            "unet", "other norm_num_groups than 32 or a middle without attention", "32 groups and attention"
        )
    transformer = {}
    if config["cross_attention_dim"] is not None:
        transformer = {
            "use_spatial_transformer": True,
            "transformer_depth": _depth(config),
            "context_dim": config["cross_attention_dim"],
        }
        if config["use_linear_projection"]:  # the code of SD 2.x has this parameter, that of 2022 has not
            transformer["use_linear_in_transformer"] = True
    params = {
        "image_size": config["sample_size"],
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "model_channels": width,
        "attention_resolutions": [2**level for level, attends in enumerate(config["attention_levels"]) if attends],
        "num_res_blocks": config["layers_per_block"],
        "channel_mult": [channel // width for channel in channels],
        **_heads(config, channels),
        "use_scale_shift_norm": config["resnet_time_scale_shift"] == "scale_shift",
        "resblock_updown": config["resnet_resampling"],
        **transformer,
    }
    return {"target": UNET_TARGET, "params": params}


def _heads(config: JSON, channels: list[int]) -> JSON:
    """The number of a UNet's attention heads, or their width if it is that which levels have in common."""
    heads = config["num_attention_heads"]
    if heads is None:
        return {"num_head_channels": config["num_head_channels"]}
    numbers = [heads] * len(channels) if isinstance(heads, int) else list(heads)
    levels = [*zip(channels, numbers, config["attention_levels"], strict=True), (channels[-1], numbers[-1], True)]
    attending = [(channel, number) for channel, number, attends in levels if attends]
    if len({number for _, number in attending}) == 1:
        return {"num_heads": numbers[-1]}
    widths = {channel // number for channel, number in attending}
    if len(widths) > 1:
        raise _impossible("unet", f"heads {heads} whose number and width differ between levels", "one number or width")
    return {"num_head_channels": widths.pop()}


def _depth(config: JSON) -> int:
    """The number of transformer blocks in each of a UNet's spatial transformers."""
    depth = config["transformer_layers_per_block"]
    depths = {depth} if isinstance(depth, int) else {*compress(depth, config["attention_levels"]), depth[-1]}
    if len(depths) > 1:
        raise _impossible("unet", f"transformers of depth {depth}, which differs between levels", "one depth")
    return int(depths.pop())


def first_stage_node(vae: FirstStage, *, interface: bool) -> JSON:
    """The node `first_stage_config` of an autoencoder, KL or VQ; `interface` is True within a diffusion model."""
    config = vae.config
    if type(vae).__name__ not in ("AutoencoderKL", "VQModel"):
        raise _impossible("vae", f"the class {type(vae).__name__}", "AutoencoderKL, VQModel")
    channels = list(config.block_out_channels)
    if any(channel % channels[0] for channel in channels) or config.norm_num_groups != 32:
        raise _impossible(
            "vae", f"block_out_channels {channels} in {config.norm_num_groups} groups", "multiples, 32 groups"
        )
    quantised = hasattr(config, "num_vq_embeddings")
    attends = [kind.startswith("Attn") for kind in config.down_block_types]
    side = config.sample_size
    network = {
        **({} if config.mid_block_add_attention else {"attn_type": "none"}),
        "double_z": not quantised,
        "z_channels": config.latent_channels,
        "resolution": side,
        "in_channels": config.in_channels,
        "out_ch": config.out_channels,
        "ch": channels[0],
        "ch_mult": [channel // channels[0] for channel in channels],
        "num_res_blocks": config.layers_per_block,
        "attn_resolutions": [side // 2**level for level, attend in enumerate(attends) if attend],
        "dropout": 0.0,
    }
    params = {"embed_dim": config.latent_channels, "ddconfig": network, "lossconfig": {"target": "torch.nn.Identity"}}
    if not quantised:
        return {"target": KL_TARGET, "params": params}
    params |= {"embed_dim": config.vq_embed_dim or config.latent_channels, "n_embed": config.num_vq_embeddings}
    return {"target": VQ_INTERFACE_TARGET if interface else VQ_TARGET, "params": params}


def schedule_params(config: JSON) -> JSON:
    """The original's parameters of the noise schedule in a scheduler's configuration."""
    betas = {ours: theirs for theirs, ours in ORIGINAL_BETA_SCHEDULES.items()}
    predictions = {ours: theirs for theirs, ours in ORIGINAL_PREDICTION_TYPES.items()}
    if config.get("prediction_type", "epsilon") not in predictions:
        raise _impossible("scheduler", f"prediction_type {config['prediction_type']!r}", ", ".join(predictions))
    if config["beta_schedule"] not in betas or config.get("trained_betas") is not None:
        raise _impossible("scheduler", f"beta_schedule {config['beta_schedule']!r}", ", ".join(betas))
    if config.get("rescale_betas_zero_snr"):
        raise _impossible("scheduler", "rescale_betas_zero_snr", "betas as they are")
    kind = {} if config["beta_schedule"] == "scaled_linear" else {"beta_schedule": betas[config["beta_schedule"]]}
    prediction = predictions[config.get("prediction_type", "epsilon")]
    return {
        "timesteps": config["num_train_timesteps"],
        "linear_start": config["beta_start"],
        "linear_end": config["beta_end"],
        **kind,
        **({} if prediction == "eps" else {"parameterization": prediction}),
    }


def _conditioning(components: Components) -> tuple[str, JSON]:
    """The original's class of a model, and the parameters that are not those of UNet, first stage and scheduler."""
    node: str | JSON
    if "layout_tokenizer" in components:  # of a hybrid pipeline alone
        raise _impossible("pipeline", "several conditions of its own", "one, or a prompt beside channels")
    if "class_embedder" in components:
        config = components["class_embedder"].config
        params = {"n_classes": config.num_classes, "embed_dim": config.embed_dim, "key": "class_label"}
        key, node = "class_label", _encoder("ClassEmbedder", params)
    elif "segmentation_encoder" in components:
        config = components["segmentation_encoder"].config
        params = {"n_stages": config.num_stages, "in_channels": config.in_channels, "out_channels": config.out_channels}
        key, node = "segmentation", _encoder("SpatialRescaler", params)
    elif "layout_encoder" in components:
        params = {**_bert_params(components["layout_encoder"].config), "use_tokenizer": False}
        key, node = "coordinates_bbox", _encoder("BERTEmbedder", params)
    elif components.get("text_encoder") is not None:
        key, node = "caption", _text(components["text_encoder"])
    else:
        key, node = _without_encoder(components["unet"].config, components["vae"].config.latent_channels)
    unet, latents = components["unet"].config, components["vae"].config.latent_channels
    params = {"cond_stage_key": key, "cond_stage_config": node}
    if unet.cross_attention_dim is None:
        return LDM_TARGET, {"concat_mode": True, **params}
    if unet.in_channels == latents:
        return LDM_TARGET, {"conditioning_key": "crossattn", **params}
    task = TASKS["inpaint" if unet.in_channels == 2 * latents + 1 else "super-resolution"]
    return f"{LDM_MODULE}{task.original_hybrid}", {
        "conditioning_key": "hybrid",
        "concat_keys": list(task.concat_keys),
        **params,
    }


def _without_encoder(unet: Config, latents: int) -> tuple[str, str | JSON]:
    """The key and node of a conditioning without a network, by the number of channels beside the latents."""
    extra = unet.in_channels - latents
    if unet.cross_attention_dim is None and extra == 0:
        return "class_label", "__is_unconditional__"
    if extra == latents + 1:
        return "masked_image", "__is_first_stage__"
    return "LR_image" if extra else "nix", {"target": "torch.nn.Identity"}


def _text(encoder: TextEncoder) -> JSON:
    """The node of a text encoder."""
    if type(encoder).__name__ == "LDMTextEncoder":
        return _encoder("BERTEmbedder", _bert_params(encoder.config))
    if encoder.config.hidden_act == "quick_gelu":  # OpenAI trained with it, OpenCLIP without
        return _encoder("FrozenCLIPEmbedder", {})
    return _encoder("FrozenOpenCLIPEmbedder", {"freeze": True, "layer": "penultimate"})


def _bert_params(config: Config) -> JSON:
    """The parameters of the original's text transformer, "BERT"."""
    if (config.num_attention_heads, config.attention_head_dim) != (8, 64):
        heads = f"{config.num_attention_heads} heads of {config.attention_head_dim}"
        raise _impossible("text_encoder", heads, "8 heads of 64")
    return {
        "n_embed": config.hidden_size,
        "n_layer": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "max_seq_len": config.max_position_embeddings,
    }


def _encoder(name: str, params: JSON) -> JSON:
    return {"target": ENCODER_MODULE + name, "params": params}


def _impossible(component: str, given: str, allowed: str) -> ConfigError:
    return ConfigError(f"{component} has {given}; the original code can make {allowed}, so it can't be converted to it")
