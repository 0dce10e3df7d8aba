"""What a checkpoint's configuration says that it holds: components on the meta device, and where their tensors are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from accelerate import init_empty_weights
from torch import nn

from latentdiff.conversion import networks
from latentdiff.conversion.networks import Network
from latentdiff.conversion.nodes import class_of, params_of, take
from latentdiff.conversion.tensor_map import TensorMap
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.tasks import TASKS, TaskSpec, task_of_original_encoder

UNET, FIRST_STAGE, COND_STAGE = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

DIFFUSION_CLASSES = ("LatentDiffusion", "LatentInpaintDiffusion")
KNOWN: dict[str, Any] = {
    "unet_config": ...,
    "first_stage_config": ...,
    "cond_stage_config": ...,
    "cond_stage_key": "image",
    "conditioning_key": None,
    "concat_mode": True,
    "image_size": None,
    "timesteps": 1000,
    "linear_start": 1e-4,
    "linear_end": 2e-2,
    "beta_schedule": "linear",
    "given_betas": None,
    "parameterization": "eps",
    "scale_factor": 1.0,
    "scale_by_std": False,
    "use_ema": True,
}
IGNORED = (
    *(
        "ckpt_path",
        "ignore_keys",
        "load_only_unet",
        "monitor",
        "first_stage_key",
        "channels",
        "log_every_t",
        "clip_denoised",
    ),
    *("loss_type", "cosine_s", "original_elbo_weight", "v_posterior", "l_simple_weight", "use_positional_encodings"),
    *("learn_logvar", "logvar_init", "num_timesteps_cond", "cond_stage_trainable", "cond_stage_forward"),
    *("scheduler_config", "finetune_keys", "concat_keys", "masked_image_key", "base_learning_rate"),
    *("split_input_params", "ucg_training", "reset_ema", "reset_num_ema_updates", "make_it_fit", "text_embedding_key"),
)

# The original's names of beta schedules; its "linear" is linear in the square root.
BETA_SCHEDULES = {"linear": "scaled_linear", "cosine": "squaredcos_cap_v2", "sqrt_linear": "linear", "sqrt": "sqrt"}
ORIGINAL_PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


@dataclass(frozen=True)
class Part:
    """A component to be filled.

    Attributes:
        network: What it is.
        place: What its names start with in the checkpoint.
        model: The component on the meta device.
        map: From its tensors to the checkpoint's.
    """

    network: Network
    place: str
    model: nn.Module
    map: TensorMap


@dataclass(frozen=True)
class ConversionPlan:
    """Everything that the configuration tells.

    Attributes:
        task: What the model does; None for a first stage or a classifier alone.
        parts: Component name to part.
        scheduler: Arguments of `DDIMScheduler`; None where there is no diffusion model.
        scale_by_std: Whether the latent scale is a tensor of the checkpoint.
        shared_first_stage: Whether the checkpoint holds the first stage a second time, as its own conditioner.
    """

    task: str | None
    parts: Mapping[str, Part]
    scheduler: Mapping[str, Any] | None = None
    scale_by_std: bool = False
    shared_first_stage: bool = False
    notes: list[str] = field(default_factory=list)


# The networks of the original's conditioning stages that have one.
COND_NETWORKS: dict[str, Callable[[object], Network]] = {
    "BERTEmbedder": networks.text_transformer,
    "BERTEmbedder(use_tokenizer=False)": networks.text_transformer,
    "ClassEmbedder": networks.class_embedder,
    "SpatialRescaler": networks.segmentation_encoder,
    "FrozenCLIPEmbedder": networks.clip,
    "FrozenOpenCLIPEmbedder": networks.open_clip,
}


def cond_stage(node: object) -> tuple[TaskSpec, Callable[[object], Network] | None]:
    """The task that the conditioning stage stands for, and its network if it has one.

    Raises:
        ConfigError: If its class is unknown.
    """
    name = class_of(node, "cond_stage_config")
    if name == "BERTEmbedder" and not params_of(node, "cond_stage_config").get("use_tokenizer", True):
        name = "BERTEmbedder(use_tokenizer=False)"
    spec = task_of_original_encoder(name)
    if spec is None:
        known = [encoder for spec in TASKS.values() for encoder in spec.original_encoders]
        raise ConfigError(f"cond_stage_config has the class {name!r}; {nearest(name, known)}")
    return spec, COND_NETWORKS.get(name)


def make_conversion_plan(node: Mapping[str, Any]) -> ConversionPlan:
    """Plan the conversion of a model node; nothing is read or allocated.

    Raises:
        ConfigError: If it names something that can't be converted.
    """
    name = class_of(node, "model")
    if name in networks.KL_CLASSES + networks.VQ_CLASSES:
        return ConversionPlan(None, {"vae": part(networks.first_stage(node), "")})
    if name in networks.CLASSIFIER_CLASSES:
        return ConversionPlan(None, {"classifier": part(networks.classifier(node), "")})
    if name not in DIFFUSION_CLASSES:
        alone = (*networks.KL_CLASSES, *networks.VQ_CLASSES, *networks.CLASSIFIER_CLASSES)
        known = (*DIFFUSION_CLASSES, *alone)
        raise ConfigError(f"the model has the class {name!r}; {nearest(name, known)}")
    given = take(params_of(node, "model"), "model", known=KNOWN, fixed={"given_betas": (None,)}, ignored=IGNORED)
    spec, network = cond_stage(given["cond_stage_config"])
    size = given["image_size"] if isinstance(given["image_size"], int) else None
    scale = given["scale_factor"]
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < 1e6:
        raise ConfigError(f"scale_factor is {scale!r}; it must be a number above 0")
    parts = {
        "vae": part(networks.first_stage(given["first_stage_config"], float(scale)), FIRST_STAGE),
        "unet": part(networks.unet(given["unet_config"], size), UNET),
    }
    if spec.encoder is not None and network is not None:
        parts[spec.encoder] = part(network(given["cond_stage_config"]), COND_STAGE)
    task = spec.name
    unet, vae = parts["unet"].network.config, parts["vae"].network.config
    if unet["cross_attention_dim"] is not None and task == "super-resolution":
        task = "retrieval-augmented"  # torch.nn.Identity passes on embeddings as well as images
    if task == "text-to-image" and unet["in_channels"] > vae["latent_channels"]:
        task = "inpaint"
    return ConversionPlan(
        task,
        parts,
        noise_schedule(given),
        scale_by_std=bool(given["scale_by_std"]),
        shared_first_stage=given["cond_stage_config"] == "__is_first_stage__",
    )


def part(network: Network, place: str) -> Part:
    """A part on the meta device; buffers that no file holds are made for real."""
    with init_empty_weights(include_buffers=False):
        model = network.component(**network.config).eval()
    return Part(network, place, model, TensorMap(model, network.rules, place + network.prefix))


def noise_schedule(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `DDIMScheduler` that sample as the original's DDIM does."""
    for name, known in (("beta_schedule", BETA_SCHEDULES), ("parameterization", ORIGINAL_PREDICTION_TYPES)):
        if given[name] not in known:
            raise ConfigError(f"unknown {name} {given[name]!r}; {nearest(given[name], known)}")
    for name, low in (("linear_start", 0), ("linear_end", 0), ("timesteps", 1)):
        if isinstance(given[name], bool) or not isinstance(given[name], (int, float)) or not low <= given[name] < 1e6:
            raise ConfigError(f"{name} is {given[name]!r}; it must be a number of at least {low}")
    return {
        "num_train_timesteps": int(given["timesteps"]),
        "beta_schedule": BETA_SCHEDULES[given["beta_schedule"]],
        "beta_start": float(given["linear_start"]),
        "beta_end": float(given["linear_end"]),
        "prediction_type": ORIGINAL_PREDICTION_TYPES[given["parameterization"]],
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
