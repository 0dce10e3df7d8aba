"""Prompts as a conditioning: what the pipelines with a text encoder share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.errors import ConfigError, InputError, LatentDiffError, one_line
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.common import check_interval, check_rescale, finite_number
from latentdiff.pipelines.lora import scaled_adapters
from latentdiff.pipelines.options import check_count
from latentdiff.pipelines.prompts import as_list, check_ids, check_prompt, tokenize
from latentdiff.tasks import TEXT_GUIDANCE_SCALE
from latentdiff.types import DenoisingNetwork, TextEncoder, Tokenizer


@dataclass(frozen=True)
class PromptOptions:
    """How prompts are encoded.

    Attributes:
        truncate_prompt: Whether to leave out what is too long of a prompt, and warn of it, rather than to raise.
        clip_skip: How many of the last layers of a CLIP text encoder to leave out; None for none.
    """

    truncate_prompt: bool = False
    clip_skip: int | None = None


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

    @overload
    def encode_prompt(
        self,
        prompt: str | Sequence[str],
        device: torch.device | str | None = ...,
        num_images_per_prompt: int = ...,
        do_classifier_free_guidance: None = ...,
        *,
        lora_scale: float | None = ...,
        clip_skip: int | None = ...,
        may_be_empty: bool = ...,
        truncate_prompt: bool = ...,
    ) -> torch.Tensor: ...
    @overload
    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        device: torch.device | str | None,
        num_images_per_prompt: int,
        do_classifier_free_guidance: bool,
        negative_prompt: str | Sequence[str] | None = ...,
        prompt_embeds: torch.Tensor | None = ...,
        negative_prompt_embeds: torch.Tensor | None = ...,
        lora_scale: float | None = ...,
        clip_skip: int | None = ...,
        *,
        may_be_empty: bool = ...,
        truncate_prompt: bool = ...,
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...
    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None,
        device: torch.device | str | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
        *,
        may_be_empty: bool = False,
        truncate_prompt: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the text encoder's states (B, L, d) of one prompt or a list.

        With `do_classifier_free_guidance` the call and its result are those of diffusers' Stable Diffusion, and serve
        as `prompt_embeds` and `negative_prompt_embeds` of a pipeline's call.

        Args:
            prompt: One prompt or a list. The empty prompt stands for no condition.
            device: Where it is computed; the pipeline's device by default.
            num_images_per_prompt: How many rows each prompt gets, next to each other.
            do_classifier_free_guidance: Whether to return the states of the negative prompts beside those of the
                prompts; by default the latter are returned alone, and not as a pair.
            negative_prompt: What guidance leads away from; the empty prompt by default.
            prompt_embeds: States (B, L, d) in place of `prompt`.
            negative_prompt_embeds: States (B, L, d) in place of `negative_prompt`.
            lora_scale: Factor on the strength of the text encoder's adapters.
            clip_skip: How many of the last layers of a CLIP text encoder to leave out.
            may_be_empty: Whether prompts of blanks alone are allowed, too.
            truncate_prompt: Whether to leave out what is too long of a prompt, and warn of it, rather than to raise.

        Returns:
            The states, or the pair of those of the prompts and of the negative prompts, the latter None without
            guidance.

        Raises:
            InputError: If a prompt is no string, blank, overlong, or holds characters that are no text, or an option
                has no place in this model.
        """
        check_count("num_images_per_prompt", num_images_per_prompt)
        if do_classifier_free_guidance is None and (negative_prompt is not None or negative_prompt_embeds is not None):
            raise InputError("negative prompts are encoded where do_classifier_free_guidance is True; pass it")
        device = torch.device(device) if device is not None else self._execution_device
        options = PromptOptions(truncate_prompt, clip_skip)
        with scaled_adapters([self.text_encoder], lora_scale):
            states = self._states(prompt, prompt_embeds, device, options, may_be_empty=may_be_empty)
            negative = None
            if do_classifier_free_guidance:
                negative = self._negative_states(negative_prompt, negative_prompt_embeds, len(states), device, options)
        states = states.repeat_interleave(num_images_per_prompt, 0) if num_images_per_prompt > 1 else states
        if do_classifier_free_guidance is None:
            return states
        return states, None if negative is None else negative.repeat_interleave(num_images_per_prompt, 0)

    def _states(
        self,
        prompt: str | Sequence[str] | None,
        embeds: torch.Tensor | None,
        device: torch.device,
        options: PromptOptions,
        *,
        may_be_empty: bool = False,
    ) -> torch.Tensor:
        """The states (B, L, d) of prompts, or those that are given in their place."""
        if embeds is not None and prompt is None:
            return _check_embeds("prompt_embeds", embeds)
        if prompt is None or embeds is not None:
            raise InputError("give either prompt or prompt_embeds, one of the two")
        prompts = as_list(prompt, may_be_empty=True)
        for text in prompts:
            if text:  # the empty caption is what guidance leads away from, so every model of text knows it
                check_prompt(text, may_be_empty=may_be_empty)
        # Equal prompts are encoded once: guidance needs the same empty prompt for every image.
        distinct = list(dict.fromkeys(prompts))
        ids = tokenize(self.tokenizer, distinct, self.max_length, truncate=options.truncate_prompt)
        ids = check_ids(ids, self.text_encoder).to(device)
        try:
            if options.clip_skip is None:
                states = self.text_encoder(ids).last_hidden_state
            else:
                states = skipped_states(self.text_encoder, ids, options.clip_skip)
        except (AttributeError, IndexError, TypeError, ValueError) as error:  # of entries that are read in its passes
            if isinstance(error, LatentDiffError):
                raise
            kind = type(self.text_encoder).__name__
            raise ConfigError(
                f"the text encoder, a {kind}, cannot encode a prompt ({one_line(error)}); check its configuration"
            ) from error
        return states if distinct == prompts else states[[distinct.index(p) for p in prompts]]

    def _negative_states(
        self,
        prompt: str | Sequence[str] | None,
        embeds: torch.Tensor | None,
        count: int,
        device: torch.device,
        options: PromptOptions,
    ) -> torch.Tensor:
        """The states (count, L, d) that guidance leads away from, those of the empty prompt by default."""
        if embeds is not None:
            negative = _check_embeds("negative_prompt_embeds", embeds)
        else:
            negative = self._states(prompt or "", None, device, options, may_be_empty=True)
        if len(negative) not in (1, count):
            raise InputError(f"{len(negative)} negative prompts are given for {count} prompts; give one each, or one")
        return negative.expand(count, -1, -1)

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
        options: PromptOptions,
    ) -> tuple[Conditioning, list[ClassifierFreeGuidance]]:
        """The conditioning of `images` images of every prompt, and the guidance, none at scale 1."""
        scale, interval, rescale = (
            finite_number("guidance_scale", scale),
            check_interval(interval),
            check_rescale(rescale),
        )
        device = self._execution_device  # a walk over all modules, so it is done once
        states = self._states(prompt, prompt_embeds, device, options)
        conditioning = Conditioning(states.to(device, self.unet.dtype)).repeat(images)
        if scale == 1:
            if negative_prompt is not None or negative_prompt_embeds is not None:
                raise InputError("negative_prompt has no effect at guidance_scale 1; drop it or raise the scale")
            return conditioning, []
        negative = self._negative_states(negative_prompt, negative_prompt_embeds, len(states), device, options)
        negative = negative.to(device, self.unet.dtype)
        guidance = ClassifierFreeGuidance(Conditioning(negative).repeat(images), scale, interval, rescale)
        return conditioning, [guidance]


class OptionalTextMixin(TextConditioningMixin):
    """Mixin of pipelines whose models see channels beside the latents, and a prompt too if they have a text encoder."""

    # The other mixin's methods need theirs; `_optional_text` calls them only where it is there.
    text_encoder: TextEncoder | None  # type: ignore[assignment]
    tokenizer: Tokenizer | None  # type: ignore[assignment]

    def _gives_context(self) -> bool:
        return self.text_encoder is not None

    def _optional_text(
        self,
        prompt: str | Sequence[str] | None,
        negative_prompt: str | Sequence[str] | None,
        *,
        scale: float | None,
        interval: tuple[float, float],
        rescale: float,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
        options: PromptOptions,
    ) -> tuple[Conditioning, list[ClassifierFreeGuidance]]:
        """The conditioning of prompts and the guidance; both are empty for a model without a text encoder.

        Raises:
            InputError: If a prompt is missing, or given to a model without a text encoder.
        """
        if self.text_encoder is not None:
            if prompt_embeds is None and self.tokenizer is None:
                raise InputError("this model has a text encoder, but no tokenizer; load it with tokenizer=...")
            if prompt is None and prompt_embeds is None:
                raise InputError('prompt is missing, which this model takes; say what to show, or give ""')
            return self._text_conditioning(
                prompt,
                negative_prompt,
                scale=TEXT_GUIDANCE_SCALE if scale is None else scale,
                interval=interval,
                rescale=rescale,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                options=options,
            )
        check_interval(interval), check_rescale(rescale)
        for name, given in {
            "prompt": prompt is not None,
            "prompt_embeds": prompt_embeds is not None,
            "negative_prompt": negative_prompt is not None,
            "negative_prompt_embeds": negative_prompt_embeds is not None,
            "guidance_scale": scale is not None and finite_number("guidance_scale", scale) != 1,
            "truncate_prompt": options.truncate_prompt,
            "clip_skip": options.clip_skip is not None,
        }.items():
            if given:
                raise InputError(f"{name} is given, but this model has no text encoder; leave it out")
        return Conditioning(), []

    def _beside_text(
        self, concat: torch.Tensor, text: Conditioning, guidance: Sequence[ClassifierFreeGuidance], images: int
    ) -> tuple[Conditioning, list[ClassifierFreeGuidance]]:
        """The conditioning of both contexts at once, `images` times each row, and the guidance that goes with it.

        Args:
            concat: The channels (B, c, h, w) beside the latents.
            text: The conditioning of B prompts, or of one for all, or of several for one row of channels; or empty.
            guidance: The guidance of the prompts.
            images: How many images are made of each row.

        Raises:
            InputError: If there are neither as many prompts as rows, nor one of either.
        """
        prompts = text.batch_size or 1
        if prompts != len(concat) and 1 not in (prompts, len(concat)):
            raise InputError(f"{prompts} prompts are given for {len(concat)} images; give one each, or one for all")
        rows = max(prompts, len(concat))
        shown = concat.expand(rows, -1, -1, -1).repeat_interleave(images, 0)  # the same for both halves of guidance

        def both(words: Conditioning) -> Conditioning:
            context = words.map(lambda states: states.expand(rows, -1, -1)).repeat(images).context
            return Conditioning(context, shown)

        return both(text), [replace(guide, unconditional=both(guide.unconditional)) for guide in guidance]


def skipped_states(encoder: TextEncoder, ids: torch.Tensor, skip: int) -> torch.Tensor:
    """The states (B, L, d) of ids (B, L) before the last `skip` layers of a CLIP text encoder, after its final norm.

    Raises:
        InputError: If the encoder is of another kind, or has not as many layers.
    """
    inner: Any = getattr(encoder, "text_model", encoder)  # where transformers 4 keeps the layers
    layers = getattr(encoder.config, "num_hidden_layers", 0)
    if not hasattr(inner, "final_layer_norm"):
        raise InputError(
            f"clip_skip is for CLIP text encoders, this model has a {type(encoder).__name__}; leave it out"
        )
    if isinstance(skip, bool) or not isinstance(skip, int) or not 0 <= skip < layers:
        raise InputError(f"clip_skip is {skip!r}; this text encoder has {layers} layers, choose 0 to {layers - 1}")
    states: torch.Tensor = inner.final_layer_norm(inner(ids, output_hidden_states=True).hidden_states[-(skip + 1)])
    return states


def _check_embeds(name: str, value: object) -> torch.Tensor:
    """Return `value`; InputError unless it is a tensor (B, L, d)."""
    if isinstance(value, tuple) and len(value) == 2:
        raise InputError(f"{name} is a pair; give its first as prompt_embeds, its second as negative_prompt_embeds")
    if not isinstance(value, torch.Tensor) or value.ndim != 3:
        shape = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise InputError(f"{name} is {shape}; give a tensor (B, L, d), such as encode_prompt returns")
    return value
