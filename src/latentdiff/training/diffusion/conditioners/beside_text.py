"""Channels beside the latents, and captions too where the model has a text encoder: both contexts at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch

from latentdiff.conditioning import Conditioning
from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.options import DataOptions
from latentdiff.data.views import View
from latentdiff.errors import ConfigError
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner
from latentdiff.training.diffusion.conditioners.options import ConditionOptions, TextOptions
from latentdiff.training.diffusion.conditioners.text import TextConditioner
from latentdiff.types import FirstStage

OptionsT = TypeVar("OptionsT", bound=ConditionOptions)


class BesideTextConditioner(Conditioner[OptionsT]):
    """Base of the conditioners of channels, to which a `TextConditioner` adds captions.

    The null condition is that of the captions where there are any, else that of the channels. In training either may be
    dropped by itself.

    Attributes:
        text: What conditions on captions; None for a model without a text encoder.
    """

    text: TextConditioner | None

    def prepare(self) -> None:
        """Make the part of the captions, if the pipeline has a text encoder."""
        options, has_text = self.options.captions, self.pipeline.components.get("text_encoder") is not None
        check(
            has_text or options is None,
            "conditioning.text is given, but the pretrained pipeline has no text encoder; leave it out, or start from "
            "one that has",
        )
        self.text = None
        if has_text:
            chosen = options or TextOptions()
            self.text = TextConditioner(self.pipeline, chosen, self.data, self.output_dir, adapter=self.adapter)
            self.trains, self.knows_null = self.text.trains, self.text.knows_null

    @classmethod
    def unet_options(cls, options: OptionsT, latent_channels: int) -> dict[str, int]:
        """The input has the latents and the channels; with captions there is their context, too."""
        channels = {"in_channels": latent_channels + cls.channels(latent_channels)}
        if options.captions is None:
            return channels
        return channels | TextConditioner.unet_options(options.captions, latent_channels)

    @classmethod
    @abstractmethod
    def channels(cls, latent_channels: int) -> int:
        """The number of channels beside the latents."""

    @classmethod
    def components(cls, options: OptionsT, data: DataOptions, images: Images, vae: FirstStage) -> dict[str, object]:
        """A text encoder and its tokenizer, where captions are asked for."""
        if options.captions is None:
            return {}
        try:
            return TextConditioner.components(options.captions, data, images, vae)
        except ConfigError as error:
            raise ConfigError(str(error).replace("conditioning.", "conditioning.text.")) from None

    @property
    def dropout(self) -> float:
        """The share of captions that are dropped in this run, or without any that of channels."""
        return self.channel_dropout if self.text is None else self.text.dropout

    @property
    def channel_dropout(self) -> float:
        """The share of channels that are dropped by themselves."""
        return super().dropout

    def draw_dropped(self, draws: SampleGenerators) -> torch.Tensor:
        """Which are dropped, bool (B,), or (B, 2) of captions and channels where both are."""
        dropped = super().draw_dropped(draws)
        if self.text is None or not self.channel_dropout:
            return dropped
        return torch.stack([dropped, draws.uniform() < self.channel_dropout], dim=1)

    def rows(self, images: Images) -> Rows:
        """The rows of the channels, with those of the captions."""
        channels = self.channel_rows(images)
        return channels if self.text is None else _Both(channels, self.text.rows(images))

    @abstractmethod
    def channel_rows(self, images: Images) -> Rows:
        """The rows of the channels; see `rows`."""

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The channels, and the states of the captions; where they are dropped, what stands for none."""
        if self.text is None:
            return Conditioning(concat=self.concat(self.without(batch, dropped) if self.channel_dropout else batch))
        if dropped.ndim == 2:
            dropped, no_channels = dropped.unbind(1)
            batch = self.without(batch, no_channels)
        return Conditioning(self.text(batch, dropped, draws).context, self.concat(batch))

    @abstractmethod
    def without(self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor) -> dict[str, torch.Tensor]:
        """The batch with what stands for no channels where they are dropped, bool (B,)."""

    @abstractmethod
    def concat(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The channels (B, c, h, w) of a batch of rows."""


class _Both:
    def __init__(self, first: Rows, second: Rows) -> None:
        self.first, self.second = first, second

    def __call__(self, image: int, view: View, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        return {**self.first(image, view, rng), **self.second(image, view, rng)}
