"""Classes by name or number, and the messages about those that there aren't."""

import numpy as np
import pytest
import torch

from latentdiff.errors import ConfigError, InputError
from latentdiff.labels import check_class_names, class_number, sorted_names
from latentdiff.registry import MAX_LISTED, nearest

NAMES = ["cat", "dog", "crane", "Egyptian cat, Felis catus", "crane"]


@pytest.mark.parametrize("label", ["dog", 1, np.int64(1), np.uint8(1), torch.tensor(1)])
def test_names_and_integers(label):
    assert class_number(label, 5, NAMES) == 1
    if not isinstance(label, str):
        assert class_number(label, 2) == 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("dgo", r"unknown class 'dgo'; did you mean 'dog'\?"),
        ("DOG", r"unknown class 'DOG'; did you mean 'dog'\?"),
        ("Felis", r"unknown class 'Felis'; did you mean 'Egyptian cat, Felis catus'\?"),
        ("", "unknown class ''; known: Egyptian cat, Felis catus, cat, crane"),
        ("crane", "class 'crane' is the name of classes 2 and 4; give a number"),
        (5, "class 5 is given; allowed: a name or a number from 0 to 4"),
        (-1, "class -1 is given"),
        (True, "class True is given"),
        (1.0, "class 1.0 is a float; give a name or a number from 0 to 4"),
        (None, "class None is a NoneType"),
        (torch.tensor([1, 2]), "is a Tensor"),
    ],
)
def test_bad_labels(label, message):
    with pytest.raises(InputError, match=f"^{message}" if message.startswith("unk") else message):
        class_number(label, 5, NAMES)


def test_a_model_without_names():
    with pytest.raises(InputError, match="'dog' is given, but this model has no class names; give a number"):
        class_number("dog", 5)


def test_many_names_stay_one_short_line():
    message = nearest("???", [f"class {i:04}" for i in range(1000)])
    assert message.endswith(f"class {MAX_LISTED - 1:04} and {1000 - MAX_LISTED} more")


@pytest.mark.parametrize("names", ["cat", 3, ["a", "b"], ["a", "", "c"], ["a", 2, "c"], {"a": 0, "b": 1, "c": 2}])
def test_bad_class_names(names):
    with pytest.raises(ConfigError, match="class_names"):
        check_class_names(names, 3)


def test_good_class_names():
    check_class_names(None, 3)
    check_class_names(("a", "b", "b"), 3)


@pytest.mark.parametrize(
    "names",
    [
        ["0", "2", "10"],
        ["-1", "0", "1", "10"],
        ["0.0", "1.0", "2.0", "10.0"],
        ["5", "2e3", "1e4"],
        ["\u0661", "\u0662", "\u0661\u0660"],  # Arabic digits: 1, 2, 10
        ["01", "1", "2"],
        ["1", "10", "2", "two"],  # a word among them: all are words
        ["10 cats", "2 cats"],
        ["10", "2", "nan"],
    ],
)
def test_numbers_in_any_notation_are_sorted_by_value(names):
    assert sorted_names(reversed(names)) == names
