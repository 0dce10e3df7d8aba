"""Inpainting with a network that sees the masked image (section 4.5 of the paper), and a prompt where it knows text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from typing_extensions import Unpack

from latentdiff.errors import InputError
from latentdiff.io.inputs import read_images, read_masks
from latentdiff.pipelines import codec
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Composite, Padding
from latentdiff.pipelines.text_conditioning import OptionalTextMixin, PromptOptions
from latentdiff.types import DenoisingNetwork, FirstStage, ImageInput, Scheduler, TextEncoder, Tokenizer
from latentdiff.windows import Windows


class MaskConvention(NamedTuple):
    """What a network is shown of an image with holes.

    Attributes:
        hole: The value of the image's pixels in holes, where others are in [-1, 1].
        outside: The value of the mask outside of holes, where it is 1 in them.
        scaled: Whether the latents of the image are multiplied by the first stage's scaling factor.
        mask_first: Whether the mask stands before these latents.
    """

    hole: float
    outside: float
    scaled: bool
    mask_first: bool


PAPER = MaskConvention(hole=-1.0, outside=-1.0, scaled=False, mask_first=False)
"""The convention of the paper's model, and of all models without a text encoder."""

STABLE_DIFFUSION = MaskConvention(hole=0.0, outside=0.0, scaled=True, mask_first=True)
"""The convention of Stable Diffusion (`LatentInpaintDiffusion`), and of all models with a text encoder."""


class InpaintPipeline(OptionalTextMixin, DiffusionPipeline):
    """Fills holes in images of any size; every pixel outside of them stays as it is, to the bit.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` that takes latents, the masked image's latents, and the mask.
        scheduler: A scheduler of this package or of diffusers.
        text_encoder: The text encoder of a model that takes prompts, such as Stable Diffusion's; None for others.
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
        return 2 * int(self.vae.config.latent_channels) + 1

    @property
    def mask_convention(self) -> MaskConvention:
        """What the network is shown of an image with holes."""
        return PAPER if self.text_encoder is None else STABLE_DIFFUSION

    @sampling_call
    def __call__(
        self,
        image: ImageInput,
        mask_image: ImageInput,
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
        """Fill the holes.

        Args:
            image: One image or several of one size: paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).
            mask_image: A mask for each image, or one for all, of the images' size; white is a hole.
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

        Returns:
            Images of the given size.

        Raises:
            InputError: If an argument is not valid, or a mask has no hole; nothing has been denoised then.
        """
        options = self._complete(keywords)
        images = read_images(image, channels=self.vae.config.in_channels)
        holes = read_masks(mask_image, size=(images.shape[2], images.shape[3]))
        if len(holes) not in (1, len(images)):
            raise InputError(f"{len(holes)} masks are given for {len(images)} images; give one each, or one for all")
        if not holes.flatten(1).any(1).all():
            raise InputError("a mask is black everywhere, so nothing is to be filled; paint the holes white")
        holes = holes.expand(len(images), -1, -1, -1)
        padding = Padding(images.shape[2], images.shape[3], self._multiple)
        self._check_size(*padding.size, options.windows)
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
            shown = self.encode_masked(padding.pad(images), padding.pad(holes), options.windows)
            shown = shown.to(self._execution_device, self.unet.dtype)
            conditioning, guidance = self._beside_text(shown, text, guidance, options.num_images_per_prompt)
            finish = Composite(images, holes, padding, (conditioning.batch_size or 1) // len(images))
            return self._generate(conditioning, padding.size, options, guidance=guidance, finish=finish)

    def encode_masked(self, images: torch.Tensor, holes: torch.Tensor, windows: Windows | None = None) -> torch.Tensor:
        """Make what the network sees: the first stage's latents of the images with holes, and the mask.

        Args:
            images: The images (B, 3, H, W) in [-1, 1].
            holes: The masks (B, 1, H, W), 1 in holes and 0 elsewhere.
            windows: Overlapped windows, in latent pixels; None to encode images as a whole.

        Returns:
            Channels (B, c + 1, h, w), without gradients, by `mask_convention`. The mask is that of the nearest pixel.
        """
        convention = self.mask_convention
        masked = torch.where(holes >= 0.5, convention.hole, images)
        latents = codec.encode(self.vae, masked, scaled=convention.scaled, windows=windows)
        mask = F.interpolate(torch.where(holes >= 0.5, 1.0, convention.outside), size=latents.shape[-2:]).to(latents)
        return torch.cat([mask, latents] if convention.mask_first else [latents, mask], dim=1)
