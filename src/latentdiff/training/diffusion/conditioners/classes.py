"""Classes (section 4.2 of the paper, table 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from diffusers.configuration_utils import FrozenDict

from latentdiff.conditioning import Conditioning
from latentdiff.config import check
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import Columns, Rows
from latentdiff.data.options import DataOptions
from latentdiff.errors import InputError
from latentdiff.labels import class_number, value_of
from latentdiff.models.class_embedder import ClassEmbedder
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.conditioners.base import Conditioner, build, section_value
from latentdiff.training.diffusion.conditioners.options import ClassOptions
from latentdiff.types import FirstStage


class ClassConditioner(Conditioner[ClassOptions]):
    """Conditions on classes; a dropped class is the null class.

    The class embedder is trained with the UNet; with dropout it has one more label for the null class.
    """

    options_class = ClassOptions
    trains = ("class_embedder",)

    def prepare(self) -> None:
        """Find the null class; a recipe may not drop conditions without one."""
        self.null: int | None = self.pipeline.class_embedder.config.null_class
        self.knows_null = self.null is not None
        check(
            self.knows_null or not (self.options.given("dropout") and self.options.dropout),
            f"conditioning.dropout is {self.options.dropout}, but this model has no null class; set it to 0",
        )

    @classmethod
    def unet_options(cls, options: ClassOptions, latent_channels: int) -> dict[str, int]:
        """The context is as wide as the class embedder's output."""
        return {"cross_attention_dim": section_value(options.class_embedder, ClassEmbedder, "embed_dim")}

    @classmethod
    def components(cls, options: ClassOptions, data: DataOptions, images: Images, vae: FirstStage) -> dict[str, object]:
        """An embedder of the images' classes, or of those that the recipe names."""
        labels_known(images)
        section = dict(options.class_embedder)
        names = section.pop("class_names", images.class_names)
        check(
            names is None or isinstance(names, list),
            f"conditioning.class_embedder has class_names {names!r}; give a list of names",
        )
        count = images.num_classes if names is None else len(names)
        null = count if options.dropout else None
        embedder = build(
            ClassEmbedder,
            "conditioning.class_embedder",
            section,
            num_classes=count + (null is not None),
            null_class=null,
            class_names=names,
        )
        return {"class_embedder": embedder}

    @property
    def dropout(self) -> float:
        """The share of classes that are dropped: none for a model without a null class."""
        return self.options.dropout if self.knows_null else 0.0

    def rows(self, images: Images) -> Rows:
        """Rows of `labels`, the number of the image's class ()."""
        config = self.pipeline.class_embedder.config
        return Columns(labels=labels_of(images, config.class_names, _classes(config)))

    def __call__(
        self, batch: Mapping[str, torch.Tensor], dropped: torch.Tensor, draws: SampleGenerators
    ) -> Conditioning:
        """The embeddings of the classes, or of the null class where they are dropped."""
        labels = batch["labels"] if self.null is None else batch["labels"].masked_fill(dropped, self.null)
        return Conditioning(self.pipeline.class_embedder(labels))


def labels_of(images: Images, class_names: list[str] | None, num_classes: int) -> torch.Tensor:
    """The model's number of each image's class, (N,), by name where both have names.

    Raises:
        InputError: If the images have no classes, or some that the model doesn't know.
    """
    given: Sequence[int | str] = labels_known(images)
    if images.class_names is not None and class_names is not None:
        given = [images.class_names[label] for label in labels_known(images)]
    if images.class_names is not None and class_names is None:
        other = next(
            (place for place, name in enumerate(images.class_names) if value_of(name) not in (None, place)), None
        )
        if images.num_classes != num_classes:
            raise InputError(
                f"{images.root} has {images.num_classes} classes, this model {num_classes} without names; "
                "give 'label' as the model's numbers in metadata.jsonl"
            )
        if other is not None:
            raise InputError(
                f"{images.root} has a class called {images.class_names[other]!r}, which is number {other} of its "
                "names, and this model has numbers alone; give 'label' as the model's numbers in metadata.jsonl"
            )
    numbers: dict[int | str, int] = {}
    for place, label in enumerate(given):
        if label not in numbers:
            try:
                numbers[label] = class_number(label, num_classes, class_names)
            except InputError as error:
                raise InputError(f"{images.root}, {images.records.name_of(place)}: {error}") from None
    return torch.tensor([numbers[label] for label in given])


def _classes(config: FrozenDict) -> int:
    """The number of classes that images can be of: the null class, where it is the last label, is none."""
    return int(config.num_classes - (config.null_class == config.num_classes - 1))


def labels_known(images: Images) -> list[int]:
    """The number of each image's class in the data; InputError if the images have none."""
    if images.labels is None:
        raise InputError(
            f"{images.root} has no classes; sort the images into sub-folders by class, or give 'label' in "
            f"metadata.jsonl{images.hint('label_column')}"
        )
    return images.labels
