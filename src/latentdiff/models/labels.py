"""Classes as users name them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.registry import nearest

Labels = int | str | Sequence[int | str] | Tensor


def label_ids(labels: Labels, num_classes: int, class_names: Sequence[str] | None = None) -> Tensor:
    """Labels or class names, one or several, as int64 (N,) on the CPU.

    Args:
        labels: Numbers from 0 to `num_classes` - 1, names, or an integer tensor (N,).
        num_classes: Number of classes.
        class_names: Their names, if they have any.

    Raises:
        InputError: On a label that is out of range, a name that is unknown, or no label at all.
    """
    values = labels.tolist() if hasattr(labels, "tolist") else labels
    given = list(values) if isinstance(values, (list, tuple)) else [values]
    if not given:
        raise InputError("no label is given; give at least one")
    numbers = {name: number for number, name in enumerate(class_names or ())}
    for label in given:
        if isinstance(label, str) and label not in numbers:
            known = nearest(label, numbers) if numbers else f"the model knows numbers only, 0 to {num_classes - 1}"
            raise InputError(f"unknown class {label!r}; {known}")
        if not isinstance(label, str) and (type(label) is not int or not 0 <= label < num_classes):
            raise InputError(f"label {label!r} is given; labels are whole numbers from 0 to {num_classes - 1}")
    return torch.tensor([numbers[label] if isinstance(label, str) else label for label in given])
