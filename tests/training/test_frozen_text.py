"""A text encoder that isn't trained: its states are computed once and are those that it would compute."""

import json

import pytest
import torch
import toy
from safetensors.torch import load_file
from tiny import tiny_text_to_image

from latentdiff import ConfigError, LDMTextEncoder
from latentdiff.seeding import SampleGenerators, array_generator
from latentdiff.training.data import open_training_images
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.conditioners.text import TextConditioner

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Each image has two captions."""
    folder = toy.write(tmp_path_factory.mktemp("data") / "images")
    rows = [{**row, "text": [row["text"], "a big dog"]} for row in toy.lines(folder)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return tiny_text_to_image(tmp_path_factory.mktemp("start"))


def options(start, **more):
    given = {
        "pretrained_model_name_or_path": str(start),
        "unet": {},
        "conditioning.text_encoder": {},
        "conditioning.vocabulary": None,
    }
    return {**given, "conditioning.train_text_encoder": False, **more}


def encoder_of(folder):
    return load_file(next((folder / "text_encoder").glob("*.safetensors")))


def test_it_stays_as_it_is_and_what_it_says_is_kept(data, start, tmp_path, monkeypatch):
    output = toy.train("text-to-image", data, None, tmp_path, **options(start))
    old, new = encoder_of(start), encoder_of(output / "pipeline")
    assert all(torch.equal(old[name], new[name]) for name in old)
    assert not any("text_encoder" in name for name in load_file(output / "checkpoint-4" / "model.safetensors"))
    (cache,) = (output / "captions").iterdir()
    stamp = cache.stat().st_mtime_ns
    calls = []
    monkeypatch.setattr(LDMTextEncoder, "forward", _counted(LDMTextEncoder.forward, calls))
    toy.train(
        "text-to-image", data, None, tmp_path, **options(start, resume_from_checkpoint="latest", max_train_steps=6)
    )
    assert cache.stat().st_mtime_ns == stamp and calls == [1]  # the empty caption's


def _counted(forward, calls):
    def wrapped(self, ids, *args, **kwargs):
        calls.append(len(ids))
        return forward(self, ids, *args, **kwargs)

    return wrapped


def test_trained_it_changes_and_no_cache_is_made(data, start, tmp_path):
    output = toy.train(
        "text-to-image", data, None, tmp_path, **options(start, **{"conditioning.train_text_encoder": None})
    )
    old, new = encoder_of(start), encoder_of(output / "pipeline")
    assert any(not torch.equal(old[name], new[name]) for name in old) and not (output / "captions").exists()


def test_rows_are_what_the_encoder_says(data, start, tmp_path):
    """At the same draws of a caption and of those dropped; float16 keeps 11 bits."""
    conditionings = []
    for frozen in (True, False):
        recipe = toy.recipe(
            "text-to-image",
            data,
            None,
            tmp_path,
            **options(start, **{"conditioning.train_text_encoder": None if not frozen else False}),
        )
        images = open_training_images(recipe, 3)
        conditioner = make_conditioner(recipe, images)
        assert isinstance(conditioner, TextConditioner)
        rows = conditioner.rows(images)
        parts = [rows(image, toy.SQUARE, array_generator(0, image)) for image in range(6)]
        batch = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        dropped = torch.tensor([True, False, False, False, False, True])
        conditionings.append(conditioner(batch, dropped, SampleGenerators(0, range(6))).context.detach())
    assert torch.allclose(*conditionings, rtol=2**-10, atol=1e-6)
    assert not torch.allclose(conditionings[0][1], conditionings[0][0], rtol=0.1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"pretrained_model_name_or_path": None, "unet": toy.UNET},
            "train_text_encoder is false, but the text encoder",
        ),
        ({"lora": {"rank": 1}, "conditioning.train_text_encoder": True}, "lora trains the UNet's adapter alone"),
    ],
)
def test_bad_combinations_are_one_line(data, start, tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        toy.recipe("text-to-image", data, "vae", tmp_path, **{**options(start), **changed})
    with pytest.raises(ConfigError, match="train_text_encoder is given, but type is 'unconditional', which takes none"):
        toy.train("unconditional", data, "vae", tmp_path, **{"conditioning.train_text_encoder": True})
