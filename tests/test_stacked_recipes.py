"""Recipes on top of each other."""

import json

import pytest

from latentdiff import ConfigError
from latentdiff.cli.main import main
from latentdiff.config import json_schema, load_recipe, recipe_values, stacked
from latentdiff.training.recipes import DiffusionRecipe

BASE = """
output_dir: runs/x
data: {train_data_dir: photos, resolution: 64, random_flip: true}
vae: vae
unet: {block_out_channels: [32, 64]}
conditioning: {type: inpaint, masks: {box: 1}}
optimizer: {learning_rate: 1e-3}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.yaml").write_text(BASE)
    return tmp_path


def write(folder, name, text):
    (folder / name).write_text(text)
    return name


def test_a_file_wins_over_its_base_and_flags_over_both(folder):
    top = write(folder, "top.yaml", "base: recipes/base.yaml\ndata: {resolution: 128}\noptimizer: {beta1: 0.5}\n")
    recipe = load_recipe(DiffusionRecipe, top, {"optimizer.beta1": "0.7"})
    assert (recipe.data.resolution, recipe.data.random_flip, recipe.data.train_data_dir) == (128, True, "photos")
    assert (recipe.optimizer.learning_rate, recipe.optimizer.beta1) == (1e-3, 0.7)


def test_of_several_the_last_wins(folder):
    write(folder, "recipes/small.yaml", "train_batch_size: 2\nseed: 1\n")
    write(folder, "recipes/other.yaml", "base: [base.yaml]\nseed: 2\n")  # beside the file that names it
    files = ["recipes/other.yaml", "recipes/small.yaml", write(folder, "top.yaml", "max_train_steps: 7")]
    recipe = load_recipe(DiffusionRecipe, files)
    assert (recipe.seed, recipe.train_batch_size, recipe.max_train_steps) == (1, 2, 7)
    assert load_recipe(DiffusionRecipe, files[::-1]).seed == 2


@pytest.mark.parametrize(
    ("conditioning", "expected"),
    [
        ("{masks: {thin: 2}}", {"type": "inpaint", "masks": {"box": 1, "thin": 2}}),
        ("{type: inpaint, masks: {thin: 2}}", {"type": "inpaint", "masks": {"box": 1, "thin": 2}}),
        ("{type: super-resolution}", {"type": "super-resolution"}),
        ("unconditional", "unconditional"),
        ("null", None),
    ],
)
def test_options_of_another_kind_are_not_mixed(folder, conditioning, expected):
    top = write(folder, "top.yaml", f"base: recipes/base.yaml\nconditioning: {conditioning}\n")
    assert recipe_values(top)["conditioning"] == expected


def test_lists_are_replaced(folder):
    top = write(folder, "top.yaml", "base: recipes/base.yaml\nunet: {block_out_channels: [8], layers_per_block: 1}\n")
    assert load_recipe(DiffusionRecipe, top).unet == {"block_out_channels": [8], "layers_per_block": 1}


def test_what_wins_is_told(folder):
    top = write(folder, "top.yaml", "base: recipes/base.yaml\ndata: {resolution: 128}\nseed: 3\n")
    assert stacked(top, {"seed": "4"}) == [
        "recipe: recipes/base.yaml, then top.yaml, then flags",
        "data.resolution: 128 of top.yaml, in place of 64 of recipes/base.yaml",
        "seed: 4 of flags, in place of 3 of top.yaml",
    ]
    assert stacked("recipes/base.yaml", {"seed": "4"}) == stacked(None, {"seed": "4"}) == []


def test_an_error_names_the_file_that_it_is_in(folder):
    top = write(folder, "top.yaml", "base: recipes/base.yaml\nseed: -1\n")
    with pytest.raises(ConfigError, match=r"^top\.yaml: seed is -1"):
        load_recipe(DiffusionRecipe, top)
    write(folder, "recipes/base.yaml", BASE + "ema: {decy: 0.9}\n")
    with pytest.raises(ConfigError, match=r"^recipes/base\.yaml: unknown option 'ema\.decy'"):
        load_recipe(DiffusionRecipe, write(folder, "top.yaml", "base: recipes/base.yaml\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: 3", r"top\.yaml: base is 3; it must be a file, or a list of files"),
        ("base: [a.yaml, 3]", r"base is \['a\.yaml', 3\]; it must be a file"),
        ("base: none.yaml", r"recipe none\.yaml cannot be read"),
        ("base: top.yaml", r"top\.yaml is below itself"),
        ("base: recipes/loop.yaml", r"top\.yaml is below itself"),
    ],
)
def test_bad_bases_are_one_line(folder, text, message):
    write(folder, "recipes/loop.yaml", "base: ../top.yaml")
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(DiffusionRecipe, write(folder, "top.yaml", text))
    assert "\n" not in str(caught.value)


def test_the_flag_takes_several(folder, capsys):
    """The data is not there, which is the first thing that a run says when its recipe is whole."""
    top = write(folder, "top.yaml", "max_train_steps: 7")
    for words in ([top, "--base", "recipes/base.yaml"], ["--base", "recipes/base.yaml", top, "--seed", "3"]):
        assert main(["train", "diffusion", *words, "--dry-run"]) == 2
        assert "photos" in capsys.readouterr().err
    assert main(["train", "diffusion", top]) == 2
    assert "output_dir is missing" in capsys.readouterr().err


def test_editors_know_of_it():
    assert "base" in json_schema(DiffusionRecipe)["properties"]
    assert json.dumps(json_schema(DiffusionRecipe))
