"""Text to image (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from typing_extensions import Unpack

from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingOptions, sampling_call
from latentdiff.pipelines.text_conditioning import TextConditioningMixin
from latentdiff.tasks import TEXT_GUIDANCE_SCALE


class TextToImagePipeline(TextConditioningMixin, DiffusionPipeline):
    """Images for prompts, by cross-attention to a text encoder's states.

    Args:
        vae: First stage, KL or VQ.
        text_encoder: `latentdiff.LDMTextEncoder` or a CLIP text model: token ids to `last_hidden_state` (B, L, d).
        tokenizer: Of the text encoder.
        unet: `latentdiff.UNet2DConditionModel` or a stock one with cross-attention.
        scheduler: Any own or diffusers scheduler.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)

    @sampling_call
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        *,
        guidance_scale: float = TEXT_GUIDANCE_SCALE,
        negative_prompt: str | Sequence[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        **options: Unpack[SamplingOptions],
    ) -> Any:
        """Make images.

        Args:
            prompt: One prompt or a list.
            height: In pixels; the model's own size by default.
            width: In pixels.
            guidance_scale: Strength of classifier-free guidance; 1 turns it off.
            negative_prompt: What guidance leads away from; the empty prompt by default.
            prompt_embeds: Text states (B, L, d) in place of `prompt`.
            negative_prompt_embeds: Text states (B, L, d) in place of `negative_prompt`.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].
            **options: See `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        size = self._check_size(height, width, self._windows(options.get("windows")))
        conditioning, guidance = self._text_conditioning(
            prompt,
            negative_prompt,
            scale=guidance_scale,
            interval=guidance_interval,
            rescale=guidance_rescale,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            images=options.get("num_images_per_prompt", 1),
        )
        return self._generate(conditioning, size, options, guidance=guidance)
