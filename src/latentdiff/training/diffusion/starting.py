"""Training that starts from another model: its weights in a network for another condition, or for other latents."""

from __future__ import annotations

import warnings

import torch

from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.errors import ConfigError, LatentDiffWarning
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.codec import factor
from latentdiff.pipelines.hybrid import HybridPipeline
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.registry import CONDITIONERS
from latentdiff.training.diffusion.conditioners.beside_text import BesideTextConditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.types import FirstStage

ENDS = ("conv_in.weight", "conv_out.weight", "conv_out.bias")  # whose channels are those of latents and condition


def started_from(
    pipeline: DiffusionPipeline,
    kind: type[DiffusionPipeline],
    recipe: DiffusionRecipe,
    options: ConditionOptions,
    images: Images,
    vae: FirstStage,
) -> DiffusionPipeline:
    """A pipeline around the networks of another: with the condition of the recipe, in the latents of a first stage.

    A condition of channels is seen by further channels of the first convolution, with weights of 0; so are latents of
    more channels, which the last convolution makes, likewise. What a condition of context needs in the UNet is new
    where the other has nothing of its shape, and a line says how much that is. A text model keeps its text encoder
    where the condition goes along with captions.

    Args:
        pipeline: The other.
        kind: The class of the new one.
        recipe: Says what is trained, and how.
        options: Those of the condition.
        images: What it is trained on.
        vae: The first stage, which may be the other's own.

    Raises:
        ConfigError: If only an adapter is to be trained, or the UNet is of a stock class.
        InputError: If the images lack what the condition is made of.
    """
    task, conditioner, unet = options.type, CONDITIONERS.get(options.type), pipeline.unet
    before, latents = pipeline.vae.config.latent_channels, vae.config.latent_channels
    same_task = type(pipeline) is kind
    what = "vae" if same_task else f"conditioning {task!r}"
    check(recipe.lora is None, f"lora trains no new channels, which {what} needs here; leave lora out")
    if not isinstance(unet, UNet2DConditionModel):
        raise ConfigError(
            f"{what} needs another UNet than that of the pretrained pipeline, a {type(unet).__name__}, which can't be "
            "changed; start from a model of this package"
        )
    check(
        not same_task or task != "semantic-to-image" or factor(vae) == factor(pipeline.vae),
        f"vae makes latents of 1/{factor(vae)} of the images' size, and the encoder of maps is made for "
        f"1/{factor(pipeline.vae)}; give one such",
    )
    parts: dict[str, object] = dict(pipeline.components)
    if isinstance(pipeline, HybridPipeline):
        parts["conditions"] = pipeline.config.conditions
    context = unet.config.cross_attention_dim
    further = _further_channels(options, latents)
    if same_task:
        further += unet.config.in_channels - before - _further_channels(options, before)
    elif not (type(pipeline) is TextToImagePipeline and issubclass(conditioner, BesideTextConditioner)):
        captions = options.captions
        check(
            captions is None or captions.train_text_encoder is not False,
            "conditioning.train_text_encoder is false, but the text encoder would be a new one; leave it out",
        )
        context = conditioner.unet_options(options, latents).get("cross_attention_dim")
        parts = {"scheduler": pipeline.scheduler, **conditioner.components(options, recipe.data, images, vae)}
    config = {"in_channels": latents + further, "out_channels": latents, "cross_attention_dim": context}
    new = with_weights_of(unet, config, before, latents, same_task)
    return kind(**{**parts, "vae": vae, "unet": new})


def _further_channels(options: ConditionOptions, latents: int) -> int:
    """The channels that a condition has in the UNet's input beside so many of latents."""
    channels: int = CONDITIONERS.get(options.type).unet_options(options, latents).get("in_channels", latents)
    return channels - latents


def with_weights_of(
    unet: UNet2DConditionModel, config: dict[str, int | None], before: int, latents: int, same_condition: bool
) -> UNet2DConditionModel:
    """A network with the weights of another as far as they fit.

    Args:
        unet: The other, which is left as it is.
        config: What differs in the configuration.
        before: The channels of the other's latents, the first of its input.
        latents: The channels of the new one's.
        same_condition: Whether the further channels of both inputs mean the same.
    """
    made: UNet2DConditionModel = type(unet).from_config({**unet.config, **config})
    old: dict[str, torch.Tensor] = unet.state_dict()
    weights: dict[str, torch.Tensor] = made.state_dict()
    fresh = [name for name, own in weights.items() if name not in ENDS and _shape(old, name) != own.shape]
    for name in weights.keys() - set(fresh) - set(ENDS):
        weights[name] = old[name]
    first = "conv_in.weight"
    weights[first] = _moved(weights[first], old[first], before, latents, same_condition)
    both = min(before, latents)
    for name in ENDS[1:]:
        weights[name] = torch.zeros_like(weights[name])
        weights[name][:both] = old[name][:both]
    made.load_state_dict(weights)
    if fresh:
        line = f"{len(fresh)} of the UNet's {len(weights)} weights are new, such as {fresh[0]}; the others go on"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)
    return made


def _moved(new: torch.Tensor, old: torch.Tensor, before: int, latents: int, same_condition: bool) -> torch.Tensor:
    """The first convolution's weights: those of the latents, and of the same condition, at their places, the rest 0."""
    moved, both = torch.zeros_like(new), min(before, latents)
    moved[:, :both] = old[:, :both]
    if same_condition:
        further = min(old.shape[1] - before, new.shape[1] - latents)
        moved[:, latents : latents + further] = old[:, before : before + further]
    return moved


def _shape(weights: dict[str, torch.Tensor], name: str) -> torch.Size | None:
    return weights[name].shape if name in weights else None
