"""The recipes of the paper's models: their networks are the published ones, and the README's table is theirs."""

import sys
from pathlib import Path

import pytest
import torch

from latentdiff import DDIMScheduler
from latentdiff.conversion.plan import make_plan
from latentdiff.conversion.zoo import MODELS, zoo_config, zoo_names

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
sys.path.insert(0, str(PAPER))
import table  # noqa: E402

# Released, but not trained by this package.
ELSEWHERE = {"rdm768", "sd-1", "sd-2-base", "sd-2-v"}
# Millions of the UNet's parameters in tables 13 to 15, of models that were not released.
SIZES = {"imagenet-ldm16": 395, "celeba-ldm8": 258, "inpaint-ldm4": 215}
# The number of classes, names and colours are the data's, and images may have another size.
FROM_DATA = {"class_names", "palette", "sample_size", "scaling_factor", "null_class"}


def configuration(network):
    given = {key: value for key, value in network.config.items() if key[0] != "_" and key not in FROM_DATA}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def test_every_released_model_has_a_recipe():
    assert set(MODELS) - ELSEWHERE <= set(table.names())


@pytest.mark.parametrize("name", sorted(set(table.names()) & set(zoo_names())))
def test_networks_and_noise_of_released_models(name):
    recipe, plan = table.load(name), make_plan(zoo_config(name))
    networks = table.networks(recipe)
    assert networks.keys() == plan.parts.keys()
    for part, network in networks.items():
        assert configuration(network) == configuration(plan.parts[part].model), part
        shapes = {key: value.shape for key, value in plan.parts[part].model.state_dict().items()}
        assert {key: value.shape for key, value in network.state_dict().items()} == shapes, part
    if name in MODELS:
        ours, theirs = DDIMScheduler(**recipe.noise_schedule), DDIMScheduler(**plan.scheduler)
        assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_tables(name):
    unet = table.networks(table.load(name))["unet"]
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6) == SIZES[name]


def test_the_readme_has_the_table():
    assert table.table() in (PAPER / "README.md").read_text(encoding="utf-8")
