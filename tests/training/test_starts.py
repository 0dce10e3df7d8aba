"""Training that starts from another task's model, or from a stated latent scale."""

import warnings
from contextlib import contextmanager

import pytest
import torch
import toy
from diffusers import AutoencoderKL
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
    parts = [rows(index, False, array_generator(0, index)) for index in range(3)]
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


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    return tiny_class_to_image(tmp_path_factory.mktemp("classes"))


def trained_from(folder, task, data, output, **options):
    """The pipeline that a run ends as, and the weights of its UNet and of the one that it started from."""
    vae = options.pop("vae", None)
    output = toy.train(task, data, vae, output, **{"unet": {}, "pretrained_model_name_or_path": str(folder), **options})
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert toy.call(task, pipe, data, toy.lines(data)[:2], num_inference_steps=1, seed=0).shape == (2, 16, 16, 3)
    return pipe, pipe.unet.state_dict(), DiffusionPipeline.from_pretrained(folder).unet.state_dict()


STILL = {"optimizer.name": "SGD", "optimizer.learning_rate": 1e-30, "max_train_steps": 1, "ema.decay": 0}


@pytest.mark.parametrize(
    ("task", "options", "anything_new"),
    [
        ("text-to-image", {"conditioning.text_encoder.hidden_size": 24}, True),
        ("layout-to-image", {}, False),  # its context is as wide as that of classes
        ("unconditional", {}, True),
        ("inpaint", {}, True),
    ],
)
def test_a_model_of_classes_goes_on_with_any_condition(data, classes, tmp_path, task, options, anything_new):
    """Of another condition what has its shape goes on, and the rest is new, which a line says."""
    with optional_warnings() as lines:
        _, new, old = trained_from(classes, task, data, tmp_path, **STILL, **options)
    kept = [name for name, tensor in new.items() if name in old and torch.equal(old[name], tensor)]
    fresh = [name for name in new if name not in kept and name != "conv_in.weight"]
    assert {"conv_out.weight", "time_embedding.linear_1.weight"} <= {*kept}
    assert bool(fresh) == anything_new and all("attention" in name for name in fresh)
    said = [line for line in lines if "weights are new" in line]
    expected = f"{len(fresh)} of the UNet's {len(new)} weights are new, such as "
    assert len(said) == anything_new and all(line.startswith(expected) for line in said)


@contextmanager
def optional_warnings():
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: lines.append(str(message))
        yield lines


def other_vae(folder, channels):
    torch.manual_seed(1)
    AutoencoderKL(**{**toy.VAE, "latent_channels": channels}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("channels", "task"), [(6, "unconditional"), (3, "unconditional"), (6, "inpaint")])
def test_a_first_stage_of_other_channels(data, start, tmp_path, channels, task):
    """First and last convolution have weights of 0 for new channels; the latents' scale is measured anew."""
    vae = other_vae(tmp_path / "vae", channels)
    pipe, new, old = trained_from(start, task, data, tmp_path / "out", vae=str(vae), **STILL)
    extra = channels + 1 if task == "inpaint" else 0
    assert pipe.unet.config.in_channels == channels + extra and pipe.unet.config.out_channels == channels
    both = min(channels, 4)
    assert torch.equal(new["conv_in.weight"][:, :both], old["conv_in.weight"][:, :both])
    assert not new["conv_in.weight"][:, both:].abs().gt(1e-20).any()
    assert torch.equal(new["conv_out.weight"][:both], old["conv_out.weight"][:both])
    assert not new["conv_out.weight"][both:].abs().gt(1e-20).any()
    assert pipe.vae.config.latent_channels == channels and pipe.vae.config.scaling_factor != 0.18215
    inner = [name for name in new if name not in ("conv_in.weight", "conv_out.weight", "conv_out.bias")]
    assert all(torch.equal(new[name], old[name]) for name in inner)


def test_channels_of_the_same_condition_stay_theirs(data, start, tmp_path):
    inpaint = toy.train("inpaint", data, None, tmp_path / "a", pretrained_model_name_or_path=str(start), unet={})
    vae = other_vae(tmp_path / "vae", 6)
    _, new, old = trained_from(inpaint / "pipeline", "inpaint", data, tmp_path / "b", vae=str(vae), **STILL)
    assert torch.equal(new["conv_in.weight"][:, 6 : 6 + 5], old["conv_in.weight"][:, 4:])


def test_another_resolution_is_the_size_of_calls(data, start, tmp_path):
    output = toy.train(
        "unconditional",
        data,
        None,
        tmp_path,
        pretrained_model_name_or_path=str(start),
        unet={},
        **{"data.resolution": 32},
    )
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert pipe(num_inference_steps=1, seed=0, output_type="np").images.shape == (1, 32, 32, 3)


def test_an_adapter_of_another_condition_is_refused(data, start, tmp_path):
    options = {"pretrained_model_name_or_path": str(start), "unet": {}, "lora": {"rank": 2}}
    for task, more in (("inpaint", {}), ("unconditional", {"vae": str(toy.write_vae(tmp_path / "vae"))})):
        with pytest.raises(ConfigError, match=r"lora trains no new channels, which .* needs here; leave lora out"):
            toy.train(task, data, more.get("vae"), tmp_path / "out", **options)


def test_what_the_pretrained_pipeline_has_already_is_said_to_go_unused(data, start, tmp_path):
    options = {"pretrained_model_name_or_path": str(start), "max_train_steps": 1}
    with pytest.warns(LatentDiffWarning, match="kept as it is, so unet, noise_schedule of the recipe goes unused"):
        toy.train("unconditional", data, None, tmp_path / "whole", **options)
    # The segmentation encoder of the recipe is made, since the pretrained pipeline has none.
    with pytest.warns(LatentDiffWarning, match="so unet, noise_schedule of the recipe"):
        toy.train("semantic-to-image", data, None, tmp_path / "other", **options)


def test_the_latent_scale_may_be_said(data, start, tmp_path):
    vae = toy.write_vae(tmp_path / "vae")
    output = toy.train("unconditional", data, vae, tmp_path / "out", latent_scale=0.25, max_train_steps=1)
    assert DiffusionPipeline.from_pretrained(output / "pipeline").vae.config.scaling_factor == 0.25
    bad = {
        "latent_scale is 0; it must be above 0, or null": {"latent_scale": 0},
        "latent_scale and latent_scale_images are both": {"latent_scale": 1, "latent_scale_images": 7},
    }
    for message, options in bad.items():
        with pytest.raises(ConfigError, match=message):
            toy.recipe("unconditional", data, vae, tmp_path, **options)
    begun = {"latent_scale": 1, "pretrained_model_name_or_path": str(start)}
    with pytest.raises(ConfigError, match="the pretrained pipeline has its own"):
        toy.recipe("unconditional", data, None, tmp_path, **begun)
    assert (
        toy.recipe("unconditional", data, vae, tmp_path, **begun).latent_scale == 1
    )  # of another first stage's latents
