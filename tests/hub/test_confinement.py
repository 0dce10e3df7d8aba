"""A model's folder can't reach out of itself, and loads whole or not at all, through every door."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from hostile import CONFIGS, WEIGHTS, make
from hostile_configs import NETWORKS, TEXT_ENCODER
from hostile_files import INDEX, LINKS, TOKENIZERS
from hostile_files import WEIGHTS as STORED
from watch import outcome

from latentdiff import DiffusionPipeline
from latentdiff.inspection.folder import describe_folder, load_folder
from latentdiff.inspection.model import describe_pipeline

pytestmark = pytest.mark.thorough

CASES = {**TEXT_ENCODER, **NETWORKS, **INDEX, **STORED, **LINKS, **TOKENIZERS}

# What is right, though it looks like a way out; all other cases have to be refused by from_pretrained.
RIGHT = {
    "a name of the hub",
    "a name that is a path",
    "another kind of model",
    "a decoder",
    "a scheduler of another class",
    "a first stage with a name that is a path",
    "a right table",
    "pickled weights beside the others",
    "a head more",
    "positions more",
    "under older names",
    "a link within the folder",
    "vocabulary of files elsewhere",
    "a tokenizer's name",
    "nothing that fills up",
    "the special tokens' file elsewhere",
    "a template of chats",
    "an endless expression of a tokenizer with rules of its own",
    "rules of the file",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and beside it a model that it must not read."""
    return make(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def original(place):
    return DiffusionPipeline.from_pretrained(place[0])


def same(pipe, original):
    """Whether all tensors and tokens are those of the original."""
    for name in WEIGHTS:
        left, right = getattr(pipe, name).state_dict(), getattr(original, name).state_dict()
        if left.keys() != right.keys() or not all(torch.equal(tensor, right[key]) for key, tensor in left.items()):
            return False
    return pipe.tokenizer.get_vocab() == original.tokenizer.get_vocab()


def converted(folder):
    """What a conversion of a folder reads, tensor by tensor."""
    model = describe_folder(str(folder), None)
    for name, weights in model.weights.items():
        state = {key: weights.read(key) for key in weights.infos}
        model.components[name].load_state_dict(state, assign=True)
    return SimpleNamespace(**model.components)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_is_refused_in_one_line_or_loads_right(name, place, original, tmp_path):
    model = shutil.copytree(place[0], tmp_path / "model")
    outside = shutil.copytree(place[1], tmp_path / "outside")
    CASES[name](model, outside)
    for door in (DiffusionPipeline.from_pretrained, lambda folder: load_folder(str(folder), None), converted):
        result = outcome(lambda door=door: door(model), model)
        if isinstance(result, str):
            assert "\n" not in result and len(result) < 2100 and str(tmp_path) in result
        else:
            assert same(result, original)
        assert isinstance(result, str) != (name in RIGHT), result
    told = outcome(lambda: describe_pipeline(str(model)), model)
    assert not isinstance(told, str) or "\n" not in told
    assert not (place[0].parent / "mark").exists()


def test_the_good_model_loads_through_every_door(place, original):
    assert same(load_folder(str(place[0]), None), original)
    assert set(CONFIGS) <= describe_pipeline(str(place[0]))["components"].keys()
