"""Training that starts from another task's model, or from a stated latent scale."""

import pytest
import torch
import toy
from safetensors.torch import load_file
from tiny import tiny_class_to_image, unconditional

from latentdiff import ConfigError, DiffusionPipeline
from latentdiff.data.images import ImageFolder
from latentdiff.errors import LatentDiffWarning
from latentdiff.seeding import SampleGenerators, array_generator
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.task import DiffusionTask

pytestmark = pytest.mark.thorough

CONCATENATED = ("super-resolution", "inpaint", "semantic-to-image")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """An unconditional model, none of whose weights are zero."""
    folder = tmp_path_factory.mktemp("model")
    unconditional(folder)
    return folder / "unconditional"


def task_of(name, data, start):
    torch.manual_seed(0)
    recipe = toy.recipe(name, data, None, "unused", pretrained_model_name_or_path=str(start), unet={})
    images = ImageFolder(data, toy.SIDE)
    conditioner = make_conditioner(recipe, images)
    rows = conditioner.rows(images)
    parts = [rows(index, toy.SQUARE, array_generator(0, index)) for index in range(3)]
    return DiffusionTask(conditioner, recipe), {key: torch.stack([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize("name", CONCATENATED)
def test_the_first_loss_is_the_unconditional_models(data, start, name):
    """Whatever the new channels hold; and the first step's gradient reaches their weights."""
    moments = torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = {}
    for task in ("unconditional", name):
        trained, batch = task_of(task, data, start)
        losses[task] = trained({"moments": moments, **batch}, SampleGenerators(0, [0, 1, 2]))[0]
    assert torch.allclose(losses[name], losses["unconditional"], rtol=1e-5)
    losses[name].backward()
    gradient = trained.unet.conv_in.weight.grad[:, 4:]
    assert gradient.flatten(2).any(2).all() and not trained.unet.conv_in.weight[:, 4:].any()


@pytest.mark.parametrize("name", CONCATENATED)
def test_it_trains_to_a_pipeline_of_the_task(data, start, tmp_path, name):
    output = toy.train(name, data, None, tmp_path, pretrained_model_name_or_path=str(start), unet={})
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert toy.call(name, pipe, data, toy.lines(data)[:2], num_inference_steps=1, seed=0).shape == (2, 16, 16, 3)
    assert pipe.unet.conv_in.weight[:, 4:].any()
    old = load_file(start / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(old[key], value) for key, value in pipe.vae.state_dict().items())


def test_other_starts_are_refused(data, start, tmp_path):
    classes = tiny_class_to_image(tmp_path)
    for task, folder in (("inpaint", classes), ("text-to-image", start)):
        with pytest.raises(ConfigError, match=r"drop conditioning, or start super-resol.* UnconditionalPipeline"):
            toy.train(task, data, None, tmp_path / "out", pretrained_model_name_or_path=str(folder), unet={})


def test_what_the_pretrained_pipeline_has_already_is_said_to_go_unused(data, start, tmp_path):
    vae = toy.write_vae(tmp_path / "vae")
    options = {"pretrained_model_name_or_path": str(start), "max_train_steps": 1}
    with pytest.warns(LatentDiffWarning, match="kept as it is, so vae, unet, noise_schedule of the recipe goes unused"):
        toy.train("unconditional", data, vae, tmp_path / "whole", **options)
    # The segmentation encoder of the recipe is made, since the pretrained pipeline has none.
    with pytest.warns(LatentDiffWarning, match="so vae, unet, noise_schedule of the recipe"):
        toy.train("semantic-to-image", data, vae, tmp_path / "expand_conv_in", **options)


def test_the_latent_scale_may_be_said(data, start, tmp_path):
    vae = toy.write_vae(tmp_path / "vae")
    output = toy.train("unconditional", data, vae, tmp_path / "out", latent_scale=0.25, max_train_steps=1)
    assert DiffusionPipeline.from_pretrained(output / "pipeline").vae.config.scaling_factor == 0.25
    bad = {
        "latent_scale is 0; it must be above 0, or null": {"latent_scale": 0},
        "latent_scale and latent_scale_images are both": {"latent_scale": 1, "latent_scale_images": 7},
        "the pretrained pipeline has its own": {"latent_scale": 1, "pretrained_model_name_or_path": str(start)},
    }
    for message, options in bad.items():
        with pytest.raises(ConfigError, match=message):
            toy.recipe("unconditional", data, vae, tmp_path, **options)
