"""Images of semantic maps (section 4.4 of the paper)."""

from __future__ import annotations

import torch
from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.io.label_maps import one_hot, read_label_maps, resize_label_map
from latentdiff.io.palettes import Palette
from latentdiff.models.segmentation_encoder import SegmentationEncoder
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import SamplingKeywords, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.padding import Padding
from latentdiff.types import DenoisingNetwork, FirstStage, ImageInput, Scheduler


class SemanticToImagePipeline(DiffusionPipeline):
    """Images with a class at every pixel; the encoded map is concatenated to the latents.

    Args:
        vae: First stage, KL or VQ.
        segmentation_encoder: `latentdiff.SegmentationEncoder`: one-hot maps to a few channels.
        unet: `latentdiff.UNet2DConditionModel` that takes latents and those channels.
        scheduler: A scheduler of this package or of diffusers.
    """

    model_cpu_offload_seq = "segmentation_encoder->unet->vae"
    segmentation_encoder: SegmentationEncoder

    def __init__(
        self, vae: FirstStage, segmentation_encoder: SegmentationEncoder, unet: DenoisingNetwork, scheduler: Scheduler
    ) -> None:
        super().__init__()
        self.register_modules(vae=vae, segmentation_encoder=segmentation_encoder, unet=unet, scheduler=scheduler)

    def _network_channels(self) -> None:
        return None

    def _gives_context(self) -> bool:
        return False

    @sampling_call
    def __call__(
        self,
        label_map: ImageInput,
        height: int | None = None,
        width: int | None = None,
        *,
        palette: Palette | None = None,
        ignore_index: int | None = None,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images.

        Args:
            label_map: One map or several of one size: indexed or grey PNG files, integers (H, W), or colours with a
                palette.
            height: Height in pixels; the map's own by default. To another size it is scaled by the nearest pixel.
            width: Width in pixels; the map's own by default.
            palette: Class name or number to colour; the model's own by default.
            ignore_index: A number for pixels of no class, such as 255.
            **keywords: The shared options, see `SamplingOptions`.

        Raises:
            InputError: If an argument is not valid, or the map has an unknown class; nothing has been denoised then.
        """
        options = self._complete(keywords)
        config = self.segmentation_encoder.config
        maps = read_label_maps(
            label_map,
            config.in_channels,
            palette=config.palette if palette is None else palette,
            class_names=config.class_names,
            ignore_index=ignore_index,
        )
        maps = resize_label_map(maps, (height or maps.shape[-2], width or maps.shape[-1]))
        padding = Padding(maps.shape[-2], maps.shape[-1], self._multiple)
        size = self._check_size(*padding.size, options.windows)
        encoded = self.encode_maps(maps.to(self._execution_device), ignore_index)
        conditioning = Conditioning(concat=encoded).repeat(options.num_images_per_prompt)
        return self._generate(conditioning, size, options, finish=padding.crop)

    def encode_maps(self, maps: torch.Tensor, ignore_index: int | None = None) -> torch.Tensor:
        """Encode label maps (B, H, W), padded to a size that the network can take, to channels (B, c, h, w)."""
        encoder = self.segmentation_encoder
        channels = one_hot(maps, encoder.config.in_channels, ignore_index)
        padding = Padding(maps.shape[-2], maps.shape[-1], self._multiple)
        encoded: torch.Tensor = encoder(padding.pad(channels).to(encoder.dtype)).to(self.unet.dtype)
        return encoded
