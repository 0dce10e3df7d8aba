"""Classes (section 4.2 of the paper, table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from latentdiff.conditioning import Conditioning
from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Columns, Rows
from latentdiff.errors import ConfigError, InputError
from latentdiff.labels import class_number
from latentdiff.models.class_embedder import ClassEmbedder
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner, build, section_value
from latentdiff.training.recipes.stages import DiffusionRecipe


class ClassConditioner(Conditioner):
    """The class embedder is trained with the UNet; with dropout it has one more label, the null class."""

    trains = ("class_embedder",)
    options = ("class_embedder",)
    dropout = 0.1

    def __init__(self, pipeline: Any, recipe: DiffusionRecipe) -> None:
        super().__init__(pipeline, recipe)
        self.null = pipeline.class_embedder.config.null_class
        if recipe.dropout and self.null is None:
            raise ConfigError(f"condition_dropout is {recipe.dropout}, but this model has no null class; set it to 0")

    @classmethod
    def unet_options(cls, recipe: DiffusionRecipe, latent_channels: int) -> dict[str, Any]:
        """The context's width."""
        return {"cross_attention_dim": section_value(recipe.class_embedder, ClassEmbedder, "embed_dim")}

    @classmethod
    def components(cls, recipe: DiffusionRecipe, images: Images, vae: Any) -> dict[str, Any]:
        """An embedder of the images' classes, or of those that the recipe names."""
        _check_labels(images)
        section = dict(recipe.class_embedder)
        names = section.pop("class_names", images.class_names)
        check(
            names is None or isinstance(names, list),
            f"class_embedder has class_names {names!r}; give a list of names",
        )
        count = images.num_classes if names is None else len(names)
        null = count if recipe.dropout or recipe.dropout is None else None
        embedder = build(
            ClassEmbedder,
            "class_embedder",
            section,
            num_classes=count + (null is not None),
            null_class=null,
            class_names=names,
        )
        return {"class_embedder": embedder}

    def null_dropout(self) -> float:
        """None are dropped for a model without a null class."""
        return 0.0 if self.null is None else super().null_dropout()

    def rows(self, images: Images) -> Rows:
        """The number of the image's class, ()."""
        config = self.pipeline.class_embedder.config
        return Columns(labels=labels_of(images, config.class_names, _classes(config)))

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """See `Conditioner`."""
        labels = batch["labels"] if self.null is None else batch["labels"].masked_fill(dropped, self.null)
        return Conditioning(self.pipeline.class_embedder(labels))


def labels_of(images: Images, class_names: list[str] | None, num_classes: int) -> torch.Tensor:
    """The model's number of each image's class, (N,), by name where both have names.

    Raises:
        InputError: If the images have no classes, or some that the model doesn't know.
    """
    _check_labels(images)
    assert images.labels is not None
    given: list[Any] = images.labels
    if images.class_names is not None and class_names is not None:
        given = [images.class_names[label] for label in images.labels]
    if images.class_names is not None and class_names is None and images.num_classes != num_classes:
        raise InputError(
            f"{images.root} has {images.num_classes} classes, this model {num_classes} without names; "
            "give 'label' as the model's numbers in metadata.jsonl"
        )
    numbers = {label: class_number(label, num_classes, class_names) for label in dict.fromkeys(given)}
    return torch.tensor([numbers[label] for label in given])


def _classes(config: Any) -> int:
    """How many classes images can be of: the null class, where it is the last label, is none."""
    return int(config.num_classes - (config.null_class == config.num_classes - 1))


def _check_labels(images: Images) -> None:
    if images.labels is None:
        raise InputError(
            f"{images.root} has no classes; sort the images into sub-folders by class, or give 'label' in "
            "metadata.jsonl"
        )
