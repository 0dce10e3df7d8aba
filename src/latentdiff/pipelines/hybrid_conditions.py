"""What a hybrid pipeline knows of each condition: its components, its inputs, and what stands for none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.io.inputs import read_images, read_masks
from latentdiff.io.label_maps import read_label_maps
from latentdiff.pipelines.class_to_image import ClassToImagePipeline
from latentdiff.pipelines.inpaint import InpaintPipeline
from latentdiff.pipelines.layout_to_image import LayoutToImagePipeline
from latentdiff.pipelines.semantic_to_image import SemanticToImagePipeline
from latentdiff.pipelines.super_resolution import SuperResolutionPipeline
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.types import FirstStage

NO_CLASS = 255  # the number of a pixel without a class, as in training

Inputs = Mapping[str, Any]
"""Arguments of a hybrid pipeline's call, by their names."""


@dataclass(frozen=True)
class HybridCondition:
    """One condition of a hybrid model, made by the pipeline of its own task.

    Attributes:
        show: Makes the condition's rows of that pipeline and the inputs.
        null: Makes the row that stands for no such condition, for images of a height and width in pixels.
        inputs: The call's arguments that it needs.
        components: The pipeline's components beside first stage, UNet and scheduler, and what the hybrid one calls
            them.
        is_context: Whether it comes by cross-attention rather than in channels.
    """

    show: Callable[[Any, Inputs], Conditioning]
    null: Callable[[Any, tuple[int, int]], Conditioning]
    inputs: tuple[str, ...]
    components: Mapping[str, str] = field(default_factory=dict)
    is_context: bool = True


def _prompts(pipe: TextToImagePipeline, inputs: Inputs) -> Conditioning:
    return Conditioning(pipe.encode_prompt(inputs["prompt"]).to(pipe.unet.dtype))


def _empty_prompt(pipe: TextToImagePipeline, size: tuple[int, int]) -> Conditioning:
    return Conditioning(pipe.encode_prompt("", may_be_empty=True).to(pipe.unet.dtype))


def _classes(pipe: ClassToImagePipeline, inputs: Inputs) -> Conditioning:
    return Conditioning(pipe.encode_labels(inputs["class_labels"]).to(pipe.unet.dtype))


def _null_class(pipe: ClassToImagePipeline, size: tuple[int, int]) -> Conditioning:
    null = pipe.class_embedder.config.null_class
    if null is None:
        raise InputError("this model has no null class; give class_labels, and no guidance_scale for class-to-image")
    return Conditioning(pipe.encode_labels(null).to(pipe.unet.dtype))


def _layouts(pipe: LayoutToImagePipeline, inputs: Inputs) -> Conditioning:
    how = {name: inputs[name] for name in ("box_format", "image_size")}
    return Conditioning(pipe.encode_layouts(pipe.tokenizer(inputs["layouts"], **how)))


def _empty_layout(pipe: LayoutToImagePipeline, size: tuple[int, int]) -> Conditioning:
    return Conditioning(pipe.encode_layouts(pipe.tokenizer([[]])))


def _maps(pipe: SemanticToImagePipeline, inputs: Inputs) -> Conditioning:
    config, ignored = pipe.segmentation_encoder.config, inputs["ignore_index"]
    maps = read_label_maps(
        inputs["label_map"],
        config.in_channels,
        palette=config.palette,
        class_names=config.class_names,
        ignore_index=ignored,
    )
    pipe._check_size(maps.shape[-2], maps.shape[-1], None)
    return Conditioning(concat=pipe.encode_maps(maps.to(pipe._execution_device), ignored))


def _empty_map(pipe: SemanticToImagePipeline, size: tuple[int, int]) -> Conditioning:
    maps = torch.full((1, *size), NO_CLASS, device=pipe._execution_device)
    return Conditioning(concat=pipe.encode_maps(maps, NO_CLASS))


def _small_images(pipe: SuperResolutionPipeline, inputs: Inputs) -> Conditioning:
    return Conditioning(concat=read_images(inputs["image"]).to(pipe._execution_device, pipe.unet.dtype))


def _grey(pipe: SuperResolutionPipeline, size: tuple[int, int]) -> Conditioning:
    small = torch.zeros(1, 3, *(side // pipe.upscale_factor for side in size))
    return Conditioning(concat=small.to(pipe._execution_device, pipe.unet.dtype))


def _masked_images(pipe: InpaintPipeline, inputs: Inputs) -> Conditioning:
    images, holes = images_with_holes(pipe.vae, inputs)
    pipe._check_size(images.shape[2], images.shape[3], None)
    return Conditioning(concat=pipe.encode_masked(images, holes).to(pipe._execution_device, pipe.unet.dtype))


def images_with_holes(vae: FirstStage, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, C, H, W) in [-1, 1] and their masks, bool (B, 1, H, W), of a call's inputs.

    Raises:
        InputError: If there are neither as many masks as images, nor one, or a mask has no hole.
    """
    images = read_images(inputs["image"], channels=vae.config.in_channels)
    holes = read_masks(inputs["mask_image"], size=(images.shape[2], images.shape[3]))
    if len(holes) not in (1, len(images)):
        raise InputError(f"{len(holes)} masks are given for {len(images)} images; give one each, or one for all")
    if not holes.flatten(1).any(1).all():
        raise InputError("a mask is black everywhere, so nothing is to be filled; paint the holes white")
    return images, holes.expand(len(images), -1, -1, -1)


def _all_a_hole(pipe: InpaintPipeline, size: tuple[int, int]) -> Conditioning:
    images = torch.zeros(1, pipe.vae.config.in_channels, *size)
    concat = pipe.encode_masked(images, torch.ones(1, 1, *size))
    return Conditioning(concat=concat.to(pipe._execution_device, pipe.unet.dtype))


CONDITIONS: dict[str, HybridCondition] = {
    "text-to-image": HybridCondition(
        _prompts, _empty_prompt, ("prompt",), {"text_encoder": "text_encoder", "tokenizer": "tokenizer"}
    ),
    "class-to-image": HybridCondition(_classes, _null_class, ("class_labels",), {"class_embedder": "class_embedder"}),
    "layout-to-image": HybridCondition(
        _layouts, _empty_layout, ("layouts",), {"layout_encoder": "layout_encoder", "tokenizer": "layout_tokenizer"}
    ),
    "semantic-to-image": HybridCondition(
        _maps, _empty_map, ("label_map",), {"segmentation_encoder": "segmentation_encoder"}, is_context=False
    ),
    "super-resolution": HybridCondition(_small_images, _grey, ("image",), is_context=False),
    "inpaint": HybridCondition(_masked_images, _all_a_hole, ("image", "mask_image"), is_context=False),
}
"""The conditions that a hybrid model may have, by the names of their tasks."""
