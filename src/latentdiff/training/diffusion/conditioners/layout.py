"""Objects in boxes (section 4.3.1 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from latentdiff.conditioning import Conditioning
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.layouts import WholeLayout, classes_of, most_seen, read_layouts, resolve_box_format
from latentdiff.data.options import DataOptions
from latentdiff.data.views import View
from latentdiff.errors import InputError
from latentdiff.models.layout_tokenizer import LayoutTokenizer
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner, build, section_value
from latentdiff.training.diffusion.conditioners.options import LayoutOptions
from latentdiff.types import FirstStage


class LayoutConditioner(Conditioner[LayoutOptions]):
    """Conditions on layouts. The layout encoder is trained with the UNet; a dropped layout is the empty one."""

    options_class = LayoutOptions
    trains = ("layout_encoder",)
    knows_null = True

    def prepare(self) -> None:
        """Tokenise the empty layout."""
        self.empty: torch.Tensor = self.pipeline.tokenizer([[]])

    @classmethod
    def unet_options(cls, options: LayoutOptions, latent_channels: int) -> dict[str, int]:
        """The context is as wide as the layout encoder's output."""
        return {"cross_attention_dim": section_value(options.layout_encoder, LDMTextEncoder, "hidden_size")}

    @classmethod
    def components(
        cls, options: LayoutOptions, data: DataOptions, images: Images, vae: FirstStage
    ) -> dict[str, object]:
        """A tokenizer of the classes in the data, or of those that the recipe names, and an encoder of its tokens."""
        section = dict(options.layout_tokenizer)
        if not {"class_names", "num_classes"} & set(section):
            section |= classes_of(most_seen(_layouts(data, images), images.views))
        tokenizer = build(LayoutTokenizer, "conditioning.layout_tokenizer", section)
        sizes = {"vocab_size": tokenizer.config["num_tokens"], "max_position_embeddings": tokenizer.length}
        encoder = build(LDMTextEncoder, "conditioning.layout_encoder", options.layout_encoder, **sizes)
        return {"layout_encoder": encoder, "tokenizer": tokenizer}

    def rows(self, images: Images) -> Rows:
        """Rows of `layout_ids` (M,), with the objects in another order at every visit."""
        layouts, tokenizer = _layouts(self.data, images), self.pipeline.tokenizer
        for path, layout in zip(images.files, most_seen(layouts, images.views), strict=True):
            try:
                tokenizer([layout], box_format="xyxy")
            except InputError as error:
                raise InputError(f"{path.name}: {error}") from None
        return _Shuffled(layouts, tokenizer)

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The encoder's states of the layouts, or of the empty one where they are dropped."""
        ids = torch.where(dropped[:, None], self.empty.to(dropped.device), batch["layout_ids"])
        return Conditioning(self.pipeline.encode_layouts(ids))


class _Shuffled:
    """Layouts whose objects come in any order.

    Args:
        layouts: The objects of each image.
        tokenizer: The tokenizer of layouts.
    """

    def __init__(self, layouts: list[WholeLayout], tokenizer: LayoutTokenizer) -> None:
        self.layouts, self.tokenizer = layouts, tokenizer

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        objects = self.layouts[image].seen(view)
        shuffled = [objects[place] for place in rng.permutation(len(objects))]
        return {"layout_ids": self.tokenizer([shuffled], box_format="xyxy")[0].long()}


def _layouts(data: DataOptions, images: Images) -> list[WholeLayout]:
    return read_layouts(images, *resolve_box_format(images, data.box_format, data.box_units))
