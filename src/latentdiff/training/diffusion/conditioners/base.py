"""What a conditioner is: one task's way from rows of data to the `Conditioning` that the network is given."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.seeding import SampleGenerators
from latentdiff.training.recipes.stages import DiffusionRecipe


class Conditioner(ABC):
    """The condition of one task, in training.

    It makes the network's input with the pipeline's own methods, so that training and sampling can't part.

    Args:
        pipeline: What is trained.
        recipe: Of the run.

    Attributes:
        task: The name of its pipeline in `PIPELINES`; by default its own name in `CONDITIONERS`.
        trains: The pipeline's components that are trained beside the UNet.
        options: The fields of the recipe that it reads.
        dropout: Share of conditions that are dropped where the recipe says nothing; None if it has no null condition.
    """

    task: ClassVar[str | None] = None
    trains: tuple[str, ...] = ()
    options: ClassVar[tuple[str, ...]] = ()
    dropout: ClassVar[float | None] = None

    def __init__(self, pipeline: Any, recipe: DiffusionRecipe) -> None:
        self.pipeline, self.recipe = pipeline, recipe

    @classmethod
    def unet_options(cls, recipe: DiffusionRecipe, latent_channels: int) -> dict[str, Any]:
        """What the UNet's configuration has to be for this condition: `in_channels`, `cross_attention_dim`."""
        return {}

    @classmethod
    def components(cls, recipe: DiffusionRecipe, images: Images, vae: Any) -> dict[str, Any]:
        """New components of the pipeline, beside first stage, UNet and scheduler.

        Raises:
            ConfigError: If the recipe doesn't fit.
            InputError: If the images don't.
        """
        return {}

    def null_dropout(self) -> float:
        """The share of conditions to drop where the recipe says nothing, for this very pipeline."""
        return self.dropout or 0.0

    @property
    def share_dropped(self) -> float:
        """The share of conditions that are dropped in this run."""
        return self.null_dropout() if self.recipe.dropout is None else self.recipe.dropout

    @abstractmethod
    def rows(self, images: Images) -> Rows:
        """What is read of each image.

        Raises:
            InputError: If something is missing or isn't valid: nothing has been trained then.
        """

    @abstractmethod
    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The condition of a batch of rows, with gradients.

        Args:
            batch: What `rows` gave, stacked.
            dropped: bool (B,), which of them get the null condition.
            draws: Of the batch, for any further ones.
        """


def section_value(section: Mapping[str, Any], kind: type, name: str) -> Any:
    """The option `name` of a recipe's section, else the default of the constructor of `kind`."""
    return section.get(name, inspect.signature(kind).parameters[name].default)


def build(kind: type, section_name: str, section: Mapping[str, Any], **from_data: Any) -> Any:
    """Make a component of a recipe's section and of what the data and the other components say.

    Raises:
        ConfigError: If the section has an unknown option, or one that comes from elsewhere.
    """
    given = sorted(set(section) & set(from_data))
    if given:
        raise ConfigError(f"{section_name} has {given}, which follow from the data; leave them out")
    takes = inspect.signature(kind).parameters
    unknown = sorted(set(section) - set(takes))
    if unknown:
        raise ConfigError(f"{section_name} has {unknown[0]!r}; {nearest(unknown[0], set(takes) - set(from_data))}")
    try:
        return kind(**section, **from_data)
    except TypeError as error:
        raise ConfigError(f"{section_name} does not fit ({error}); see the documentation of {kind.__name__}") from None
