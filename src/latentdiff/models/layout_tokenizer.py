"""Objects in boxes as tokens (section 4.3.1 of the paper), in the form that taming-transformers gave them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from torch import Tensor

from latentdiff.errors import ConfigError, InputError
from latentdiff.io.boxes import WHOLE, Corners, mirror, overlap, parse_box
from latentdiff.labels import check_class_names, class_number
from latentdiff.registry import nearest

# What Open Images says of an object, and by how many times the number of classes it raises the object's token.
FLAGS = {"group": 1, "occluded": 2, "depiction": 4, "inside": 8}


class LayoutTokenizer(ConfigMixin):  # type: ignore[misc]
    """Turns objects into a sequence of token ids, and back.

    Three tokens stand for an object: its class (and flags), its top left and its bottom right corner, each a point of a
    grid of isqrt(num_tokens) rows and columns. Unused places hold the token `num_tokens - 1`. The crop's two corners
    come last. An object is a dictionary with "class", a name or number, "box", and optional flags, each True or False.

    Args:
        num_classes: Number of classes; by default as many as there are names.
        class_names: The name of each class, in order.
        num_tokens: Size of the vocabulary.
        max_objects: Objects in a sequence.
        flags: Which flags the model knows, of "group", "occluded", "depiction" and "inside".
        encode_crop: Whether the sequence ends with the crop; else boxes are relative to the crop.

    Raises:
        ConfigError: If a number is not positive, there are too few tokens for the classes, names are not one for each
            class, or a flag is unknown.
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
            if flag not in FLAGS:
                raise ConfigError(f"unknown flag {flag!r}; {nearest(flag, FLAGS)}")
        self.num_classes, self.class_names = num_classes, class_names
        self.max_objects, self.encode_crop = max_objects, encode_crop
        self.flags = {flag: factor for flag, factor in FLAGS.items() if flag in flags}
        self.none, self.last = num_tokens - 1, math.isqrt(num_tokens) - 1
        objects = num_classes * (1 + sum(self.flags.values()))
        if objects > self.none or self.last < 1:
            raise ConfigError(f"num_tokens is {num_tokens}; {num_classes} classes with these flags need {objects + 1}")

    @property
    def length(self) -> int:
        """Tokens in a sequence."""
        return 3 * self.max_objects + 2 * self.encode_crop

    def __call__(
        self,
        layouts: Any,
        *,
        box_format: str = "xywh",
        image_size: tuple[int, int] | None = None,
        crop: Any = None,
        flip: bool = False,
    ) -> Tensor:
        """Token ids (B, length) of one or several layouts; `[[]] * B` gives the empty ones for guidance.

        Args:
            layouts: A list of objects, or a list of such lists.
            box_format: Of all boxes: "xywh" is left, top, width and height, "xyxy" is left, top, right and bottom.
            image_size: Height and width of the image if boxes are in pixels; None if they are relative to it.
            crop: The box of the image that is shown, all of it by default. Objects outside it are left out.
            flip: Whether the image is flipped from left to right.

        Raises:
            InputError: If a class, box or flag is not valid, or there are more objects than fit.
        """
        area = WHOLE if crop is None else parse_box(crop, box_format, image_size, name="crop")
        rows = []
        for number, layout in enumerate(_as_batch(layouts)):
            objects: list[list[int]] = []
            for place, item in enumerate(layout):
                name = f"object {place} of layout {number}"
                kind = self._object_token(item, name)
                box = parse_box(item["box"], box_format, image_size, name=f"box of {name}")
                if overlap(box, area):
                    box = box if self.encode_crop else _relative(box, area)
                    objects.append([kind, *self._points(mirror(box) if flip else box)])
            free = self.max_objects - len(objects)
            if free < 0:
                given = f"layout {number} has {len(objects)} objects, the model takes {self.max_objects}"
                raise InputError(f"{given}; leave {-free} out")
            shown = self._points(mirror(area) if flip else area) if self.encode_crop else []
            rows.append([*(token for item in objects for token in item), *[self.none] * (3 * free), *shown])
        return torch.tensor(rows)

    def decode(self, ids: Tensor) -> list[list[dict[str, Any]]]:
        """The objects of token ids (B, length): "class" (a name if there are any), "box" (relative xywh), flags if set.

        Raises:
            InputError: If shape, dtype or ids are not those of a layout.
        """
        if ids.ndim != 2 or ids.shape[1] != self.length or ids.is_floating_point():
            raise InputError(f"ids are {ids.dtype} of shape {tuple(ids.shape)}; give int64 (B, {self.length})")
        layouts = []
        for row in ids.tolist():
            triples = [row[start : start + 3] for start in range(0, 3 * self.max_objects, 3)]
            layouts.append([self._object(*triple) for triple in triples if triple[0] != self.none])
        return layouts

    def _object_token(self, item: Mapping[str, Any], name: str) -> int:
        for key in item:
            if key in FLAGS and key not in self.flags:
                raise InputError(f"{name} has the flag {key!r}, which this model doesn't know; leave it out")
            if key not in ("class", "box", *FLAGS):
                raise InputError(f"{name} has {key!r}; {nearest(key, ['class', 'box', *self.flags])}")
        for key in ("class", "box"):
            if key not in item:
                raise InputError(f"{name} has no {key!r}; give {{'class': ..., 'box': ...}}")
        factor = 0
        for flag, bit in self.flags.items():
            if item.get(flag, False) not in (True, False):
                raise InputError(f"{name} has {item[flag]!r} as {flag!r}; give True or False")
            factor |= bit * bool(item.get(flag, False))
        return class_number(item["class"], self.num_classes, self.class_names) + self.num_classes * factor

    def _points(self, box: Corners) -> list[int]:
        """The tokens of a box's corners; halves of a grid cell go to the even side, as Python rounds."""
        x0, y0, x1, y1 = (round(value * self.last) for value in box)
        columns = self.last + 1
        return [y0 * columns + x0, y1 * columns + x1]

    def _object(self, kind: int, first: int, second: int) -> dict[str, Any]:
        factor, number = divmod(kind, self.num_classes)
        columns = self.last + 1
        known = sum(self.flags.values())
        if kind < 0 or factor & ~known or not all(0 <= point < columns**2 for point in (first, second)):
            raise InputError(f"ids {kind}, {first}, {second} are no object of this model; give what it was trained on")
        (y0, x0), (y1, x1) = divmod(first, columns), divmod(second, columns)
        box = (x0 / self.last, y0 / self.last, (x1 - x0) / self.last, (y1 - y0) / self.last)
        flags = {flag: True for flag, bit in self.flags.items() if factor & bit}
        return {"class": number if self.class_names is None else self.class_names[number], "box": box, **flags}

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the configuration into a folder."""
        self.save_config(save_directory)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """Load from a folder or the hub; `kwargs` are those of diffusers' `load_config`, such as `subfolder`."""
        return cls.from_config(cls.load_config(pretrained_model_name_or_path, **kwargs))


def _as_batch(layouts: Any) -> Sequence[Sequence[Mapping[str, Any]]]:
    """One list of objects, or a list of such lists, as the latter; no objects are one empty layout."""
    if isinstance(layouts, (list, tuple)):
        batch = [layouts] if all(isinstance(item, Mapping) for item in layouts) else layouts
        if all(isinstance(row, (list, tuple)) and all(isinstance(item, Mapping) for item in row) for row in batch):
            return batch
    given = f"layouts are a {type(layouts).__name__}"
    raise InputError(f"{given}; give a list of objects {{'class': ..., 'box': ...}}, or a list of such lists")


def _relative(box: Corners, area: Corners) -> Corners:
    """A box relative to the crop, as the original has it: cut at the left, it is moved rather than clipped."""
    left, top, right, bottom = area
    width, height = right - left, bottom - top
    x, y = max(0.0, (box[0] - left) / width), max(0.0, (box[1] - top) / height)
    return x, y, x + min((box[2] - box[0]) / width, 1 - x), y + min((box[3] - box[1]) / height, 1 - y)
