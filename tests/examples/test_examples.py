"""The examples' recipes fit the recipe classes, and what their data say of images is true to the pixel."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentdiff.config import load_recipe
from latentdiff.data.images import ImageFolder
from latentdiff.registry import CONDITIONERS
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe

ROOT = Path(__file__).parents[2]
STAGES = {"photographs": FirstStageRecipe, "classifier": ClassifierRecipe}
BODIES = json.loads((ROOT / "tests/recipes/emoji_sample.json").read_text(encoding="utf-8"))["bodies"]
WITHOUT_TRAINING = {"text-to-image", "hybrid"}  # builtin:emoji is the example of the one, the others of its parts


@pytest.fixture(scope="module")
def emoji():
    pytest.importorskip("resvg_py", reason="the emoji extra is not installed")
    import emoji

    return emoji


@pytest.fixture(scope="module")
def sprites(emoji):
    return emoji.render_sprites(BODIES, 128)


def test_every_task_has_a_recipe_that_fits():
    names = {path.stem for path in (ROOT / "examples").glob("*.yaml")}
    assert names == {*STAGES, *CONDITIONERS.names()} - WITHOUT_TRAINING
    for name in names:
        recipe = load_recipe(STAGES.get(name, DiffusionRecipe), ROOT / "examples" / f"{name}.yaml")
        if name not in STAGES:
            assert recipe.conditioning.type == name
            assert type(recipe.conditioning) is CONDITIONERS.get(name).options_class


def test_boxes_and_maps_are_exact(emoji, sprites):
    names = list(sprites)
    for seed in range(20):
        scene = emoji.scattered(np.random.default_rng(seed), names)
        image, objects = emoji.draw(scene, sprites), scene.objects(sprites)
        classes = np.asarray(emoji.label_map(scene, sprites, names))
        rest = np.ones(image.shape[:2], bool)
        for item in objects:
            left, top, width, height = item["box"]
            assert min(left, top) >= 0 and max(left + width, top + height) <= 64
            inside = (slice(top, top + height), slice(left, left + width))
            assert set(np.unique(classes[inside])) == {0, 1 + names.index(item["class"])} or 0 not in classes[inside]
            assert (image[inside] != 1).any(-1).mean() > 0.3
            rest[inside] = False
        assert (image[rest] == 1).all() and not classes[rest].any()


def test_folders_are_what_training_reads(emoji, sprites, tmp_path):
    from emoji_scenes.folders import read_images, write_images
    from emoji_scenes.pixels import pictures

    scenes = [emoji.scattered(np.random.default_rng(seed), list(sprites)) for seed in range(3)]
    known = [
        {"objects": scene.objects(sprites), "label_map": emoji.label_map(scene, sprites, list(sprites))}
        for scene in scenes
    ]
    images = np.stack([emoji.draw(scene, sprites) for scene in scenes])
    folder = write_images(tmp_path / "data", zip(pictures(images), known, strict=True))
    rows, read = read_images(folder, 3)
    assert (read == images).all() and [row["objects"] for row in rows] == [row["objects"] for row in known]
    data = ImageFolder(folder, 64)
    assert data.objects == [row["objects"] for row in known]
    for path, row in zip(data.label_maps, known, strict=True):
        assert (np.asarray(Image.open(path)) == np.asarray(row["label_map"])).all()


def test_fills_of_holes():
    from emoji_scenes.pixels import filled

    images = np.linspace(0, 1, 16)[None, None, :, None] * np.ones((1, 16, 16, 3))
    holes = np.zeros((1, 16, 16, 1))
    holes[:, 5:11, 5:11] = 1
    mean, smooth = filled(images, holes)
    np.testing.assert_allclose(smooth, images, atol=1e-6)  # a ramp solves Laplace's equation
    assert np.unique(mean[0, 5:11, 5:11]).size == 1


def test_variants_of_first_stages_fit_and_their_changes_are_told_by_seed(emoji):
    from steady_first_stages import CONTINUED, FIRST, changes, table

    shared = {"validation.data_dir": "-", "validation.steps": 1, "loss.lpips": {"vgg16": "-"}, "report": {}}
    for given in (*CONTINUED.values(), {**FIRST, "loss.equivariance": {}}):
        recipe = load_recipe(FirstStageRecipe, ROOT / "examples" / "photographs.yaml", {**shared, **given})
        assert recipe.loss.reconstruction == "l1"
    rows = {"a": [{"psnr": 30.0, "x": 2.0}, {"psnr": 31.0, "x": 4.0}], "b": [{"psnr": 29.5, "x": 1.0}] * 2}
    assert changes(rows, "a", "b", "x") == ["b against a: PSNR -0.50 / -1.50 dB, x -50.0 / -75.0 % (seeds 0, 1, 2)"]
    assert table("what", rows, {"psnr": "dB"})[2:] == ["| a | 30.5 ± 0.5 |", "| b | 29.5 ± 0 |"]
