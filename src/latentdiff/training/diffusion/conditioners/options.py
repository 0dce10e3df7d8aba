"""The options of each conditioning: one class a task, chosen by its name, which is `type`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias, get_args

from pydantic import (
    BeforeValidator,
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

    @property
    def members(self) -> list[ConditionOptions]:
        """The conditions that it consists of, itself if it is one alone."""
        return [self]


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
    dropout: float = option(0.0, ge=0, le=1)
    """Share of images whose channels are replaced by what stands for none: a grey small image, or one that is one
    hole; those of captions are dropped by themselves."""

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


_Joinable: TypeAlias = (
    TextOptions | ClassOptions | LayoutOptions | SemanticOptions | SuperResolutionOptions | InpaintOptions
)

if TYPE_CHECKING:
    _Part: TypeAlias = ConditionOptions
else:
    _Kind = Annotated[_Joinable, Field(discriminator="type"), SerializeAsAny()]
    _PartName = Literal[tuple(kind.model_fields["type"].default for kind in get_args(_Joinable))]
    _Part = Annotated[_Kind, BeforeValidator(named, json_schema_input_type=_PartName | _Kind)]


class HybridOptions(ConditionOptions):
    """Several conditions at once, each with the options that it has alone; a list is short for it."""

    type: Literal["hybrid"] = "hybrid"
    """Several conditions."""
    parts: list[_Part] = option([])
    """The conditionings, at least two; those of the pretrained pipeline if there is one and they are left out."""
    dropout: float = option(0.0, ge=0, le=1)
    """Share of images whose conditions are all dropped at once, beside what each part drops by itself."""

    @property
    def captions(self) -> TextOptions | None:
        """The options of the captions."""
        return next((part for part in self.members if isinstance(part, TextOptions)), None)

    @property
    def members(self) -> list[ConditionOptions]:
        """The parts."""
        return [*self.parts]

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        names = [part.type for part in self.members]
        check(len(names) != 1, f"parts has {names[:1]} alone; give at least two, or conditioning: {names[:1]}")
        twice = next((name for name in names if names.count(name) > 1), None)
        check(twice is None, f"parts has {twice!r} twice; give it once")
        both = {"super-resolution", "inpaint"} <= set(names)
        check(not both, "parts has super-resolution and inpaint, which are of different images; give one of them")
        for part in self.members:
            beside = isinstance(part, BesideTextOptions) and part.text is not None
            check(not beside, f"parts has {part.type!r} with text; give text-to-image as a part of its own")
        return self


_BuiltIn: TypeAlias = _Joinable | UnconditionalOptions | HybridOptions
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
    """A name alone is short for its type, a list for several; what is not built in brings its own class."""
    value = _joined(value) if isinstance(value, list) else named(value)
    task = value.get("type") if isinstance(value, Mapping) else None
    if isinstance(value, ConditionOptions) or (isinstance(task, str) and task not in BUILT_IN):
        return value if isinstance(value, ConditionOptions) else condition_options(str(task)).model_validate(value)
    return choose_built_in(value)


def _joined(values: list[object]) -> dict[str, object]:
    """Several conditionings as one: captions beside channels, which has a pipeline of its own, or a hybrid one."""
    check(bool(values), "parts is empty; give the name of a conditioning, or a list of at least two")
    entries = [entry if isinstance(entry := named(value), Mapping) else {"type": None} for value in values]
    kinds = {entry.get("type"): {name: part for name, part in entry.items() if name != "type"} for entry in entries}
    beside = kinds.keys() - {"text-to-image"}
    if len(entries) == len(kinds) == 2 and len(beside) == 1 and beside <= {"inpaint", "super-resolution"}:
        name = beside.pop()
        return {**kinds[name], "type": name, "text": {"type": "text-to-image", **kinds["text-to-image"]}}
    return {"type": "hybrid", "parts": values}


if TYPE_CHECKING:
    Conditioning: TypeAlias = ConditionOptions
else:
    _Tagged = Annotated[_BuiltIn, Field(discriminator="type"), SerializeAsAny()]
    _Name = Literal[tuple(BUILT_IN)]
    Conditioning = Annotated[_Tagged, WrapValidator(_choose, json_schema_input_type=_Name | _Tagged | list[_Part])]
