"""The two-way map between a component's tensors and those of an original checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentdiff.conversion.rules import Rules

Shapes = Mapping[str, tuple[int, ...]]
"""The shapes of tensors by their names."""


@dataclass(frozen=True)
class Place:
    """The place of one of our tensors in the original checkpoint.

    Attributes:
        key: The name of the original's tensor.
        shape: The shape of the original's tensor.
        part: The number of our tensor among those that are joined there; None if the original's tensor is ours alone.
        parts: The number of tensors that are joined.
        heads: The number of attention heads that the joined rows run over first.
    """

    key: str
    shape: tuple[int, ...]
    part: int | None = None
    parts: int = 1
    heads: int = 1


class TensorMap:
    """The map of one component, made from its own parameter names.

    Args:
        model: The component; its tensors may be on the meta device.
        rules: The rules of components of its kind.
        prefix: The prefix of all its names in the original checkpoint.

    Attributes:
        shapes: The shapes of our tensors.
        places: The place of each of our tensors in the original.
        sources: The original's names, with the names of our tensors that are made from each.
    """

    def __init__(self, model: nn.Module, rules: Rules, prefix: str) -> None:
        self.shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        self.places = {name: _place(model, rules, prefix, name, shape) for name, shape in self.shapes.items()}
        self.sources: dict[str, list[str]] = {}
        for name, place in self.places.items():
            self.sources.setdefault(place.key, []).append(name)

    @property
    def original_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the original's tensors that the component is made from."""
        return {place.key: place.shape for place in self.places.values()}

    def to_ours(self, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Our names and tensors, one after the other, made from the original's, each of which is read once."""
        for key in self.sources:
            yield from self.parts_of(key, read).items()

    def parts_of(self, key: str, read: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Our names and tensors that are made from one of the original's."""
        tensor = read(key)
        return {name: _cut(tensor, self.places[name]).reshape(self.shapes[name]) for name in self.sources[key]}

    def to_original(self, read: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The original's names and tensors, one after the other, made from ours."""
        for key, names in self.sources.items():
            place = self.places[names[0]]
            if place.part is None:
                yield key, read(names[0]).reshape(place.shape)
            else:
                ordered = sorted(names, key=lambda name: self.places[name].part or 0)
                parts = [_split_rows(read(name), place.heads) for name in ordered]
                yield key, torch.stack(parts, dim=1).reshape(place.shape)


def _place(model: nn.Module, rules: Rules, prefix: str, name: str, shape: tuple[int, ...]) -> Place:
    """The place of our tensor `name`, of shape `shape`."""
    key = prefix + rules.original_name(name)
    part, parts, heads = None, 1, 1
    if rules.joined is not None:
        for index, piece in enumerate(rules.joined.parts):
            if piece in key:
                key = key.replace(piece, rules.joined.original)
                part, parts = index, len(rules.joined.parts)
                if rules.joined.per_head:
                    attention = model.get_submodule(name.rsplit(".", 2)[0])
                    heads = getattr(attention, "heads")  # noqa: B009 (its class is one of several)
                shape = (parts * shape[0], *shape[1:])
    if rules.trailing is not None and re.search(rules.trailing[0], key):
        shape += (1,) * rules.trailing[1]
    return Place(key, shape, part, parts, heads)


def _cut(tensor: Tensor, place: Place) -> Tensor:
    """The part of a joined tensor that is ours, or the tensor itself if nothing is joined."""
    if place.part is None:
        return tensor
    return _split_rows(tensor, place.heads, place.parts)[:, place.part].flatten(0, 1)


def _split_rows(tensor: Tensor, *sizes: int) -> Tensor:
    """Reshape (n, ...) to (*sizes, n / product of sizes, ...)."""
    return tensor.reshape(*sizes, -1, *tensor.shape[1:])
