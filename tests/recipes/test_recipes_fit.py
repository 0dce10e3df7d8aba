"""Every other recipe that ships is one that its stage takes, and its networks can be built."""

from importlib.resources import files
from pathlib import Path

import pytest
import table
import torch
import yaml
from diffusers import AutoencoderKL

from latentdiff.config import load_recipe
from latentdiff.models.classifier import NoisyLatentClassifier
from latentdiff.models.tokenizer import BERT_VOCABULARY
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe

ROOT = Path(__file__).parents[2]

RECIPES = sorted([*ROOT.glob("examples/*.yaml"), *ROOT.glob("recipes/emoji/*.yaml")])
EMOJI = str(files("latentdiff") / "builtin" / "emoji" / "vae")  # what the examples start with, or of its size


def recipe_of(path, folder):
    """A shipped recipe, with a vocabulary of the size that it says in place of one that is made with the data."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, kind in {"model": FirstStageRecipe, "classifier": ClassifierRecipe}.items():
        if name in given:
            return load_recipe(kind, path)
    if "vocabulary" not in given["conditioning"]:
        return load_recipe(DiffusionRecipe, path)
    size = given["conditioning"]["text_encoder"]["vocab_size"]
    tokens = BERT_VOCABULARY.read_text(encoding="utf-8").splitlines()[:size]
    (folder / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    return load_recipe(DiffusionRecipe, path, {"conditioning.vocabulary": str(folder / "vocab.txt")})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_networks_can_be_built(path, tmp_path):
    recipe = recipe_of(path, tmp_path)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(EMOJI))
        if isinstance(recipe, ClassifierRecipe):
            options = {"in_channels": vae.config.latent_channels, "num_classes": 24}
            assert NoisyLatentClassifier(**recipe.classifier, **options).config.num_classes == 24
        elif isinstance(recipe, FirstStageRecipe) and "pretrained_model_name_or_path" not in recipe.model:
            assert table.networks(recipe)["vae"].config.latent_channels == vae.config.latent_channels
        elif isinstance(recipe, DiffusionRecipe) and recipe.pretrained_model_name_or_path is None:
            assert table.networks(recipe, vae)["unet"].config.out_channels == vae.config.latent_channels
