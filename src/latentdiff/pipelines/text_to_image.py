"""Text to image (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from typing_extensions import Unpack

from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.text_conditioning import PromptOptions, TextConditioningMixin
from latentdiff.tasks import TEXT_GUIDANCE_SCALE
from latentdiff.types import DenoisingNetwork, FirstStage, Scheduler, TextEncoder, Tokenizer


class TextToImagePipeline(TextConditioningMixin, DiffusionPipeline):
    """Images for prompts, by cross-attention to a text encoder's states.

    Args:
        vae: First stage, KL or VQ.
        text_encoder: `latentdiff.LDMTextEncoder` or a CLIP text model: token ids to `last_hidden_state` (B, L, d).
        tokenizer: The text encoder's tokenizer.
        unet: `latentdiff.UNet2DConditionModel` or a stock one with cross-attention.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"

    def __init__(
        self,
        vae: FirstStage,
        text_encoder: TextEncoder,
        tokenizer: Tokenizer,
        unet: DenoisingNetwork,
        scheduler: Scheduler,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)

    def _gives_context(self) -> bool:
        return True

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
        truncate_prompt: bool = False,
        clip_skip: int | None = None,
        cross_attention_kwargs: Mapping[str, float] | None = None,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images.

        Args:
            prompt: One prompt or a list.
            height: Height in pixels; the model's own by default.
            width: Width in pixels; the model's own by default.
            guidance_scale: Strength of classifier-free guidance; 1 turns it off.
            negative_prompt: What guidance leads away from; the empty prompt by default.
            prompt_embeds: Text states (B, L, d) in place of `prompt`.
            negative_prompt_embeds: Text states (B, L, d) in place of `negative_prompt`.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].
            truncate_prompt: Whether to leave out what is too long of a prompt, and warn of it, rather than to raise.
            clip_skip: How many of the last layers of a CLIP text encoder to leave out.
            cross_attention_kwargs: {"scale": s}, a factor on the strength of the LoRA adapters in this call.
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        options = self._complete(keywords)
        size = self._check_size(height, width, options.windows)
        with self._scaled_adapters(cross_attention_kwargs):
            conditioning, guidance = self._text_conditioning(
                prompt,
                negative_prompt,
                scale=guidance_scale,
                interval=guidance_interval,
                rescale=guidance_rescale,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                images=options.num_images_per_prompt,
                options=PromptOptions(truncate_prompt, clip_skip),
            )
            return self._generate(conditioning, size, options, guidance=guidance)
