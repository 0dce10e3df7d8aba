import json

import numpy as np
import pytest
from PIL import Image
from small_features import SmallFeatures
from tiny import RESOLUTION, tiny_class_to_image, tiny_text_to_image, tiny_unconditional

from latentdiff import DiffusionPipeline
from latentdiff.bench import flops
from latentdiff.registry import FEATURE_EXTRACTORS

CAPTIONS = ["a red apple", "a blue star", "the dog", "a small cat", "a green pear"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small matrices in place of those by which a machine is measured, and the tests' features by name."""
    monkeypatch.setattr(flops, "SIDES", (16, 32))
    monkeypatch.setattr(flops, "CHANNELS", (2, 4))
    monkeypatch.setitem(FEATURE_EXTRACTORS._entries, "small", SmallFeatures)


def loaded(folder):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    return tiny_text_to_image(tmp_path_factory.mktemp("model"))


@pytest.fixture
def text_pipe(text_folder):
    return loaded(text_folder)


@pytest.fixture(scope="session")
def class_folder(tmp_path_factory):
    return tiny_class_to_image(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory):
    return tiny_unconditional(tmp_path_factory.mktemp("model"))


@pytest.fixture
def plain_pipe(plain_folder):
    return loaded(plain_folder)


@pytest.fixture
def make_reference(tmp_path):
    """Makes a folder of images of noise, with captions or what else `rows` has for each."""

    def make(name="train", count=5, size=RESOLUTION, rows=None):
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(2)
        for number in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        rows = [{"text": text} for text in CAPTIONS[:count]] if rows is None else rows
        lines = [json.dumps({"file_name": f"{number}.png", **row}) for number, row in enumerate(rows)]
        if rows:
            (folder / "metadata.jsonl").write_text("\n".join(lines))
        return folder

    return make


@pytest.fixture
def reference(make_reference):
    return make_reference()
