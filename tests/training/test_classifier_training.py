"""A classifier trained on noisy latents: it learns, resumes bit for bit, and guides samples to their class."""

import json
import shutil

import pytest
import torch
import yaml
from analytic import Mixture
from PIL import Image
from safetensors.torch import load_file
from tiny import unconditional

from latentdiff import (
    ClassifierGuidance,
    ConfigError,
    DDIMScheduler,
    InputError,
    NoisyLatentClassifier,
    UnconditionalPipeline,
)
from latentdiff.config import load_recipe
from latentdiff.data.images import ImageFolder
from latentdiff.sampling import sample
from latentdiff.training.classifier import train_classifier
from latentdiff.training.recipes import ClassifierRecipe

pytestmark = pytest.mark.thorough

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220)}
CLASSIFIER = {
    "block_out_channels": [16, 16],
    "layers_per_block": 1,
    "attention_levels": [False, True],
    "num_head_channels": 16,
    "norm_num_groups": 8,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve squares by colour; the classes are the sub-folders."""
    folder = tmp_path_factory.mktemp("by_class")
    for i in range(12):
        colour = list(COLOURS)[i % 3]
        (folder / colour).mkdir(exist_ok=True)
        Image.new("RGB", (20, 16), tuple(c + i for c in COLOURS[colour])).save(folder / colour / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    """An untrained model, of whose networks only the first stage is used."""
    return unconditional(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(pipe, images, tmp_path_factory):
    """The same with latents as a trained first stage has them: of mean 0 and variance 1, posteriors narrow."""
    with torch.no_grad():
        pixels, last = torch.stack(list(ImageFolder(images, 16))), pipe.vae.quant_conv
        last.weight[4:], last.bias[4:] = 0, -10
        last.bias[:4] -= pipe.vae.encode(pixels).latent_dist.mean.mean(dim=(0, 2, 3))
        pipe.vae.register_to_config(scaling_factor=float(1 / pipe.vae.encode(pixels).latent_dist.mean.std()))
    folder = tmp_path_factory.mktemp("saved")
    pipe.save_pretrained(folder)
    return folder


def recipe(images, model, output, **options):
    values = {
        "data.train_data_dir": str(images),
        "output_dir": str(output),
        "pretrained_model_name_or_path": str(model),
        "data.resolution": 16,
        "classifier": CLASSIFIER,
        "train_batch_size": 12,
        "max_train_steps": 4,
        "optimizer.learning_rate": 4e-3,
        "ema.decay": 0.9,
        "checkpoint.steps": 2,
        "logging_steps": 2,
    }
    return load_recipe(ClassifierRecipe, None, {**values, **options})


@pytest.fixture(scope="module")
def trained(images, model, tmp_path_factory):
    return train_classifier(
        recipe(
            images,
            model,
            tmp_path_factory.mktemp("run"),
            max_train_steps=150,
            logging_steps=25,
            **{"data.random_flip": True},
        )
    )


def test_it_learns_and_is_a_component(trained):
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    print("accuracy at random timesteps:", [line["accuracy"] for line in lines])
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"] and lines[-1]["accuracy"] > 0.6
    classifier = NoisyLatentClassifier.from_pretrained(trained / "classifier")
    assert classifier.config.class_names == ["blue", "green", "red"]
    assert classifier.label_ids("red").tolist() == [2]


def test_resuming_is_bit_for_bit(images, model, tmp_path, placement):
    options = {"mixed_precision": placement.mixed_precision}
    whole = train_classifier(recipe(images, model, tmp_path / "whole", **options))
    train_classifier(recipe(images, model, tmp_path / "parts", max_train_steps=2, **options))
    parts = train_classifier(recipe(images, model, tmp_path / "parts", resume_from_checkpoint="latest", **options))
    first, second = (load_file(next((run / "classifier").glob("*.safetensors"))) for run in (whole, parts))
    assert first
    for name in first:
        placement.assert_same(first[name], second[name])


def test_held_out_images_are_known_by_name(images, model, tmp_path):
    """The same images with one class fewer, whose numbers are therefore others, are told apart as in training."""
    for colour in ("green", "red"):
        shutil.copytree(images / colour, tmp_path / "held_out" / colour)
    options = {"validation.data_dir": str(tmp_path / "held_out"), "validation.steps": 150, "max_train_steps": 150}
    output = train_classifier(
        recipe(images, model, tmp_path / "run", **options, logging_steps=25, **{"data.random_flip": True})
    )
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    (accuracy,) = [line["validation/accuracy"] for line in lines if "validation/accuracy" in line]
    assert accuracy >= 0.6 and (output / "best" / "classifier").is_dir()


def test_accuracy_rises_with_the_scale(trained, model, images):
    """Samples of the perfect denoiser of the very latents; the image that each became tells its class."""
    pipe = UnconditionalPipeline.from_pretrained(model)
    folder = ImageFolder(images, 16)
    with torch.no_grad():
        latents = pipe.vae.encode(torch.stack(list(folder))).latent_dist.mean * pipe.vae.config.scaling_factor
    classifier = NoisyLatentClassifier.from_pretrained(trained / "classifier").eval()
    labels, accuracies = torch.tensor(folder.labels), []
    wanted = torch.arange(60) % 3
    for scale in (0.0, 1.0, 3.0, 10.0):
        scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        denoiser = Mixture(latents, 0.05, scheduler)
        scheduler.set_timesteps(20)
        noise = torch.randn(60, *latents.shape[1:], generator=torch.Generator().manual_seed(0))
        samples = sample(denoiser, scheduler, noise, guidance=[ClassifierGuidance(classifier, wanted, scale)])
        nearest = (samples[:, None] - latents).flatten(2).norm(dim=2).argmin(1)
        accuracies.append(float((labels[nearest] == wanted).float().mean()))
    print("scale 0, 1, 3, 10: accuracy", accuracies)
    assert accuracies == sorted(set(accuracies)) and accuracies[0] < 0.5 and accuracies[-1] > 0.8


def test_what_does_not_fit_is_one_line(images, model, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (16, 16)).save(flat / "a.png")
    with pytest.raises(InputError, match="has 0 classes; sort the images"):
        train_classifier(recipe(flat, model, tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"classifier has \['num_classes'\], which follow from the data"):
        train_classifier(recipe(images, model, tmp_path / "out", classifier={"num_classes": 3}))
    with pytest.raises(
        ConfigError,
        match="name_or_path is None; it must be text; give the pipeline that is to be guided",
    ):
        recipe(images, None, tmp_path / "out", pretrained_model_name_or_path=None)
    with pytest.raises(ConfigError, match="wdth"):
        train_classifier(recipe(images, model, tmp_path / "out", classifier={"wdth": 3}))
    assert not (tmp_path / "out").exists()


def test_from_the_command_line(images, model, tmp_path):
    from latentdiff.cli.main import main

    values = {"data": {"train_data_dir": str(images), "resolution": 16}, "output_dir": str(tmp_path / "out")}
    values |= {"pretrained_model_name_or_path": str(model), "classifier": CLASSIFIER, "train_batch_size": 2}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert not main(["train", "classifier", str(tmp_path / "recipe.yaml"), "--max_train_steps", "1", "--quiet"])
    assert NoisyLatentClassifier.from_pretrained(tmp_path / "out" / "classifier").config.num_classes == 3
