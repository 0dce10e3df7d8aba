"""Prompts as a conditioning: what the pipelines with a text encoder share."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.common import check_interval, check_rescale, finite_number
from latentdiff.pipelines.prompts import as_list, tokenize
from latentdiff.types import DenoisingNetwork, TextEncoder, Tokenizer


class TextConditioningMixin:
    """Mixin of pipelines with the components `text_encoder`, `tokenizer` and `unet`."""

    text_encoder: TextEncoder
    tokenizer: Tokenizer
    unet: DenoisingNetwork
    _execution_device: torch.device

    @property
    def max_length(self) -> int:
        """How many tokens the text encoder takes, start and end included."""
        return int(self.text_encoder.config.max_position_embeddings)

    def encode_prompt(
        self, prompt: str | Sequence[str], *, may_be_empty: bool = False, device: torch.device | None = None
    ) -> torch.Tensor:
        """Compute the text encoder's states (B, L, d) of one prompt or a list.

        Args:
            prompt: One prompt or a list.
            may_be_empty: Whether the empty prompt is allowed, which stands for no condition.
            device: Where it is computed; the pipeline's device by default.

        Raises:
            InputError: If a prompt is no string, empty, overlong, or holds characters that are no text.
        """
        prompts = as_list(prompt, may_be_empty=may_be_empty)
        # Equal prompts are encoded once: guidance needs the same empty prompt for every image.
        distinct = list(dict.fromkeys(prompts))
        ids = tokenize(self.tokenizer, distinct, self.max_length).to(device or self._execution_device)
        states = self.text_encoder(ids).last_hidden_state
        return states if distinct == prompts else states[[distinct.index(p) for p in prompts]]

    def _text_conditioning(
        self,
        prompt: str | Sequence[str] | None,
        negative_prompt: str | Sequence[str] | None,
        *,
        scale: float,
        interval: tuple[float, float],
        rescale: float,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        images: int = 1,
    ) -> tuple[Conditioning, list[ClassifierFreeGuidance]]:
        """The conditioning of `images` images of every prompt, and the guidance, none at scale 1."""
        scale, interval, rescale = (
            finite_number("guidance_scale", scale),
            check_interval(interval),
            check_rescale(rescale),
        )
        device = self._execution_device  # a walk over all modules, so it is done once
        if prompt is not None and prompt_embeds is None:
            states = self.encode_prompt(prompt, device=device)
        elif prompt_embeds is not None and prompt is None:
            states = prompt_embeds
        else:
            raise InputError("give either prompt or prompt_embeds, one of the two")
        conditioning = Conditioning(states.to(device, self.unet.dtype)).repeat(images)
        if scale == 1:
            if negative_prompt is not None or negative_prompt_embeds is not None:
                raise InputError("negative_prompt has no effect at guidance_scale 1; drop it or raise the scale")
            return conditioning, []
        negative = negative_prompt_embeds
        if negative is None:
            negative = self.encode_prompt(negative_prompt or "", may_be_empty=True, device=device)
        if len(negative) not in (1, len(states)):
            raise InputError(
                f"{len(negative)} negative prompts are given for {len(states)} prompts; give one each, or one"
            )
        negative = negative.to(device, self.unet.dtype).expand(len(states), -1, -1)
        guidance = ClassifierFreeGuidance(Conditioning(negative).repeat(images), scale, interval, rescale)
        return conditioning, [guidance]
