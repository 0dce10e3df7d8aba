"""Classes on the command line: a word is the name of a class first, else a number, and a range is one of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentdiff.cli.batch.plan import MAX_IMAGES
from latentdiff.errors import InputError
from latentdiff.labels import class_number, is_number, value_of

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline

Label = int | str
"""A class as pipelines take it: its number, or its name."""


@dataclass(frozen=True)
class GivenLabel:
    """A class as a user gave it, of which the model is needed to say what it means.

    Attributes:
        text: A name or a number.
        range: The range that it is in; None for one given by itself.
    """

    text: str
    range: str | None = None

    @property
    def name(self) -> str:
        """What files are named after."""
        return f"class {self.text}" if is_number(self.text) else self.text


def parse_labels(texts: Sequence[str]) -> list[GivenLabel]:
    """The classes of names, numbers such as "7", and ranges with both ends, "0-999"; InputError for an empty one."""
    labels: list[GivenLabel] = []
    for text in texts:
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
        if match is None:
            labels.append(GivenLabel(text))
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + MAX_IMAGES:
            raise InputError(f"class range {text!r} is given; it must be like 0-999, the smaller number first")
        labels += [GivenLabel(str(number), text) for number in range(first, last + 1)]
    return labels


def resolve_label(pipe: DiffusionPipeline, label: GivenLabel) -> Label:
    """The class that a user means, by its name if it has one, else by its number.

    Raises:
        InputError: If the pipeline has no such class, or the text may mean two of them: a number in a range that is the
            name of another class, a number where the names of other classes are numbers, or a range that is a name.
    """
    config = pipe.class_embedder.config
    names: Sequence[str] = config.class_names or ()
    text = label.text
    if label.range in names:
        raise InputError(
            f"class {label.range!r} is the name of class number {names.index(label.range)}, and a range of numbers; "
            "give that number, or the numbers of the range one by one"
        )
    if not is_number(text) or (text in names and label.range is None):
        class_number(text, config.num_classes, config.class_names)
        return text
    number = class_number(int(text), config.num_classes, config.class_names)
    called = names[number] if number < len(names) else None
    if text in names and called != text:
        raise InputError(
            f"class range {label.range!r} is given, but {text!r} is the name of class number {names.index(text)}, and "
            f"class number {text} is called {called!r}; give names one by one"
        )
    numbered = any(value_of(name) is not None for name in names)
    if numbered and called is not None and value_of(called) != number:
        raise InputError(
            f"class {text!r} is given, but no class has this name, and class number {text} is called {called!r}; "
            "give the name of the class"
        )
    other = next((name for place, name in enumerate(names) if place != number and _number_in(name) == number), None)
    if other is not None and _number_in(called or "") != number:
        raise InputError(
            f"class {text!r} is given, which may be {other!r}, or class number {text}, called {called!r}; give the name"
        )
    return number


def _number_in(name: str) -> int | None:
    """The number in a name such as "class 2"; None for a name without one, or with several."""
    found = re.findall(r"\d{1,18}", name)
    return int(found[0]) if len(found) == 1 else None


def all_labels(pipe: DiffusionPipeline) -> list[Label]:
    """All classes of a pipeline but the null class: by number, or by name where names may be taken for numbers."""
    config = pipe.class_embedder.config
    names: Sequence[str] = config.class_names or ()
    numbers = [number for number in range(config.num_classes) if number != config.null_class]
    if any(value_of(name) is not None for name in names):
        return [names[number] if number < len(names) else number for number in numbers]
    return list(numbers)
