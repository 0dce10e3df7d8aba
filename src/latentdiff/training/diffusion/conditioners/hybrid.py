"""Several conditions at once, each dropped by itself: class and layout, captions and label maps, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch

from latentdiff.conditioning import Conditioning
from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.options import DataOptions
from latentdiff.data.views import View
from latentdiff.pipelines.hybrid_conditions import CONDITIONS
from latentdiff.registry import CONDITIONERS
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.beside_text import BesideTextConditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions, HybridOptions, condition_options
from latentdiff.training.diffusion.conditioners.text import TextConditioner
from latentdiff.types import FirstStage


class HybridConditioner(Conditioner[HybridOptions]):
    """Conditions on several things, each read, made and trained by the conditioner of its own task.

    The null condition, which guidance leads away from, is that of all conditions by cross-attention, and the channels
    stay; without any of the former it is that of all channels. In training any may be dropped while others are kept.

    Attributes:
        parts: The conditioners, in the order of their tokens and channels.
    """

    options_class = HybridOptions

    def prepare(self) -> None:
        """Make the conditioner of each part.

        Raises:
            ConfigError: If the pretrained pipeline has other conditions than the recipe.
        """
        known = self.pipeline.conditions
        options = self.options.parts or [condition_options(name)(type=name) for name in known]
        asked = tuple(part.type for part in options)
        check(
            asked == known,
            f"conditioning.parts are {', '.join(asked)}, but the pretrained pipeline has {', '.join(known)}; give the "
            "same in its order, or leave them out",
        )
        self.parts: list[Conditioner[ConditionOptions]] = [
            CONDITIONERS.get(part.type)(
                self.pipeline.part(part.type), part, self.data, self.output_dir, adapter=self.adapter
            )
            for part in options
        ]
        self.trains = tuple(name for part in self.parts for name in part.trains)
        contexts = [part for part in self.parts if CONDITIONS[part.options.type].is_context]
        self.guided = contexts or self.parts
        self.knows_null = all(part.knows_null for part in self.guided)

    @classmethod
    def unet_options(cls, options: HybridOptions, latent_channels: int) -> dict[str, int]:
        """The input has the latents and all channels; all contexts are of one width.

        Raises:
            ConfigError: If they aren't.
        """
        found = {part.type: CONDITIONERS.get(part.type).unet_options(part, latent_channels) for part in options.parts}
        channels = sum(entries.get("in_channels", latent_channels) - latent_channels for entries in found.values())
        widths = {
            name: entries["cross_attention_dim"] for name, entries in found.items() if "cross_attention_dim" in entries
        }
        said = " and ".join(f"{width} ({name})" for name, width in widths.items())
        check(len(set(widths.values())) <= 1, f"conditioning.parts have contexts of width {said}; give all one width")
        context = {"cross_attention_dim": next(iter(widths.values()))} if widths else {}
        return {"in_channels": latent_channels + channels} | context

    @classmethod
    def components(
        cls, options: HybridOptions, data: DataOptions, images: Images, vae: FirstStage
    ) -> dict[str, object]:
        """The components of all parts, and the names of these.

        Raises:
            ConfigError: If there are no parts.
        """
        check(bool(options.parts), "conditioning.parts is missing; give a list of at least two conditionings")
        made: dict[str, object] = {"conditions": ", ".join(part.type for part in options.parts)}
        for part in options.parts:
            names = CONDITIONS[part.type].components
            components = CONDITIONERS.get(part.type).components(part, data, images, vae)
            made |= {names[name]: component for name, component in components.items()}
        return made

    @property
    def dropout(self) -> float:
        """The share of images in training of which all that guidance leads away from is dropped."""
        together = self.options.dropout
        return together + (1 - together) * prod(part.dropout for part in self.guided)

    def draw_dropped(self, draws: SampleGenerators) -> torch.Tensor:
        """Which conditions are dropped, bool (B, parts), on the CPU: each by itself, and some of all together."""
        together = draws.uniform() < self.options.dropout
        return torch.stack([together | part.draw_dropped(draws) for part in self.parts], dim=1)

    def rows(self, images: Images) -> Rows:
        """The rows of all parts."""
        return _All([part.rows(images) for part in self.parts])

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The conditions of a batch, side by side.

        Args:
            batch: What `rows` gave, stacked.
            dropped: bool (B, parts), which are dropped; or (B,), of which images the null condition is meant.
            draws: The batch's generators.
        """
        of_part = [
            dropped[:, place] if dropped.ndim == 2 else dropped & (part in self.guided)
            for place, part in enumerate(self.parts)
        ]
        return Conditioning.beside([part(batch, one, draws) for part, one in zip(self.parts, of_part, strict=True)])


class _All:
    """The rows of several conditions, whose names differ."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self.parts = parts

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {name: row for part in self.parts for name, row in part(image, view, rng).items()}


def text_part(conditioner: Conditioner[ConditionOptions]) -> TextConditioner | None:
    """What conditions on captions in a conditioner, itself or a part; None if nothing does."""
    if isinstance(conditioner, HybridConditioner):
        return next((part for part in conditioner.parts if isinstance(part, TextConditioner)), None)
    if isinstance(conditioner, BesideTextConditioner):
        part: TextConditioner | None = conditioner.text
        return part
    return conditioner if isinstance(conditioner, TextConditioner) else None
