"""Super-resolution with a network that sees the small image (section 4.4 of the paper), and a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from typing_extensions import Unpack

from latentdiff.io.inputs import read_images
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Padding
from latentdiff.pipelines.text_conditioning import OptionalTextMixin, PromptOptions
from latentdiff.types import DenoisingNetwork, FirstStage, ImageInput, Scheduler, TextEncoder, Tokenizer


class SuperResolutionPipeline(OptionalTextMixin, DiffusionPipeline):
    """Enlarges images by the first stage's factor f: the small image has the latents' size and is concatenated to them.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` that takes latents and an RGB image.
        scheduler: A scheduler of this package or of diffusers.
        text_encoder: The text encoder of a model that takes prompts, too; None for others.
        tokenizer: The text encoder's tokenizer; None for a model without.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components: ClassVar[list[str]] = ["text_encoder", "tokenizer"]

    def __init__(
        self,
        vae: FirstStage,
        unet: DenoisingNetwork,
        scheduler: Scheduler,
        text_encoder: TextEncoder | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer)

    def _network_channels(self) -> int:
        return int(self.vae.config.latent_channels + self.vae.config.in_channels)

    @property
    def upscale_factor(self) -> int:
        """How many pixels of the result lie along a pixel of the input."""
        return self.vae_scale_factor

    @sampling_call
    def __call__(
        self,
        image: ImageInput,
        prompt: str | Sequence[str] | None = None,
        *,
        guidance_scale: float | None = None,
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
        """Enlarge images by `upscale_factor`. The pixels of `windows` are those of the result.

        Args:
            image: One image or several of one size: paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).
            prompt: What a model with a text encoder shall show: one prompt, or one for each image; several prompts for
                one image give an image each. Other models take none.
            guidance_scale: Strength of classifier-free guidance; by default 5 where there is a prompt. 1 turns it off.
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
        images, factor = read_images(image), self.upscale_factor
        padding = Padding(images.shape[2], images.shape[3], self._multiple // factor)
        height, width = (factor * side for side in padding.size)
        size = self._check_size(height, width, options.windows)
        with self._scaled_adapters(cross_attention_kwargs):
            text, guidance = self._optional_text(
                prompt,
                negative_prompt,
                scale=guidance_scale,
                interval=guidance_interval,
                rescale=guidance_rescale,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                options=PromptOptions(truncate_prompt, clip_skip),
            )
            small = padding.pad(images).to(self._execution_device, self.unet.dtype)
            conditioning, guidance = self._beside_text(small, text, guidance, options.num_images_per_prompt)
            return self._generate(
                conditioning, size, options, guidance=guidance, finish=lambda made: padding.crop(made, factor)
            )
