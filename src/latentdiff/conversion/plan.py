"""The plan of a conversion: the components that a configuration describes, and the places of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from accelerate import init_empty_weights
from torch import nn

from latentdiff.conversion import networks
from latentdiff.conversion.foreign import refuse_foreign_channels, refuse_foreign_class
from latentdiff.conversion.networks import Network
from latentdiff.conversion.nodes import REQUIRED, class_of, params_of, take_params
from latentdiff.conversion.tensor_map import TensorMap
from latentdiff.errors import ConfigError, LatentDiffError, one_line
from latentdiff.registry import nearest
from latentdiff.tasks import TASKS, TaskSpec, task_of_hybrid, task_of_original_encoder
from latentdiff.types import JSON

UNET_PREFIX, FIRST_STAGE_PREFIX, COND_STAGE_PREFIX = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."

DIFFUSION_CLASSES = (
    "LatentDiffusion",
    *(spec.original_hybrid for spec in TASKS.values() if spec.original_hybrid is not None),
)
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
    "concat_keys": None,
}
MODEL_IGNORED = (
    "ckpt_path", "ignore_keys", "load_only_unet", "monitor", "first_stage_key", "channels", "log_every_t",
    "clip_denoised", "loss_type", "cosine_s", "original_elbo_weight", "v_posterior", "l_simple_weight",
    "use_positional_encodings", "learn_logvar", "logvar_init", "num_timesteps_cond", "cond_stage_trainable",
    "cond_stage_forward", "scheduler_config", "finetune_keys", "masked_image_key", "base_learning_rate",
    "split_input_params", "ucg_training", "reset_ema", "reset_num_ema_updates", "make_it_fit", "text_embedding_key",
    "keep_finetune_dims", "c_concat_log_start", "c_concat_log_end",
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
        refuse_foreign_class(name)
        alone = (*networks.KL_CLASSES, *networks.VQ_CLASSES, *networks.CLASSIFIER_CLASSES)
        known = (*DIFFUSION_CLASSES, *alone)
        raise ConfigError(f"the model has the class {name!r}; {nearest(name, known)}")
    fixed = dict.fromkeys(("given_betas", "low_scale_config", "low_scale_key", "reshuffle_patch_size"), (None,))
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
    return ConversionPlan(
        _task(name, spec, given, parts["unet"].network.config, parts["vae"].network.config),
        parts,
        scheduler_arguments(given),
        scale_by_std=bool(given["scale_by_std"]),
        shared_first_stage=given["cond_stage_config"] == "__is_first_stage__",
    )


def _task(class_name: str, spec: TaskSpec, given: JSON, unet: JSON, vae: JSON) -> str:
    """The task of a diffusion model.

    Args:
        class_name: The class of the model.
        spec: The task that its conditioning stage is for.
        given: The parameters of the model.
        unet: The configuration of the UNet.
        vae: The configuration of the first stage.

    Raises:
        ConfigError: If the class or the channels are those of no model that this package has.
    """
    if unet["cross_attention_dim"] is not None and spec.name == "super-resolution":
        return "retrieval-augmented"  # its conditioning stage is torch.nn.Identity, too, but passes on embeddings
    hybrid = task_of_hybrid(class_name)
    if spec.name != "text-to-image":
        if hybrid is not None or given["conditioning_key"] == "hybrid":
            raise ConfigError(f"{class_name} with both contexts at once needs a text encoder, not that of {spec.name}")
        return spec.name
    extra = unet["in_channels"] - vae["latent_channels"]
    if extra == 0 and hybrid is None and given["conditioning_key"] != "hybrid":
        return spec.name
    channels = {"inpaint": vae["latent_channels"] + 1, "super-resolution": vae["in_channels"]}
    task = hybrid or next((TASKS[name] for name, number in channels.items() if number == extra), None)
    if task is None or channels[task.name] != extra:
        refuse_foreign_channels(extra)
        fits = ", ".join(f"{number} for {name}" for name, number in channels.items())
        raise ConfigError(f"the UNet of {class_name} takes {extra} channels beside latents and text; known: {fits}")
    if given["conditioning_key"] != "hybrid":
        key = given["conditioning_key"]
        raise ConfigError(f"conditioning_key is {key!r}, but the UNet takes text and {extra} channels; give 'hybrid'")
    keys = given["concat_keys"]
    if keys is not None and keys not in (list(task.concat_keys), task.concat_keys):
        raise ConfigError(f"concat_keys is {keys!r}; only {list(task.concat_keys)} can be converted, in this order")
    return task.name


def plan_component(network: Network, prefix: str) -> ComponentPlan:
    """The plan of a component whose parameters are on the meta device; buffers are real, since no file holds them."""
    try:
        with init_empty_weights(include_buffers=False):
            model = network.component(**network.config).eval()
    except LatentDiffError:
        raise
    except (TypeError, ValueError, ArithmeticError, RuntimeError, LookupError, AttributeError) as error:
        raise ConfigError(f"a network of the config can't be made ({one_line(error)}); check its numbers") from None
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
            raise ConfigError(f"{name} is {given[name]!r}; it must be a number from {low} to a million")
    return {
        "num_train_timesteps": int(given["timesteps"]),
        "beta_schedule": ORIGINAL_BETA_SCHEDULES[given["beta_schedule"]],
        "beta_start": float(given["linear_start"]),
        "beta_end": float(given["linear_end"]),
        "prediction_type": ORIGINAL_PREDICTION_TYPES[given["parameterization"]],
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
