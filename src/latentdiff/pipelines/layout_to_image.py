"""Images of objects in boxes (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.common import check_interval, check_rescale, finite_number
from latentdiff.models.layout_tokenizer import LayoutTokenizer
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.types import DenoisingNetwork, FirstStage, Layout, Scheduler, TextEncoder


class LayoutToImagePipeline(DiffusionPipeline):
    """Images of objects where their boxes are, by cross-attention to a transformer over the boxes' tokens.

    Args:
        vae: First stage, KL or VQ.
        layout_encoder: `latentdiff.LDMTextEncoder` over the tokens of layouts.
        tokenizer: `latentdiff.LayoutTokenizer`: classes and boxes to tokens.
        unet: `latentdiff.UNet2DConditionModel` with cross-attention.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "layout_encoder->unet->vae"
    layout_encoder: TextEncoder
    tokenizer: LayoutTokenizer

    def __init__(
        self,
        vae: FirstStage,
        layout_encoder: TextEncoder,
        tokenizer: LayoutTokenizer,
        unet: DenoisingNetwork,
        scheduler: Scheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, layout_encoder=layout_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler
        )

    def _gives_context(self) -> bool:
        return True

    @sampling_call
    def __call__(
        self,
        layouts: Layout | Sequence[Layout],
        height: int | None = None,
        width: int | None = None,
        *,
        box_format: str = "xywh",
        image_size: tuple[int, int] | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_rescale: float = 0.0,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images.

        Args:
            layouts: Objects `{"class": name or number, "box": ...}`, or a list of such lists.
            height: Height in pixels; the model's own by default.
            width: Width in pixels; the model's own by default.
            box_format: "xywh" (left, top, width, height; COCO) or "xyxy" (left, top, right, bottom).
            image_size: Height and width of the image that boxes in pixels refer to; None for boxes in [0, 1].
            guidance_scale: Strength of guidance away from the empty layout; 1 is none. Worth trying only with a model
                that saw empty layouts in training; the published one did not.
            guidance_interval: Part of the steps in which guidance acts, as fractions.
            guidance_rescale: Correction of guidance's overexposure, in [0, 1].
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        options = self._complete(keywords)
        scale, interval = finite_number("guidance_scale", guidance_scale), check_interval(guidance_interval)
        rescale = check_rescale(guidance_rescale)
        size = self._check_size(height, width, options.windows)
        ids = self.tokenizer(layouts, box_format=box_format, image_size=image_size)
        count = options.num_images_per_prompt
        conditioning = Conditioning(self.encode_layouts(ids)).repeat(count)
        guidance = []
        if scale != 1:
            empty = Conditioning(self.encode_layouts(self.tokenizer([[]] * len(ids)))).repeat(count)
            guidance = [ClassifierFreeGuidance(empty, scale, interval, rescale)]
        return self._generate(conditioning, size, options, guidance=guidance)

    def encode_layouts(self, ids: torch.Tensor) -> torch.Tensor:
        """Compute the context (B, M, d) of the tokenizer's ids (B, M)."""
        return self.layout_encoder(ids.to(self._execution_device)).last_hidden_state.to(self.unet.dtype)
