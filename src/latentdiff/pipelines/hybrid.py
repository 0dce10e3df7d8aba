"""Images of several conditions at once: class and layout, prompt and label map, or any others together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.errors import ConfigError, InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.common import finite_number
from latentdiff.guidance.several import GuidanceOfSeveral
from latentdiff.models.class_embedder import ClassEmbedder
from latentdiff.models.layout_tokenizer import LayoutTokenizer
from latentdiff.models.segmentation_encoder import SegmentationEncoder
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.hybrid_conditions import CONDITIONS, HybridCondition, Inputs, images_with_holes
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Composite, Padding
from latentdiff.pipelines.run_state import default_guidance_scale
from latentdiff.registry import PIPELINES, nearest
from latentdiff.sampling import Guidance
from latentdiff.types import (
    DenoisingNetwork,
    FirstStage,
    ImageInput,
    Labels,
    Layout,
    Scheduler,
    TextEncoder,
    Tokenizer,
)


class HybridPipeline(DiffusionPipeline):
    """Images of several conditions, as `conditioning: [...]` in a recipe trains them.

    Contexts are joined by their tokens and channels one after the other, each made by the pipeline of its own task. A
    condition that a call leaves out is its null condition: the empty prompt or layout, the null class, a map without
    classes, a grey small image, an image that is one hole.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` that takes the contexts and channels of all conditions.
        scheduler: A scheduler of this package or of diffusers.
        conditions: The names of the conditions' tasks, joined by commas, in the order in which their channels and
            tokens follow each other.
        text_encoder: That of prompts.
        tokenizer: The text encoder's tokenizer.
        class_embedder: `latentdiff.ClassEmbedder`.
        layout_encoder: `latentdiff.LDMTextEncoder` over the tokens of layouts.
        layout_tokenizer: `latentdiff.LayoutTokenizer`.
        segmentation_encoder: `latentdiff.SegmentationEncoder`.

    Raises:
        ConfigError: If the conditions are unknown, or the components of one are missing.
    """

    model_cpu_offload_seq = "text_encoder->class_embedder->layout_encoder->segmentation_encoder->unet->vae"
    _optional_components: ClassVar[list[str]] = [
        *("text_encoder", "tokenizer", "class_embedder"),
        *("layout_encoder", "layout_tokenizer", "segmentation_encoder"),
    ]

    def __init__(
        self,
        vae: FirstStage,
        unet: DenoisingNetwork,
        scheduler: Scheduler,
        conditions: str = "",
        text_encoder: TextEncoder | None = None,
        tokenizer: Tokenizer | None = None,
        class_embedder: ClassEmbedder | None = None,
        layout_encoder: TextEncoder | None = None,
        layout_tokenizer: LayoutTokenizer | None = None,
        segmentation_encoder: SegmentationEncoder | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            class_embedder=class_embedder,
            layout_encoder=layout_encoder,
            layout_tokenizer=layout_tokenizer,
            segmentation_encoder=segmentation_encoder,
        )
        self.register_to_config(conditions=conditions)
        for name in self.conditions:
            if name not in CONDITIONS:
                raise ConfigError(f"conditions has {name!r}; {nearest(name, CONDITIONS)}")
            lacking = [part for part in CONDITIONS[name].components.values() if self.components.get(part) is None]
            if lacking:
                raise ConfigError(f"conditions has {name}, which needs {' and '.join(lacking)}; give it")

    @property
    def conditions(self) -> tuple[str, ...]:
        """The names of the conditions' tasks."""
        return tuple(str(self.config.conditions).replace(" ", "").split(","))

    @property
    def _conditions(self) -> dict[str, HybridCondition]:
        return {name: CONDITIONS[name] for name in self.conditions}

    def part(self, task: str) -> DiffusionPipeline:
        """The pipeline of one condition's task, around the components of this one.

        It makes the condition; its own calls would give the network less than it takes.
        """
        shared = {name: self.components[own] for name, own in CONDITIONS[task].components.items()}
        made: DiffusionPipeline = PIPELINES.get(task)(vae=self.vae, unet=self.unet, scheduler=self.scheduler, **shared)
        return made

    def _network_channels(self) -> None:
        return None

    def _gives_context(self) -> bool:
        return any(condition.is_context for condition in self._conditions.values())

    @sampling_call
    def __call__(
        self,
        *,
        prompt: str | Sequence[str] | None = None,
        class_labels: Labels | None = None,
        layouts: Layout | Sequence[Layout] | None = None,
        label_map: ImageInput | None = None,
        image: ImageInput | None = None,
        mask_image: ImageInput | None = None,
        height: int | None = None,
        width: int | None = None,
        box_format: str = "xywh",
        image_size: tuple[int, int] | None = None,
        ignore_index: int | None = None,
        guidance_scale: float | Mapping[str, float] | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images. Of each condition there is one for all images, or one for each.

        Args:
            prompt: A prompt or a list; the empty one if it is left out.
            class_labels: A class or a list; the null class if it is left out.
            layouts: Objects `{"class": name or number, "box": ...}`, or a list of such lists; none if left out.
            label_map: One map or several of one size, sides being what the model takes.
            image: The small images that are to be enlarged, or the images with holes.
            mask_image: The masks of holes, white where an image is to be filled.
            height: Height in pixels; that of maps and images, or else the model's own by default.
            width: Width in pixels, likewise.
            box_format: "xywh" (left, top, width, height; COCO) or "xyxy" (left, top, right, bottom).
            image_size: Height and width of the image that boxes in pixels refer to; None for boxes in [0, 1].
            ignore_index: A number for pixels of the label map that are of no class, such as 255.
            guidance_scale: Strength of classifier-free guidance: one for prompt, class and layout together (for the
                channels of a model that has none of these), or a strength for each condition by the name of its task,
                such as {"class-to-image": 3, "layout-to-image": 1.5}, in the model's order; the others are kept
                throughout. 1 turns it off; by default as that of a model of prompts, classes or layouts alone.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        options = self._complete(keywords)
        inputs: Inputs = {
            "prompt": prompt,
            "class_labels": class_labels,
            "layouts": layouts,
            "label_map": label_map,
            "image": image,
            "mask_image": mask_image,
            "box_format": box_format,
            "image_size": image_size,
            "ignore_index": ignore_index,
        }
        given = self._given(inputs)
        parts = {name: self.part(name) for name in self.conditions}
        shown = {name: CONDITIONS[name].show(parts[name], inputs) for name in given}
        size = self._size_of(shown, height, width)
        self._check_size(*size, options.windows)
        away = self._guided(guidance_scale, given)
        nulls = {
            name: CONDITIONS[name].null(parts[name], size)
            for name in self.conditions
            if name in away or name not in given
        }
        rows = _rows(shown)

        def together(kept: Sequence[str]) -> Conditioning:
            """The conditioning that knows some of the conditions alone."""
            chosen = [shown[name] if name in kept else nulls[name] for name in self.conditions]
            joined = Conditioning.beside([part.map(lambda t: t.expand(rows, *t.shape[1:])) for part in chosen])
            return joined.repeat(options.num_images_per_prompt)

        always = [name for name in given if name not in away]
        guidance: list[Guidance] = []
        if isinstance(guidance_scale, Mapping) and away:
            known = [[*always, *list(away)[:count]] for count in range(len(away))]
            weaker, scales = [together(names) for names in known], list(away.values())
            guidance = [GuidanceOfSeveral(weaker, scales, guidance_interval, guidance_rescale)]
        elif away:
            scale = next(iter(away.values()))
            guidance = [ClassifierFreeGuidance(together(always), scale, guidance_interval, guidance_rescale)]
        finish: Callable[[torch.Tensor], torch.Tensor] = _unchanged
        if "inpaint" in given:
            images, holes = images_with_holes(self.vae, inputs)
            count = rows * options.num_images_per_prompt // len(images)
            finish = Composite(images, holes, Padding(*size, self._multiple), count)
        return self._generate(together(given), size, options, guidance=guidance, finish=finish)

    def _given(self, inputs: Inputs) -> list[str]:
        """The conditions that a call gives.

        Raises:
            InputError: If it gives a part of one, or what is no condition of this model.
        """
        known = {name for condition in self._conditions.values() for name in condition.inputs}
        every = {name for condition in CONDITIONS.values() for name in condition.inputs}
        for name in sorted(every - known):
            if inputs[name] is not None:
                raise InputError(f"{name} is given, but this model's conditions are {', '.join(self.conditions)}")
        given = []
        for task, condition in self._conditions.items():
            lacking = [name for name in condition.inputs if inputs[name] is None]
            if not lacking:
                given.append(task)
            elif len(lacking) < len(condition.inputs):
                raise InputError(f"{lacking[0]} is missing, which {task} needs beside {condition.inputs[0]}; give it")
        return given

    def _size_of(self, shown: Mapping[str, Conditioning], height: int | None, width: int | None) -> tuple[int, int]:
        """Height and width in pixels: those of maps and images, else those that are given, else the model's own.

        Raises:
            InputError: If they differ.
        """
        factor = self.vae_scale_factor
        sizes = {name: part.concat.shape[-2:] for name, part in shown.items() if part.concat is not None}
        found = {name: (factor * sides[0], factor * sides[1]) for name, sides in sizes.items()}
        if not found:
            return self._check_size(height, width, None)
        first = next(iter(found.values()))
        asked = (height or first[0], width or first[1])
        for name, size in found.items():
            if size != asked:
                raise InputError(
                    f"{name} is of images of {size[0]}x{size[1]} pixels (height x width), and {asked[0]}x{asked[1]} "
                    "are asked for; give all of one size"
                )
        return asked

    def _guided(self, scale: float | Mapping[str, float] | None, given: Sequence[str]) -> dict[str, float]:
        """The conditions that guidance leads away from, with its strength."""
        if isinstance(scale, Mapping):
            for name, value in scale.items():
                finite_number(f"guidance_scale of {name}", value)
                if name not in given:
                    which = ", ".join(given) or "none"
                    raise InputError(f"guidance_scale has {name!r}, which this call doesn't give; it gives {which}")
            return {name: float(scale[name]) for name in given if name in scale}
        if scale is None:
            scale = default_guidance_scale(self.components) or 1.0
            embedder = self.class_embedder
            if "class-to-image" in given and embedder.config.null_class is None:
                scale = 1.0
        if finite_number("guidance_scale", scale) == 1:
            return {}
        contexts = [name for name in given if CONDITIONS[name].is_context]
        return dict.fromkeys(contexts or given, float(scale))


def _unchanged(images: torch.Tensor) -> torch.Tensor:
    return images


def _rows(shown: Mapping[str, Conditioning]) -> int:
    """The number of images that conditions are of.

    Raises:
        InputError: If they are neither of as many as each other, nor one for all.
    """
    counts = {name: part.batch_size or 1 for name, part in shown.items()}
    most = max(counts.values(), default=1)
    for name, count in counts.items():
        if count not in (1, most):
            raise InputError(f"{name} is given {count} times, another condition {most} times; give as many, or one")
    return most
