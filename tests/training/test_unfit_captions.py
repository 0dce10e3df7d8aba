"""Captions that a text encoder can't take: the image is named, before a run and in it, and an option decides."""

import json

import pytest
import torch
import toy
from PIL import Image

from latentdiff import DiffusionPipeline, InputError
from latentdiff.errors import LatentDiffWarning
from latentdiff.models.tokenizer import BERT_VOCABULARY, load_tokenizer
from latentdiff.seeding import array_generator
from latentdiff.training.data import check_condition, open_to_check, open_training_images
from latentdiff.training.diffusion.build import make_conditioner

LONG = "a red star a red star a red star"  # 9 words and two special tokens, where the encoder takes 8
KEPT = "a red star a red star"
UNKNOWN = "xyzzy plugh"
UNFIT = {"long": LONG, "unknown": UNKNOWN, "no text": "a \ud83d star"}


@pytest.fixture
def with_caption(data, tmp_path):
    """The toy data with another caption for the sixth image."""

    def change(text):
        folder = tmp_path / f"data{len(list(tmp_path.iterdir()))}"
        toy.rewritten(data, folder)
        rows = toy.lines(folder)
        rows[5]["text"] = text
        (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return folder, rows[5]["file_name"]

    return change


def open_rows(folder, vae, tmp_path, policy=None):
    options = {} if policy is None else {"conditioning.unfit_captions": policy}
    recipe = toy.recipe("text-to-image", folder, vae, tmp_path / "run", **options)
    images = open_training_images(recipe, 3)
    conditioner = make_conditioner(recipe, images)
    return conditioner, conditioner.rows(images), recipe


@pytest.mark.parametrize("kind", UNFIT)
def test_the_image_is_named(with_caption, vae, tmp_path, kind):
    folder, name = with_caption(UNFIT[kind])
    with pytest.raises(
        InputError, match=rf"1 caption does not fit .*{name} is .*unfit_captions be cut or leave_out"
    ) as e:
        open_rows(folder, vae, tmp_path)
    assert "\n" not in str(e.value)
    images = open_to_check(toy.recipe("text-to-image", folder, vae, "unused").data)
    errors, notes = check_condition(images, toy.recipe("text-to-image", folder, vae, "unused"))
    assert len(errors) == 1 and name in errors[0] and notes == []


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize("policy", ["cut", "leave_out"])
def test_the_option_decides(with_caption, vae, tmp_path, kind, policy):
    folder, name = with_caption(UNFIT[kind])
    with pytest.warns(LatentDiffWarning, match=rf"1 caption does not fit the text encoder; that of {name}"):
        conditioner, rows, recipe = open_rows(folder, vae, tmp_path, policy)
    if kind == "long" and policy == "cut":
        kept = conditioner.prompts([KEPT])["input_ids"][0]
        assert torch.equal(rows(5, toy.SQUARE, array_generator(0))["input_ids"], kept)
    else:
        with pytest.raises(InputError, match=f"{name} has no caption that fits"):
            rows(5, toy.SQUARE, array_generator(0))
    assert rows(4, toy.SQUARE, array_generator(0))["input_ids"].shape == (8,)
    assert check_condition(open_to_check(recipe.data, recipe), recipe)[0] == []


def test_of_several_captions_the_others_stay(with_caption, vae, tmp_path):
    folder, _ = with_caption([LONG, "a red star", UNKNOWN])
    with pytest.warns(LatentDiffWarning, match="2 captions do not fit"):
        conditioner, rows, _ = open_rows(folder, vae, tmp_path, "leave_out")
    kept = conditioner.prompts(["a red star"])["input_ids"][0]
    assert all(torch.equal(rows(5, toy.SQUARE, array_generator(0, n))["input_ids"], kept) for n in range(5))


def test_one_token_less_fits(with_caption, vae, tmp_path):
    folder, _ = with_caption(KEPT)
    conditioner, rows, _ = open_rows(folder, vae, tmp_path)
    assert torch.equal(
        rows(5, toy.SQUARE, array_generator(0))["input_ids"], conditioner.prompts([KEPT])["input_ids"][0]
    )


@pytest.mark.thorough
def test_a_run_goes_on_without_the_image(with_caption, vae, tmp_path):
    folder, name = with_caption(UNKNOWN)
    options = {"max_train_steps": 8, "conditioning.unfit_captions": "leave_out", "validation.steps": 4}
    output = toy.train("text-to-image", folder, vae, tmp_path / "run", **options)
    (line,) = map(json.loads, (output / "bad_files.jsonl").read_text().splitlines())
    assert line["file"].endswith(name) and "has no caption that fits" in line["reason"]


def test_no_caption_fits(with_caption, data, vae, tmp_path):
    folder = toy.rewritten(data, tmp_path / "all", text=UNKNOWN)
    with pytest.raises(InputError, match="no caption fits the text encoder"):
        open_rows(folder, vae, tmp_path, "leave_out")


def test_columns_that_may_be_the_captions_are_named(data, vae, tmp_path):
    folder = toy.rewritten(data, tmp_path / "d", ("text",), prompt="a red star")
    with pytest.raises(InputError, match=r"has no captions; .*of its columns .*prompt.*, give data\.caption_column"):
        open_rows(folder, vae, tmp_path)


@pytest.mark.thorough
def test_the_package_brings_the_vocabulary(vae, tmp_path):
    """A folder of images with captions beside them is enough."""
    data = tmp_path / "d"
    data.mkdir()
    for i, text in enumerate(("an aardvark in the rain", "two umbrellas")):
        Image.new("RGB", (toy.SIDE, toy.SIDE), (90 * i, 0, 0)).save(data / f"{i}.png")
        (data / f"{i}.txt").write_text(text)
    encoder = {"conditioning.text_encoder": toy.ENCODER}
    output = toy.train("text-to-image", data, vae, tmp_path / "run", **encoder, **{"conditioning.vocabulary": None})
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    expected = load_tokenizer(BERT_VOCABULARY, 77)(["an aardvark in the rain"])["input_ids"]
    assert pipe.tokenizer(["an aardvark in the rain"])["input_ids"] == expected
    assert pipe("two umbrellas", num_inference_steps=1).images[0].size == (toy.SIDE, toy.SIDE)
