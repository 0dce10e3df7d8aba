"""What a class on the command line means: its name first, else its number; what may be two classes is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_class_to_image

from latentdiff import DiffusionPipeline, InputError
from latentdiff.cli.commands.labels import GivenLabel, all_labels, parse_labels, resolve_label
from latentdiff.data.images import ImageFolder
from latentdiff.io.generated import read_parameters
from latentdiff.labels import sorted_names
from latentdiff.models.class_embedder import ClassEmbedder

FROM_0 = [str(number) for number in range(12)]
FROM_1 = [str(number) for number in range(1, 13)]
PADDED = [f"{number:03}" for number in range(12)]
UNSORTED = ["0", "1", "10", "11", "2"]  # as text is sorted
WORDS = ["cat", "dog", "crane", "crane", "0-1"]


def pipe_of(names, null=False):
    count = 12 if names is None else len(names)
    config = {"num_classes": count + null, "class_names": names, "null_class": count if null else None}
    return SimpleNamespace(class_embedder=SimpleNamespace(config=SimpleNamespace(**config)))


def meant(names, *texts, null=False):
    return [resolve_label(pipe_of(names, null), label) for label in parse_labels(texts)]


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (None, "2", [2]),
        (None, "02", [2]),
        (None, "9-11", [9, 10, 11]),
        (WORDS, "dog", ["dog"]),
        (WORDS, "1", [1]),
        (WORDS, "1-2", [1, 2]),
        (FROM_0, "2", ["2"]),
        (FROM_0, "10", ["10"]),
        (FROM_0, "9-11", [9, 10, 11]),
        (FROM_1, "2", ["2"]),
        (FROM_1, "12", ["12"]),
        (PADDED, "011", ["011"]),
        (PADDED, "11", [11]),
        (PADDED, "1-2", [1, 2]),
        (UNSORTED, "2", ["2"]),
        (UNSORTED, "10", ["10"]),
        (UNSORTED, "0-1", [0, 1]),
    ],
)
def test_a_word_is_a_name_first(names, text, expected):
    assert meant(names, text) == expected


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (FROM_1, "0", "class '0' is given, but no class has this name, and class number 0 is called '1'"),
        (
            FROM_1,
            "1-3",
            "class range '1-3' is given, but '1' is the name of class number 0, and class number 1 is called",
        ),
        (FROM_1, "0-3", "class '0' is given, but no class has this name, and class number 0 is called '1'"),
        (UNSORTED, "1-2", "'2' is the name of class number 4, and class number 2 is called '10'"),
        (UNSORTED, "3", "no class has this name, and class number 3 is called '11'"),
        (WORDS, "0-1", "class '0-1' is the name of class number 4, and a range of numbers"),
        (WORDS, "crane", "class 'crane' is the name of classes 2 and 3; give a number"),
        (WORDS, "dgo", "unknown class 'dgo'; did you mean 'dog'"),
        (WORDS, "5", "class 5 is given; allowed"),
        (None, "12", "class 12 is given; allowed"),
        (None, "3-1", "class range '3-1' is given"),
    ],
)
def test_what_may_be_two_classes_is_refused(names, text, message):
    with pytest.raises(InputError, match=message):
        meant(names, text)


@pytest.mark.parametrize("names", [None, WORDS, FROM_0, FROM_1, PADDED, UNSORTED])
def test_all_labels_can_be_given_again(names):
    """The names of files record them, and `latentdiff info` gives the command."""
    pipe = pipe_of(names, null=True)
    labels = all_labels(pipe)
    numbers = [label if isinstance(label, int) else names.index(label) for label in labels]
    assert numbers == list(range(12 if names is None else len(names)))
    for label in labels:
        again = resolve_label(pipe, GivenLabel(str(label)))
        assert again == label or names[again] == label


def test_the_null_class_has_a_number_alone():
    assert meant(FROM_0, "12", null=True) == [12]


def test_classes_called_by_numbers_are_sorted_by_value(tmp_path):
    for names in (FROM_0, FROM_1, PADDED):
        for name in names:
            path = tmp_path / names[-1] / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(path)
        images = ImageFolder(tmp_path / names[-1], 8)
        assert images.class_names == names and sorted(images.labels) == list(range(12))
    assert sorted_names(["10", "9", "x"]) == ["10", "9", "x"] and sorted_names(["2", "02", "1"]) == ["1", "02", "2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model whose classes look different, with names from 1 to 5."""
    folder = tiny_class_to_image(tmp_path_factory.mktemp("model"))
    pipe = DiffusionPipeline.from_pretrained(folder)
    config = dict(pipe.class_embedder.config)
    torch.manual_seed(0)
    embedder = ClassEmbedder(
        num_classes=config["num_classes"],
        embed_dim=config["embed_dim"],
        null_class=config["null_class"],
        class_names=FROM_1[: len(config["class_names"])],
    )
    pipe.register_modules(class_embedder=embedder)
    pipe.save_pretrained(folder)
    return folder


@pytest.mark.thorough
def test_each_command_makes_the_class_of_that_name(run, model, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    options = ("--model", model, "--seed", 0, "--steps", 2)
    expected = np.asarray(pipe("2", num_inference_steps=2, seed=0).images[0])
    assert not np.array_equal(expected, np.asarray(pipe(2, num_inference_steps=2, seed=0).images[0]))
    assert run("class", "2", *options, "-o", "a.png")[0] == 0
    assert run("sample", "--label", "2", *options, "-n", 1, "-o", "b.png")[0] == 0
    for name in ("a.png", "b.png"):
        assert np.array_equal(np.asarray(Image.open(name)), expected)
        assert read_parameters(name)["label"] == "2"
    assert run("img2img", "a.png", "--label", "2", *options, "-o", "c.png")[0] == 0
    assert read_parameters("c.png")["label"] == "2"
    for command in (("class", "0"), ("sample", "--label", "0-1"), ("img2img", "a.png", "--label", "0")):
        code, _, err = run(*command, *options, "-o", "d.png")
        assert code == 2 and "class number 0 is called '1'" in err[-1]


COUNTED = ["class 1", "class 2", "class 10"]  # in the order of words


@pytest.mark.parametrize(("names", "text"), [(COUNTED, "1"), (COUNTED, "2"), (COUNTED, "0-2"), (["1.0", "2.0"], "1")])
def test_a_number_in_the_name_of_another_class_is_refused(names, text):
    with pytest.raises(InputError, match="give the name"):
        meant(names, text)


@pytest.mark.parametrize(
    ("names", "text", "expected"),
    [
        (COUNTED, "0", [0]),
        (COUNTED, "class 2", ["class 2"]),
        (["class 0", "class 1"], "1", [1]),
        (["0.0", "1.0"], "1", [1]),
        (["-1", "0", "1"], "1", ["1"]),
        (["737-300", "A1 of 2", "cat"], "2", [2]),
    ],
)
def test_a_number_that_no_other_name_has_is_a_number(names, text, expected):
    assert meant(names, text) == expected
