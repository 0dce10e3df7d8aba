"""The recipes of the paper's models: their networks are the published ones, and the README's table is theirs."""

from pathlib import Path

import pytest
import table
import torch

from latentdiff import DDIMScheduler
from latentdiff.conversion.plan import make_conversion_plan
from latentdiff.conversion.zoo import ZOO_MODELS, zoo_config, zoo_names
from latentdiff.training.first_stage.task import FirstStageTask

PAPER = Path(__file__).parents[2] / "recipes" / "paper"

# Released, but not trained by this package.
ELSEWHERE = {"rdm768", "sd-1", "sd-2-base", "sd-2-v", "sd-1-inpaint", "sd-2-inpaint"}
# Batch, learning rate and thousands of steps in tables 12 to 15.
RUNS = {
    "celeba256": (48, 9.6e-5, 410),
    "ffhq256": (42, 8.4e-5, 635),
    "lsun_churches256": (96, 5e-5, 500),
    "lsun_beds256": (48, 9.6e-5, 1900),
    "imagenet-ldm2": (9, 6.3e-5, 2000),
    "imagenet-ldm4": (40, 8e-5, 2000),
    "cin256": (64, 6.4e-5, 2000),
    "imagenet-ldm16": (112, 4.5e-5, 2000),
    "imagenet-ldm32": (112, 4.5e-5, 2000),
    "celeba-ldm2": (11, 1.1e-4, 500),
    "celeba-ldm8": (96, 9.6e-5, 500),
    "celeba-ldm16": (128, 1.3e-4, 500),
    "celeba-ldm32": (128, 1.3e-4, 500),
    "txt2img-1p4B": (680, 1e-4, 390),
    "layout2img-openimages256": (24, 4.8e-5, 4400),
    "layout2img-coco256": (48, 4.8e-5, 170),
    "cin256-v2": (1200, 1e-4, 178),
    "bsr_sr": (64, 6.4e-5, 860),
    "inpaint-ldm4": (128, 1e-6, 360),
    "semantic_synthesis256": (48, 4.8e-5, 360),
}
# Millions of the UNet's parameters in tables 13 to 15, of models that were not released.
SIZES = {
    "celeba-ldm2": 265,
    "celeba-ldm8": 258,
    "celeba-ldm32": 258,
    "imagenet-ldm2": 391,
    "imagenet-ldm16": 395,
    "imagenet-ldm32": 395,
    "inpaint-ldm4": 215,
}
# Names and colours of classes are the data's, the scale is measured, and images may have another size; the default of
# vq_embed_dim is what the others spell out.
UNSAID = {"class_names", "palette", "sample_size", "scaling_factor", "null_class", "vq_embed_dim"}


def configuration(network):
    given = {key: value for key, value in network.config.items() if key[0] != "_" and key not in UNSAID}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


def test_every_released_model_has_a_recipe():
    assert set(zoo_names()) - ELSEWHERE <= set(table.names())


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(table.names()) & set(zoo_names())))
def test_networks_and_noise_of_released_models(name):
    recipe, plan = table.load(name), make_conversion_plan(zoo_config(name))
    networks = table.networks_of(name)
    assert networks.keys() == plan.parts.keys()
    for part, network in networks.items():
        assert configuration(network) == configuration(plan.parts[part].model), part
        shapes = {key: value.shape for key, value in plan.parts[part].model.state_dict().items()}
        assert {key: value.shape for key, value in network.state_dict().items()} == shapes, part
    if name in ZOO_MODELS:
        ours, theirs = DDIMScheduler(**recipe.noise_schedule), DDIMScheduler(**plan.scheduler)
        assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
        params = ZOO_MODELS[name].params
        assert recipe.loss.type == params.get("loss_type", "l2")
        assert recipe.latent_scale == (None if params.get("scale_by_std") else params.get("scale_factor", 1.0))


@pytest.mark.parametrize("name", filter(table.is_first_stage, table.names()))
def test_first_stages_have_the_losses_of_their_recipes(name):
    recipe = table.load(name)
    recipe = recipe.replace(loss=recipe.loss.replace(perceptual_weight=0.0, lpips=None))  # files of the user's
    with torch.device("meta"):
        task = FirstStageTask(table.networks_of(name)["vae"], recipe)
    assert (
        sum(isinstance(layer, torch.nn.Conv2d) for layer in task.adversarial.modules())
        == recipe.loss.adversarial.discriminator.layers + 2
    )


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_tables(name):
    unet = table.networks_of(name)["unet"]
    assert round(sum(p.numel() for p in unet.parameters()) / 1e6) == SIZES[name]


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_the_tables(name):
    recipe, (batch, rate, steps) = table.load(name), RUNS[name]
    assert (recipe.train_batch_size, recipe.max_train_steps) == (batch, 1000 * steps)
    assert table.rate_of(recipe) == pytest.approx(rate, rel=1e-9)


@pytest.mark.thorough
def test_the_readme_has_the_table():
    assert table.table() in (PAPER / "README.md").read_text(encoding="utf-8")
