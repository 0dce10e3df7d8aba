"""Unconditional image synthesis (section 4.2 of the paper)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingOptions, check_count, sampling_call


class UnconditionalPipeline(DiffusionPipeline):
    """Images of the distribution that the model was trained on.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` without cross-attention, or a stock `UNet2DModel`.
        scheduler: Any own or diffusers scheduler.
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(self, vae: Any, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)

    @sampling_call
    def __call__(
        self,
        batch_size: int = 1,
        height: int | None = None,
        width: int | None = None,
        **options: Unpack[SamplingOptions],
    ) -> Any:
        """Make images.

        Args:
            batch_size: How many.
            height: In pixels; the model's own size by default.
            width: In pixels.
            **options: See `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        size = self._check_size(height, width, self._windows(options.get("windows")))
        count = check_count("batch_size", batch_size) * options.get("num_images_per_prompt", 1)
        return self._generate(Conditioning(), size, options, batch_size=count)
