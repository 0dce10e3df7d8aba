"""Classes on the command line: numbers, ranges of them, or names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from latentdiff.cli.batch.plan import MAX_IMAGES
from latentdiff.errors import InputError
from latentdiff.labels import class_number

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline

Label = int | str


def parse_label(text: str) -> Label:
    """A number if it is one, else a name."""
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else text


def parse_labels(texts: Sequence[str]) -> list[Label]:
    """The classes of numbers such as "7", inclusive ranges such as "0-999", and names; InputError if a range is empty.

    A class whose name is a number or a range is given by its number.
    """
    labels: list[Label] = []
    for text in texts:
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
        if match is None:
            labels.append(parse_label(text))
            continue
        first, last = int(match[1]), int(match[2])
        if not first <= last < first + MAX_IMAGES:
            raise InputError(f"class range {text!r} is given; it must be like 0-999, the smaller number first")
        labels += range(first, last + 1)
    return labels


def check_labels(pipe: DiffusionPipeline, labels: Sequence[Label]) -> None:
    """InputError unless a pipeline knows all classes."""
    config = pipe.class_embedder.config
    for label in labels:
        class_number(label, config.num_classes, config.class_names)
