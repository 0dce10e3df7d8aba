"""Semantic maps (section 4.4 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.data.images import Images
from latentdiff.data.label_maps import IGNORE_INDEX, LabelMaps, count_classes, indexed_palette, paths_of
from latentdiff.data.latent_cache import Rows
from latentdiff.data.options import DataOptions
from latentdiff.models.segmentation_encoder import SegmentationEncoder
from latentdiff.pipelines.codec import factor
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner, build, section_value
from latentdiff.training.diffusion.conditioners.options import SemanticOptions
from latentdiff.types import FirstStage


class SemanticConditioner(Conditioner[SemanticOptions]):
    """Conditions on label maps; a dropped map has no class at any pixel.

    The segmentation encoder is trained with the UNet.
    """

    options_class = SemanticOptions
    trains = ("segmentation_encoder",)

    @classmethod
    def unet_options(cls, options: SemanticOptions, latent_channels: int) -> dict[str, int]:
        """The input has the latents and the channels of the encoded map."""
        channels = section_value(options.segmentation_encoder, SegmentationEncoder, "out_channels")
        return {"in_channels": latent_channels + channels}

    @classmethod
    def components(
        cls, options: SemanticOptions, data: DataOptions, images: Images, vae: FirstStage
    ) -> dict[str, object]:
        """An encoder of the maps' classes, which keeps their names, if the recipe has some, and their colours."""
        paths, section = paths_of(images), dict(options.segmentation_encoder)
        said = section.get("class_names") or section.get("palette")
        count = section.pop("in_channels", None) or (len(said) if said else count_classes(paths))
        palette = section.pop("palette", None) or indexed_palette(paths, count)
        own = {"in_channels": count, "palette": palette, "num_stages": int(math.log2(factor(vae)))}
        encoder = build(SegmentationEncoder, "conditioning.segmentation_encoder", section, **own)
        return {"segmentation_encoder": encoder}

    def rows(self, images: Images) -> Rows:
        """Rows of `maps`, the label map (H, W), int64."""
        config = self.pipeline.segmentation_encoder.config
        return LabelMaps(images, config.in_channels, config.palette)

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The encoded maps, without a class at any pixel where they are dropped."""
        maps = batch["maps"].masked_fill(dropped[:, None, None], IGNORE_INDEX)
        return Conditioning(concat=self.pipeline.encode_maps(maps, IGNORE_INDEX))
