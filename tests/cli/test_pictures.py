"""Pictures as people have them, on every way in: the same values in Python, on the command line and from a recipe."""

import json

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image, PngImagePlugin

from latentdiff.config import load_recipe
from latentdiff.io.images import load_image
from latentdiff.io.inputs import read_image
from latentdiff.training.data import open_training_images
from latentdiff.training.recipes import FirstStageRecipe

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def pictures(tmp_path):
    """Five files of one picture, and two that are damaged."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 3_000_000, zip=True)
    Image.fromarray(GREY).save(folder / "0-text.png", pnginfo=text)
    tifffile.imwrite(folder / "1-white.tif", (255 - GREY).astype(np.uint16) * 257, photometric="miniswhite")
    stored = Image.fromarray(GREY).transpose(Image.Transpose.ROTATE_90)
    stored.save(folder / "2-turned.tif", tiffinfo={274: 6})
    exif = Image.Exif()
    exif[274] = 6
    stored.save(folder / "3-turned.png", exif=exif)
    np.save(folder / "4-array.npy", np.asfortranarray(GREY))
    (folder / "5-cut.npy").write_bytes((folder / "4-array.npy").read_bytes()[:-1])
    (folder / "6-cut.tif").write_bytes((folder / "1-white.tif").read_bytes()[:-100])
    return folder


@pytest.fixture
def recipe(tmp_path, pictures):
    """The file of a recipe that trains on them."""
    data = {"train_data_dir": str(pictures), "resolution": 16, "channels": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"output_dir": str(tmp_path / "run"), "data": data}))
    return tmp_path / "recipe.yaml"


def test_a_recipe_reads_what_python_reads(recipe):
    images = open_training_images(load_recipe(FirstStageRecipe, recipe), 1)
    for number in range(5):
        right = GREY / 127.5 - 1
        assert np.abs(images[number][0].numpy() - right).max() <= 1e-6
        assert np.abs(read_image(images.files[number], channels=1)[0].numpy() - right).max() <= 1e-6
    for path in images.files[:4]:
        assert np.array_equal(np.asarray(load_image(path))[..., 0], GREY)


def test_the_check_of_data_names_the_damaged_ones_alone(run, recipe):
    code, out, _ = run("data", "check", recipe, "--json", "-o", "x.png")
    report = json.loads("\n".join(out))
    assert code == 1 and report["images"] == 7
    assert [found["file"].rsplit("/")[-1] for found in report["bad_files"]] == ["5-cut.npy", "6-cut.tif"]


def test_a_command_reads_what_python_reads(run, models, pictures):
    """An image that is enlarged with the same seed comes out the same, whatever file it was in."""
    Image.fromarray(GREY).save("plain.png")
    options = ("--model", models["upscale"], "--steps", 1, "--seed", 0, "--batch-size", 1)
    assert run("upscale", "plain.png", "-o", "plain-out.png", *options)[0] == 0
    code, out, err = run("upscale", pictures, "-o", "out", *options)
    assert code == 2 and [line.split("\t")[0] for line in out] == [
        f"out/{name}.png" for name in ("0-text", "1-white", "2-turned", "3-turned")
    ]
    assert "6-cut.tif cannot be read as an image" in err[0] and err[1:] == ["latentdiff: error: 1 of 5 files failed"]
    with Image.open("plain-out.png") as right:
        for line in out:
            with Image.open(line.split("\t")[0]) as made:
                assert np.array_equal(np.asarray(made), np.asarray(right))
