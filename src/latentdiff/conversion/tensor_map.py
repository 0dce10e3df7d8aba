"""The two-way map between a component's tensors and those of an original checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from latentdiff.conversion.rules import Rules


@dataclass(frozen=True)
class Place:
    """Where one tensor of ours stands in the original.

    Attributes:
        key: The original's name.
        shape: The original's shape.
        part: Which of the joined projections it is; None if the original tensor is ours alone.
        parts: How many are joined.
        heads: Heads that the joined rows run over first.
    """

    key: str
    shape: tuple[int, ...]
    part: int | None = None
    parts: int = 1
    heads: int = 1


class TensorMap:
    """The map of one component, made of its own parameter names.

    Args:
        model: The component; its tensors may be on the meta device.
        rules: Of its kind.
        prefix: What all its names start with in the original.
    """

    def __init__(self, model: nn.Module, rules: Rules, prefix: str) -> None:
        self.shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        self.places = {name: _place(model, rules, prefix, name, shape) for name, shape in self.shapes.items()}
        self.sources: dict[str, list[str]] = {}
        for name, place in self.places.items():
            self.sources.setdefault(place.key, []).append(name)

    @property
    def original_shapes(self) -> dict[str, tuple[int, ...]]:
        """All tensors of the original that the component is made of."""
        return {place.key: place.shape for place in self.places.values()}

    def to_ours(self, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Our tensors, one after the other, out of the original's, each of which is read once."""
        for key, names in self.sources.items():
            tensor = read(key)
            for name in names:
                yield name, _cut(tensor, self.places[name]).reshape(self.shapes[name])

    def to_original(self, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The original's tensors, one after the other, out of ours."""
        for key, names in self.sources.items():
            place = self.places[names[0]]
            if place.part is None:
                yield key, read(names[0]).reshape(place.shape)
            else:
                ordered = sorted(names, key=lambda name: self.places[name].part or 0)
                parts = [_split_rows(read(name), place.heads) for name in ordered]
                yield key, torch.stack(parts, dim=1).reshape(place.shape)


def _place(model: nn.Module, rules: Rules, prefix: str, name: str, shape: tuple[int, ...]) -> Place:
    key = prefix + rules.original_name(name)
    part, parts, heads = None, 1, 1
    if rules.joined is not None:
        for index, piece in enumerate(rules.joined.parts):
            if piece in key:
                key = key.replace(piece, rules.joined.original)
                part, parts = index, len(rules.joined.parts)
                if rules.joined.per_head:
                    layer: Any = model.get_submodule(name.rsplit(".", 2)[0])
                    heads = layer.heads
                shape = (parts * shape[0], *shape[1:])
    if rules.trailing is not None and re.search(rules.trailing[0], key):
        shape += (1,) * rules.trailing[1]
    return Place(key, shape, part, parts, heads)


def _cut(tensor: Tensor, place: Place) -> Tensor:
    """The part of a joined tensor, or the tensor itself."""
    if place.part is None:
        return tensor
    return _split_rows(tensor, place.heads, place.parts)[:, place.part].flatten(0, 1)


def _split_rows(tensor: Tensor, *sizes: int) -> Tensor:
    """The rows of (n, ...) as (*sizes, rest, ...)."""
    return tensor.reshape(*sizes, -1, *tensor.shape[1:])
