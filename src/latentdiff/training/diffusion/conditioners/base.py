"""The base of conditioners: one task's way from rows of data to the `Conditioning` that the network is given."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Rows
from latentdiff.data.options import DataOptions
from latentdiff.errors import ConfigError
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.registry import nearest
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.options import ConditionOptions
from latentdiff.types import JSON, FirstStage

OptionsT = TypeVar("OptionsT", bound=ConditionOptions)
ComponentT = TypeVar("ComponentT")


class Conditioner(ABC, Generic[OptionsT]):
    """The condition of one task, in training.

    It makes the network's input with the pipeline's own methods, so that training and sampling can't part.

    Args:
        pipeline: What is trained.
        options: Its options in the recipe, of `options_class`.
        data: The options of the data.
        output_dir: The run's folder, for what is computed once.
        adapter: Whether the UNet, or an adapter of it, is trained and nothing else.

    Attributes:
        task: The name of its pipeline in `PIPELINES`; by default its own name in `CONDITIONERS`.
        options_class: The class of its options in the recipe.
        trains: The pipeline's components that are trained beside the UNet.
        knows_null: Whether the network is meant to know images without their condition, which classifier-free guidance
            needs.
    """

    task: ClassVar[str | None] = None
    options_class: ClassVar[type[ConditionOptions]] = ConditionOptions
    trains: tuple[str, ...] = ()
    knows_null: bool = False

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        options: OptionsT,
        data: DataOptions,
        output_dir: str | Path,
        *,
        adapter: bool = False,
    ) -> None:
        self.pipeline, self.options, self.data = pipeline, options, data
        self.output_dir, self.adapter = Path(output_dir), adapter
        self.prepare()

    def prepare(self) -> None:
        """Make what batches will need of the pipeline; called at the end of construction.

        Raises:
            ConfigError: If the options don't fit the pipeline.
        """

    @classmethod
    def unet_options(cls, options: OptionsT, latent_channels: int) -> dict[str, int]:
        """The entries of the UNet's configuration that this condition sets: `in_channels`, `cross_attention_dim`."""
        return {}

    @classmethod
    def components(cls, options: OptionsT, data: DataOptions, images: Images, vae: FirstStage) -> dict[str, object]:
        """New components of the pipeline, beside first stage, UNet and scheduler.

        Raises:
            ConfigError: If the options don't fit.
            InputError: If the images don't.
        """
        return {}

    @property
    def dropout(self) -> float:
        """The share of conditions that are dropped in this run."""
        return getattr(self.options, "dropout", 0.0)

    def draw_dropped(self, draws: SampleGenerators) -> torch.Tensor:
        """Which conditions of a batch are dropped in training, bool (B,), on the CPU."""
        return draws.uniform() < self.dropout

    @abstractmethod
    def rows(self, images: Images) -> Rows:
        """The rows that are read of each image.

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
            draws: The batch's generators, for any further draws.
        """


def section_value(section: JSON, kind: type, name: str) -> int:
    """The number that the recipe gives a constructor's argument, else its default.

    Args:
        section: Constructor arguments of `kind`, as the recipe has them.
        kind: The component's class.
        name: The argument.
    """
    value: int = section.get(name, inspect.signature(kind).parameters[name].default)
    return value


def build(kind: Callable[..., ComponentT], name: str, section: JSON, **from_data: object) -> ComponentT:
    """Make a component of a recipe's section and of what the data and the other components say.

    Args:
        kind: The component's class.
        name: The section's dotted name, for messages.
        section: Constructor arguments, as the recipe has them.
        **from_data: Those that the recipe may not have.

    Raises:
        ConfigError: If the section has an unknown option, or one that comes from elsewhere.
    """
    given = sorted(set(section) & set(from_data))
    if given:
        raise ConfigError(f"{name} has {given}, which follow from the data; leave them out")
    takes = inspect.signature(kind).parameters
    unknown = sorted(set(section) - set(takes))
    if unknown:
        raise ConfigError(f"{name} has {unknown[0]!r}; {nearest(unknown[0], set(takes) - set(from_data))}")
    try:
        return kind(**section, **from_data)
    except TypeError as error:
        documented = getattr(kind, "__name__", str(kind))
        raise ConfigError(f"{name} does not fit ({error}); see the documentation of {documented}") from None
