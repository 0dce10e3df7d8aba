"""Unconditional image synthesis (section 4.2 of the paper)."""

from __future__ import annotations

from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, check_count, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.types import DenoisingNetwork, FirstStage, Scheduler


class UnconditionalPipeline(DiffusionPipeline):
    """Images of the distribution that the model was trained on.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` without cross-attention, or a stock `UNet2DModel`.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(self, vae: FirstStage, unet: DenoisingNetwork, scheduler: Scheduler) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)

    def _gives_context(self) -> bool:
        return False

    @sampling_call
    def __call__(
        self,
        batch_size: int = 1,
        height: int | None = None,
        width: int | None = None,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images.

        Args:
            batch_size: How many images to make.
            height: Height in pixels; the model's own by default.
            width: Width in pixels; the model's own by default.
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        options = self._complete(keywords)
        size = self._check_size(height, width, options.windows)
        count = check_count("batch_size", batch_size) * options.num_images_per_prompt
        return self._generate(Conditioning(), size, options, batch_size=count)
