"""The tokenizer of layouts, objects in boxes (section 4.3.1 of the paper), in the format of taming-transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor

from latentdiff.errors import ConfigError, InputError
from latentdiff.io.boxes import WHOLE, Corners, mirror, overlap, parse_box
from latentdiff.labels import check_class_names, class_number
from latentdiff.registry import nearest
from latentdiff.types import JSON

# The attributes of objects in Open Images. The token of an object with flags is its class number, plus the number of
# classes times the sum of the flags' values.
OBJECT_FLAGS = {"group": 1, "occluded": 2, "depiction": 4, "inside": 8}


class LayoutTokenizer(ConfigMixin):  # type: ignore[misc]
    """Turns layouts into sequences of token ids, and back.

    A layout is a list of objects. An object is a dictionary with "class", a name or number, "box", and optional flags,
    each True or False. Three tokens stand for it: its class (and flags), its top left and its bottom right corner, each
    a point of a grid of isqrt(num_tokens) rows and columns. The rest of the sequence is padded with the token
    `num_tokens - 1`. The two corners of the crop come last.

    Args:
        num_classes: Number of classes; by default the number of names.
        class_names: The name of each class, in order; None if classes have numbers only.
        num_tokens: Size of the vocabulary.
        max_objects: Largest number of objects in a layout.
        flags: The flags that the model knows, of "group", "occluded", "depiction" and "inside".
        encode_crop: Whether the sequence ends with the crop. If not, boxes are relative to the crop.

    Raises:
        ConfigError: If a number is not positive, there are too few tokens for the classes, there isn't one name for
            each class, or a flag is unknown.
    """

    config_name = "tokenizer_config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        *,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        num_tokens: int = 8192,
        max_objects: int = 30,
        flags: Sequence[str] = ("group",),
        encode_crop: bool = True,
    ) -> None:
        if num_classes is None and class_names is not None:
            num_classes = len(class_names)
            self.register_to_config(num_classes=num_classes)
        for name, value in (("num_classes", num_classes), ("num_tokens", num_tokens), ("max_objects", max_objects)):
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; it must be a positive integer")
        assert num_classes is not None
        check_class_names(class_names, num_classes)
        for flag in flags:
            if flag not in OBJECT_FLAGS:
                raise ConfigError(f"unknown flag {flag!r}; {nearest(flag, OBJECT_FLAGS)}")
        self.num_classes, self.class_names = num_classes, class_names
        self.max_objects, self.encode_crop = max_objects, encode_crop
        self.flags = {flag: factor for flag, factor in OBJECT_FLAGS.items() if flag in flags}
        self.padding_token, self.grid_size = num_tokens - 1, math.isqrt(num_tokens)
        objects = num_classes * (1 + sum(self.flags.values()))
        if objects > self.padding_token or self.grid_size < 2:
            raise ConfigError(f"num_tokens is {num_tokens}; {num_classes} classes with these flags need {objects + 1}")

    @property
    def length(self) -> int:
        """The number of tokens in a sequence."""
        return 3 * self.max_objects + (2 if self.encode_crop else 0)

    def __call__(
        self,
        layouts: object,
        *,
        box_format: str = "xywh",
        image_size: tuple[int, int] | None = None,
        crop: Sequence[float] | None = None,
        flip: bool = False,
    ) -> Tensor:
        """Token ids (B, length), int64, of one or several layouts; `[[]] * B` gives the empty ones for guidance.

        Args:
            layouts: A list of objects, or a list of such lists.
            box_format: The format of all boxes: "xywh" is left, top, width and height, "xyxy" is left, top, right and
                bottom.
            image_size: Height and width of the image if boxes are in pixels; None if they are relative to it.
            crop: The box of the image that is shown, by default all of it. Objects outside it are left out.
            flip: Whether the image is flipped from left to right.

        Raises:
            InputError: If a class, box or flag is not valid, or a layout has more than `max_objects` objects.
        """
        area = WHOLE if crop is None else parse_box(crop, box_format, image_size, name="crop")
        rows = []
        for number, layout in enumerate(_as_batch(layouts)):
            tokens: list[int] = []
            for place, item in enumerate(layout):
                name = f"object {place} of layout {number}"
                kind = self._object_token(item, name)
                box = parse_box(item["box"], box_format, image_size, name=f"box of {name}")
                if overlap(box, area):
                    box = box if self.encode_crop else _relative(box, area)
                    tokens += [kind, *self._corner_tokens(mirror(box) if flip else box)]
            free = 3 * self.max_objects - len(tokens)
            if free < 0:
                given = f"layout {number} has {len(tokens) // 3} objects, the model takes {self.max_objects}"
                raise InputError(f"{given}; leave {-free // 3} out")
            tokens += [self.padding_token] * free
            if self.encode_crop:
                tokens += self._corner_tokens(mirror(area) if flip else area)
            rows.append(tokens)
        return torch.tensor(rows)

    def decode(self, ids: Tensor) -> list[list[JSON]]:
        """The layouts that token ids (B, length) stand for.

        Objects have their "class", a name if the classes have names, their "box", relative xywh, and the flags that
        are set.

        Raises:
            InputError: If shape, dtype or ids are not those of a layout.
        """
        if ids.ndim != 2 or ids.shape[1] != self.length or ids.is_floating_point():
            raise InputError(f"ids are {ids.dtype} of shape {tuple(ids.shape)}; give int64 (B, {self.length})")
        layouts = []
        for row in ids.tolist():
            triples = [row[start : start + 3] for start in range(0, 3 * self.max_objects, 3)]
            layouts.append([self._object(*triple) for triple in triples if triple[0] != self.padding_token])
        return layouts

    def _object_token(self, item: Mapping[str, object], name: str) -> int:
        """The token of an object's class and flags; `name` is what errors call the object."""
        for key in item:
            if key in OBJECT_FLAGS and key not in self.flags:
                raise InputError(f"{name} has the flag {key!r}, which this model doesn't know; leave it out")
            if key not in ("class", "box", *OBJECT_FLAGS):
                raise InputError(f"{name} has {key!r}; {nearest(key, ['class', 'box', *self.flags])}")
        for key in ("class", "box"):
            if key not in item:
                raise InputError(f"{name} has no {key!r}; give {{'class': ..., 'box': ...}}")
        flags = 0
        for flag, bit in self.flags.items():
            if item.get(flag, False) not in (True, False):
                raise InputError(f"{name} has {item[flag]!r} as {flag!r}; give True or False")
            if item.get(flag, False):
                flags |= bit
        return class_number(item["class"], self.num_classes, self.class_names) + self.num_classes * flags

    def _corner_tokens(self, box: Corners) -> list[int]:
        """The tokens of a box's corners; a point between two of the grid goes to the even one, as Python rounds."""
        x0, y0, x1, y1 = (round(value * (self.grid_size - 1)) for value in box)
        return [y0 * self.grid_size + x0, y1 * self.grid_size + x1]

    def _object(self, kind: int, first: int, second: int) -> JSON:
        """The object that three tokens stand for: its class and flags, and its two corners."""
        flags, number = divmod(kind, self.num_classes)
        known = sum(self.flags.values())
        if kind < 0 or flags & ~known or not all(0 <= point < self.grid_size**2 for point in (first, second)):
            raise InputError(f"ids {kind}, {first}, {second} are not an object of this model; give ids of its layouts")
        (y0, x0), (y1, x1), last = divmod(first, self.grid_size), divmod(second, self.grid_size), self.grid_size - 1
        box = (x0 / last, y0 / last, (x1 - x0) / last, (y1 - y0) / last)
        named = {flag: True for flag, bit in self.flags.items() if flags & bit}
        return {"class": number if self.class_names is None else self.class_names[number], "box": box, **named}

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the configuration into a folder."""
        self.save_config(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: object) -> LayoutTokenizer:
        """Load from a folder or the hub; `kwargs` are those of diffusers' `load_config`, such as `subfolder`."""
        tokenizer: LayoutTokenizer = cls.from_config(cls.load_config(pretrained_model_name_or_path, **kwargs))
        return tokenizer


def _as_batch(layouts: object) -> Sequence[Sequence[Mapping[str, object]]]:
    """A list of layouts, from one layout or a list of them; an empty list is one empty layout."""
    if isinstance(layouts, (list, tuple)):
        batch = [layouts] if all(isinstance(item, Mapping) for item in layouts) else layouts
        if all(isinstance(row, (list, tuple)) and all(isinstance(item, Mapping) for item in row) for row in batch):
            return batch
    given = f"layouts are a {type(layouts).__name__}"
    raise InputError(f"{given}; give a list of objects {{'class': ..., 'box': ...}}, or a list of such lists")


def _relative(box: Corners, area: Corners) -> Corners:
    """A box relative to the crop, as in the original code: one that begins outside the crop is moved, not clipped."""
    left, top, right, bottom = area
    width, height = right - left, bottom - top
    x, y = max(0.0, (box[0] - left) / width), max(0.0, (box[1] - top) / height)
    return x, y, x + min((box[2] - box[0]) / width, 1 - x), y + min((box[3] - box[1]) / height, 1 - y)
