"""The plan of a conversion: the components that a configuration describes, and the places of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accelerate import init_empty_weights
from torch import nn

from latentdiff.conversion import networks
from latentdiff.conversion.networks import Network
from latentdiff.conversion.nodes import REQUIRED, class_of, params_of, take_params
from latentdiff.conversion.tensor_map import TensorMap
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.tasks import TASKS, TaskSpec, task_of_original_encoder
from latentdiff.types import JSON

UNET_PREFIX, FIRST_STAGE_PREFIX, COND_STAGE_PREFIX = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

DIFFUSION_CLASSES = ("LatentDiffusion", "LatentInpaintDiffusion")
MODEL_KNOWN: dict[str, object] = {
    "unet_config": REQUIRED,
    "first_stage_config": REQUIRED,
    "cond_stage_config": REQUIRED,
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
MODEL_IGNORED = (
    "ckpt_path", "ignore_keys", "load_only_unet", "monitor", "first_stage_key", "channels", "log_every_t",
    "clip_denoised", "loss_type", "cosine_s", "original_elbo_weight", "v_posterior", "l_simple_weight",
    "use_positional_encodings", "learn_logvar", "logvar_init", "num_timesteps_cond", "cond_stage_trainable",
    "cond_stage_forward", "scheduler_config", "finetune_keys", "concat_keys", "masked_image_key", "base_learning_rate",
    "split_input_params", "ucg_training", "reset_ema", "reset_num_ema_updates", "make_it_fit", "text_embedding_key",
)  # fmt: skip
"""The parameters of a diffusion model that change neither its networks nor its noise schedule."""

# The original's names and ours; its "linear" is linear in the square root of beta.
ORIGINAL_BETA_SCHEDULES = {
    "linear": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sqrt_linear": "linear",
    "sqrt": "sqrt",
}
ORIGINAL_PREDICTION_TYPES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}


@dataclass(frozen=True)
class ComponentPlan:
    """The plan of one component.

    Attributes:
        network: The component's class, configuration and rules.
        prefix: The prefix of the component's names in the checkpoint.
        model: The component, on the meta device.
        map: The map between the component's tensors and the checkpoint's.
    """

    network: Network
    prefix: str
    model: nn.Module
    map: TensorMap


@dataclass(frozen=True)
class ConversionPlan:
    """The plan of a checkpoint.

    Attributes:
        task: The task of the model; None for a first stage or a classifier alone.
        parts: The plans of its components, by their names in a pipeline.
        scheduler: The arguments of `DDIMScheduler`; None if there is no diffusion model.
        scale_by_std: Whether the latent scale is a tensor of the checkpoint.
        shared_first_stage: Whether the checkpoint holds the first stage a second time, as the conditioning stage.
    """

    task: str | None
    parts: Mapping[str, ComponentPlan]
    scheduler: JSON | None = None
    scale_by_std: bool = False
    shared_first_stage: bool = False


# The networks of the original's conditioning stages, as far as these have networks of their own.
COND_NETWORKS: dict[str, Callable[[object], Network]] = {
    "BERTEmbedder": networks.text_transformer_network,
    "BERTEmbedder(use_tokenizer=False)": networks.text_transformer_network,
    "ClassEmbedder": networks.class_embedder_network,
    "SpatialRescaler": networks.segmentation_encoder_network,
    "FrozenCLIPEmbedder": networks.clip_text_encoder_network,
    "FrozenOpenCLIPEmbedder": networks.open_clip_text_encoder_network,
}


def cond_stage(node: object) -> tuple[TaskSpec, Callable[[object], Network] | None]:
    """The task that a conditioning stage is for, and the function that makes its network if it has one.

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


def make_conversion_plan(node: JSON) -> ConversionPlan:
    """Plan the conversion of a model node; no weights are read, and no memory is allocated for them.

    Raises:
        ConfigError: If the model can't be converted.
    """
    name = class_of(node, "model")
    if name in networks.KL_CLASSES + networks.VQ_CLASSES:
        return ConversionPlan(None, {"vae": plan_component(networks.first_stage_network(node), "")})
    if name in networks.CLASSIFIER_CLASSES:
        return ConversionPlan(None, {"classifier": plan_component(networks.classifier_network(node), "")})
    if name not in DIFFUSION_CLASSES:
        alone = (*networks.KL_CLASSES, *networks.VQ_CLASSES, *networks.CLASSIFIER_CLASSES)
        known = (*DIFFUSION_CLASSES, *alone)
        raise ConfigError(f"the model has the class {name!r}; {nearest(name, known)}")
    fixed = {"given_betas": (None,)}
    given = take_params(params_of(node, "model"), "model", known=MODEL_KNOWN, fixed=fixed, ignored=MODEL_IGNORED)
    spec, network = cond_stage(given["cond_stage_config"])
    size = given["image_size"] if isinstance(given["image_size"], int) else None
    scale = given["scale_factor"]
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < 1e6:
        raise ConfigError(f"scale_factor is {scale!r}; it must be a number above 0")
    parts = {
        "vae": plan_component(
            networks.first_stage_network(given["first_stage_config"], float(scale)), FIRST_STAGE_PREFIX
        ),
        "unet": plan_component(networks.unet_network(given["unet_config"], size), UNET_PREFIX),
    }
    if spec.encoder is not None and network is not None:
        parts[spec.encoder] = plan_component(network(given["cond_stage_config"]), COND_STAGE_PREFIX)
    task = spec.name
    unet, vae = parts["unet"].network.config, parts["vae"].network.config
    if unet["cross_attention_dim"] is not None and task == "super-resolution":
        task = "retrieval-augmented"  # its conditioning stage is torch.nn.Identity, too, but passes on embeddings
    if task == "text-to-image" and unet["in_channels"] > vae["latent_channels"]:
        task = "inpaint"
    return ConversionPlan(
        task,
        parts,
        scheduler_arguments(given),
        scale_by_std=bool(given["scale_by_std"]),
        shared_first_stage=given["cond_stage_config"] == "__is_first_stage__",
    )


def plan_component(network: Network, prefix: str) -> ComponentPlan:
    """The plan of a component whose parameters are on the meta device; buffers are real, since no file holds them."""
    with init_empty_weights(include_buffers=False):
        model = network.component(**network.config).eval()
    return ComponentPlan(network, prefix, model, TensorMap(model, network.rules, prefix + network.prefix))


def scheduler_arguments(given: JSON) -> JSON:
    """The arguments of a `DDIMScheduler` that samples as the original's DDIM does.

    Raises:
        ConfigError: If a parameter of the noise schedule is not valid.
    """
    for name, known in (("beta_schedule", ORIGINAL_BETA_SCHEDULES), ("parameterization", ORIGINAL_PREDICTION_TYPES)):
        if given[name] not in known:
            raise ConfigError(f"unknown {name} {given[name]!r}; {nearest(given[name], known)}")
    for name, low in (("linear_start", 0), ("linear_end", 0), ("timesteps", 1)):
        if isinstance(given[name], bool) or not isinstance(given[name], (int, float)) or not low <= given[name] < 1e6:
            raise ConfigError(f"{name} is {given[name]!r}; it must be a number of at least {low}")
    return {
        "num_train_timesteps": int(given["timesteps"]),
        "beta_schedule": ORIGINAL_BETA_SCHEDULES[given["beta_schedule"]],
        "beta_start": float(given["linear_start"]),
        "beta_end": float(given["linear_end"]),
        "prediction_type": ORIGINAL_PREDICTION_TYPES[given["parameterization"]],
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
