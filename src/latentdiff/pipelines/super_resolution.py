"""Super-resolution with a network that sees the small image (section 4.4 of the paper)."""

from __future__ import annotations

from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.io.inputs import read_images
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Padding
from latentdiff.types import DenoisingNetwork, FirstStage, ImageInput, Scheduler


class SuperResolutionPipeline(DiffusionPipeline):
    """Enlarges images by the first stage's factor f: the small image has the latents' size and is concatenated to them.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` that takes latents and an RGB image.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(self, vae: FirstStage, unet: DenoisingNetwork, scheduler: Scheduler) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)

    def _network_channels(self) -> int:
        return int(self.vae.config.latent_channels + self.vae.config.in_channels)

    @property
    def upscale_factor(self) -> int:
        """How many pixels of the result lie along a pixel of the input."""
        return self.vae_scale_factor

    def _gives_context(self) -> bool:
        return False

    @sampling_call
    def __call__(
        self, image: ImageInput, **keywords: Unpack[SamplingKeywords[OutputT]]
    ) -> ImagePipelineOutput[OutputT]:
        """Enlarge images by `upscale_factor`. The pixels of `windows` are those of the result.

        Args:
            image: One image or several of one size: paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid; nothing has been denoised then.
        """
        options = self._complete(keywords)
        images, factor = read_images(image), self.upscale_factor
        padding = Padding(images.shape[2], images.shape[3], self._multiple // factor)
        height, width = (factor * side for side in padding.size)
        size = self._check_size(height, width, options.windows)
        small = padding.pad(images).to(self._execution_device, self.unet.dtype)
        conditioning = Conditioning(concat=small).repeat(options.num_images_per_prompt)
        return self._generate(conditioning, size, options, finish=lambda made: padding.crop(made, factor))
