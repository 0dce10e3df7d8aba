"""The options of each conditioning: one class a task, chosen by its name, which is `type`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias, get_args

from pydantic import (
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)

from latentdiff.config import Part, check, named, option
from latentdiff.registry import CONDITIONERS, load_plugins, nearest
from latentdiff.types import JSON

Unfit = Literal["refuse", "cut", "leave_out"]


class ConditionOptions(Part):
    """The options of a conditioner; a conditioner of your own derives its options from this class."""

    type: str
    """The conditioning's name."""

    @property
    def captions(self) -> TextOptions | None:
        """The options of the captions, None where none are read, or as a pretrained model has them."""
        return None


class UnconditionalOptions(ConditionOptions):
    """No condition (section 4.1 of the paper)."""

    type: Literal["unconditional"] = "unconditional"
    """Images alone."""


class TextOptions(ConditionOptions):
    """Captions (section 4.3.1 of the paper)."""

    type: Literal["text-to-image"] = "text-to-image"
    """Captions."""
    text_encoder: JSON = option({}, of_pipeline=True)
    """Constructor arguments of `latentdiff.LDMTextEncoder`."""
    vocabulary: str | None = option(None, of_pipeline=True)
    """WordPiece vocabulary file (`vocab.txt`) of the tokenizer; by default that of BERT (uncased), which the paper uses
    and the package has."""
    unfit_captions: Unfit = "refuse"
    """What is done with captions that the text encoder can't take, as they are too long or have no word that the
    vocabulary knows: "refuse" ends the run before its first step, "cut" cuts long ones and leaves out the others,
    "leave_out" leaves out all of them, and the images that have no other."""
    train_text_encoder: bool | None = None
    """Whether the text encoder is trained with the UNet; by default it is, but for lora. If not, what it says of each
    caption is computed once and kept in `captions/`."""
    dropout: float = option(0.1, ge=0, le=1)
    """Share of captions replaced by the empty one, which classifier-free guidance needs."""

    @property
    def captions(self) -> TextOptions:
        """The options themselves."""
        return self


class ClassOptions(ConditionOptions):
    """Classes (section 4.2 of the paper, table 3)."""

    type: Literal["class-to-image"] = "class-to-image"
    """Classes."""
    class_embedder: JSON = option({}, of_pipeline=True)
    """Arguments of `latentdiff.ClassEmbedder`: embed_dim, and class_names if the data's aren't meant."""
    dropout: float = option(0.1, ge=0, le=1)
    """Share of classes replaced by the null class, which classifier-free guidance needs; at 0 there is no null
    class."""


class LayoutOptions(ConditionOptions):
    """Objects in boxes (section 4.3.1 of the paper)."""

    type: Literal["layout-to-image"] = "layout-to-image"
    """Objects in boxes."""
    layout_encoder: JSON = option({}, of_pipeline=True)
    """Constructor arguments of `latentdiff.LDMTextEncoder`, but for its sizes, which are the tokenizer's."""
    layout_tokenizer: JSON = option({}, of_pipeline=True)
    """Constructor arguments of `latentdiff.LayoutTokenizer`; the classes are the data's by default."""
    dropout: float = option(0.1, ge=0, le=1)
    """Share of layouts replaced by the empty one, which classifier-free guidance needs."""


class SemanticOptions(ConditionOptions):
    """Semantic maps (section 4.4 of the paper)."""

    type: Literal["semantic-to-image"] = "semantic-to-image"
    """Label maps."""
    segmentation_encoder: JSON = option({}, of_pipeline=True)
    """Arguments of `latentdiff.SegmentationEncoder`: out_channels; class_names, and palette and in_channels (the number
    of classes) if those of the data aren't meant."""
    dropout: float = option(0.0, ge=0, le=1)
    """Share of maps replaced by one without classes."""


class BesideTextOptions(ConditionOptions):
    """Channels beside the latents, and captions too where they are asked for or the pretrained model has them."""

    text: TextOptions | None = None
    """Captions beside the channels, with the options that text-to-image has of them."""

    @property
    def captions(self) -> TextOptions | None:
        """The options of the captions."""
        return self.text


class SuperResolutionOptions(BesideTextOptions):
    """Low-resolution images, made of the training images themselves (section 4.4 of the paper)."""

    type: Literal["super-resolution"] = "super-resolution"
    """Small images."""
    degradation: str = "bicubic"
    """Degradation that makes the small images, a name of the registry `DEGRADATIONS`."""


class InpaintOptions(BesideTextOptions):
    """Images with holes (section 4.5 of the paper)."""

    type: Literal["inpaint"] = "inpaint"
    """Images with holes."""
    masks: dict[str, float] = option(dict.fromkeys(("thin", "medium", "thick", "box"), 1.0))
    """Names of the registry `MASKS` to how often each is drawn, relative to each other."""

    @model_validator(mode="after")
    def _check_masks(self) -> Self:
        check(bool(self.masks), "masks is empty; give names of mask generators and how often each is drawn")
        for name, weight in self.masks.items():
            drawn = 0 < weight < math.inf
            check(drawn, f"masks has {weight:g} as the weight of {name!r}; give a number above 0, or leave it out")
        return self


_BuiltIn: TypeAlias = (
    TextOptions
    | UnconditionalOptions
    | ClassOptions
    | LayoutOptions
    | SemanticOptions
    | SuperResolutionOptions
    | InpaintOptions
)
BUILT_IN: dict[str, type[ConditionOptions]] = {kind.model_fields["type"].default: kind for kind in get_args(_BuiltIn)}


def condition_options(task: str) -> type[ConditionOptions]:
    """The class of a conditioning's options.

    Raises:
        ConfigError: If there is no such conditioning, in the package or in what is installed beside it.
    """
    if task in BUILT_IN:
        return BUILT_IN[task]
    if task not in CONDITIONERS:
        load_plugins()
    check(task in CONDITIONERS, f"type is {task!r}; {nearest(task, CONDITIONERS.names())}")
    kind: type[ConditionOptions] = CONDITIONERS.get(task).options_class
    made: type[ConditionOptions] = create_model(kind.__name__, __base__=kind, type=(Literal[task], task))  # type: ignore[arg-type]
    return made


def _choose(value: object, choose_built_in: ValidatorFunctionWrapHandler) -> object:
    """A name alone is short for its type; what is not built in brings its own class."""
    value = named(value)
    task = value.get("type") if isinstance(value, Mapping) else None
    if isinstance(value, ConditionOptions) or (isinstance(task, str) and task not in BUILT_IN):
        return value if isinstance(value, ConditionOptions) else condition_options(str(task)).model_validate(value)
    return choose_built_in(value)


if TYPE_CHECKING:
    Conditioning: TypeAlias = ConditionOptions
else:
    _Tagged = Annotated[_BuiltIn, Field(discriminator="type"), SerializeAsAny()]
    _Name = Literal[tuple(BUILT_IN)]
    Conditioning = Annotated[_Tagged, WrapValidator(_choose, json_schema_input_type=_Name | _Tagged)]
