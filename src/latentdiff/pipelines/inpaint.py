"""Inpainting with a network that sees the masked image (section 4.5 of the paper)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.io.inputs import read_images, read_masks
from latentdiff.pipelines import codec
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Composite, Padding
from latentdiff.types import DenoisingNetwork, FirstStage, ImageInput, Scheduler
from latentdiff.windows import Windows


class InpaintPipeline(DiffusionPipeline):
    """Fills holes in images of any size; every pixel outside of them stays as it is, to the bit.

    Args:
        vae: First stage, KL or VQ.
        unet: `latentdiff.UNet2DConditionModel` that takes latents, the masked image's latents, and the mask.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "unet->vae"

    def __init__(self, vae: FirstStage, unet: DenoisingNetwork, scheduler: Scheduler) -> None:
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler)

    def _network_channels(self) -> int:
        return 2 * int(self.vae.config.latent_channels) + 1

    def _gives_context(self) -> bool:
        return False

    @sampling_call
    def __call__(
        self, image: ImageInput, mask_image: ImageInput, **keywords: Unpack[SamplingKeywords[OutputT]]
    ) -> ImagePipelineOutput[OutputT]:
        """Fill the holes.

        Args:
            image: One image or several of one size: paths, PIL images, arrays (H, W, 3) or tensors (3, H, W).
            mask_image: A mask for each image, or one for all, of the images' size; white is a hole.
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
        shown = self.encode_masked(padding.pad(images), padding.pad(holes), options.windows)
        count = options.num_images_per_prompt
        conditioning = Conditioning(concat=shown.to(self._execution_device, self.unet.dtype)).repeat(count)
        finish = Composite(images, holes, padding, count)
        return self._generate(conditioning, padding.size, options, finish=finish)

    def encode_masked(self, images: torch.Tensor, holes: torch.Tensor, windows: Windows | None = None) -> torch.Tensor:
        """Make what the network sees: the first stage's latents of the images with holes of -1, and the mask.

        Args:
            images: The images (B, 3, H, W) in [-1, 1].
            holes: The masks (B, 1, H, W), 1 in holes and 0 elsewhere.
            windows: Overlapped windows, in latent pixels; None to encode images as a whole.

        Returns:
            Channels (B, c + 1, h, w), without gradients. The mask is 1 in holes and -1 elsewhere, by the nearest pixel.
        """
        masked = torch.where(holes >= 0.5, -1.0, images)
        latents = codec.encode(self.vae, masked, scaled=False, windows=windows)
        mask = F.interpolate(2 * holes - 1, size=latents.shape[-2:]).to(latents)
        return torch.cat([latents, mask], dim=1)
