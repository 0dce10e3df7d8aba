"""Classes as a conditioning: what the pipelines with a class embedder share."""

from __future__ import annotations

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.common import check_interval, check_rescale, finite_number
from latentdiff.labels import class_number
from latentdiff.models.class_embedder import ClassEmbedder
from latentdiff.tasks import CLASS_GUIDANCE_SCALE
from latentdiff.types import DenoisingNetwork, Labels


class ClassConditioningMixin:
    """Mixin of pipelines with the components `class_embedder` and `unet`."""

    class_embedder: ClassEmbedder
    unet: DenoisingNetwork
    _execution_device: torch.device

    def encode_labels(self, class_labels: Labels, *, device: torch.device | None = None) -> torch.Tensor:
        """Compute the context (B, 1, d) of one class or a list of them.

        Args:
            class_labels: A class or a list of them, by number or by name.
            device: Where it is computed; the pipeline's device by default.

        Raises:
            InputError: If there is no such class.
        """
        given = list(class_labels) if isinstance(class_labels, (list, tuple, torch.Tensor)) else [class_labels]
        if not given:
            raise InputError("class_labels is an empty list; give at least one class")
        config = self.class_embedder.config
        numbers = [class_number(label, config.num_classes, config.class_names) for label in given]
        states: torch.Tensor = self.class_embedder(torch.tensor(numbers).to(device or self._execution_device))
        return states

    def _class_conditioning(
        self,
        class_labels: Labels,
        negative_class_labels: Labels | None = None,
        *,
        scale: float | None,
        interval: tuple[float, float],
        rescale: float,
        images: int = 1,
    ) -> tuple[Conditioning, list[ClassifierFreeGuidance]]:
        """The conditioning of `images` images of every class, and the guidance, none at scale 1."""
        interval, rescale = check_interval(interval), check_rescale(rescale)
        scale = None if scale is None else finite_number("guidance_scale", scale)
        device, null = self._execution_device, self.class_embedder.config.null_class
        negative = negative_class_labels if negative_class_labels is not None else null
        states = self.encode_labels(class_labels, device=device).to(self.unet.dtype)
        if scale is None:
            scale = 1.0 if negative is None else CLASS_GUIDANCE_SCALE
        conditioning = Conditioning(states).repeat(images)
        if scale == 1:
            if negative_class_labels is not None:
                raise InputError("negative_class_labels has no effect at guidance_scale 1; drop it or raise the scale")
            return conditioning, []
        if negative is None:
            raise InputError(
                f"guidance_scale is {scale}, but this model has no null class; use 1, give negative_class_labels, "
                "or use classifier guidance"
            )
        away = self.encode_labels(negative, device=device).to(states)
        if len(away) not in (1, len(states)):
            raise InputError(f"{len(away)} negative labels are given for {len(states)} labels; give one each, or one")
        unconditional = Conditioning(away.expand_as(states)).repeat(images)
        return conditioning, [ClassifierFreeGuidance(unconditional, scale, interval, rescale)]
