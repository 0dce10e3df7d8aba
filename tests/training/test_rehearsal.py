"""A dry run tells what the run will need, and leaves nothing."""

import re

import pytest
import torch
import toy

from latentdiff import DiffusionPipeline, InputError
from latentdiff.config import load_recipe
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.engine import dry_run as rehearsal
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return toy.write(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    torch.manual_seed(0)
    return toy.write_vae(tmp_path_factory.mktemp("first_stage"))


def rehearsed(task, data, vae, output, **options):
    recipe = toy.recipe(task, data, vae, output, **{"train_batch_size": 6, "gradient_accumulation_steps": 2, **options})
    return "\n".join(rehearsal.dry_run(train_diffusion, recipe))


def numbers(pattern, text):
    return [float(number.replace(",", "")) for number in re.search(pattern, text).groups()]


def test_it_counts_what_a_run_has(data, vae, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "ENCODED_IMAGES", 7)  # of 24 images
    monkeypatch.setattr(rehearsal, "GIB", 1)
    text = rehearsed("class-to-image", data, vae, tmp_path / "out", max_train_steps=10, **{"data.random_flip": True})
    assert list(tmp_path.iterdir()) == []
    output = toy.train("class-to-image", data, vae, tmp_path / "run", max_train_steps=1)
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    sizes = {
        name: sum(p.numel() for p in getattr(pipe, name).parameters()) for name in ("unet", "class_embedder", "vae")
    }
    trained = sizes["unet"] + sizes["class_embedder"]
    assert numbers(r"parameters: ([\d,]+) trained, ([\d,]+) frozen", text) == [trained, sizes["vae"]]
    assert numbers(r"data: (\d+) images, (\d+) a step, ([\d.]+) steps an epoch", text) == [24, 12, 2]
    assert numbers(r"run: (\d+) steps, ([\d.]+) epochs", text) == [10, 5]
    found = numbers(r"weights ([\d.]+) \+ gradients ([\d.]+) \+ optimiser ([\d.]+) \+ EMA ([\d.]+)", text)
    weights, gradients, moments, ema = found
    assert (weights, gradients, ema) == (4 * (trained + sizes["vae"]), 4 * trained, 4 * trained)
    assert 8 * trained <= moments <= 8 * trained + 4 * len(list(pipe.unet.parameters())) + 4  # a step count each
    (speed,) = numbers(r"speed: ([\d.,]+) images a second", text)
    assert speed > 0


def test_activations_follow_the_levers(data, vae, tmp_path, monkeypatch):
    """Twice the micro-batch takes twice as much, checkpointing less, accumulation nothing."""
    monkeypatch.setattr(rehearsal, "GIB", 1)

    def activations(**options):
        text = rehearsed("unconditional", data, vae, tmp_path / "out", **options)
        return numbers(r"activations ([\d.]+)", text)[0]

    plain = activations()
    assert activations(train_batch_size=12) == pytest.approx(2 * plain, rel=0.02)
    assert activations(gradient_accumulation_steps=4) == pytest.approx(plain, rel=0.02)
    assert activations(gradient_checkpointing=True) < 0.5 * plain


def test_the_discriminator_takes_part(data, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "GIB", 1)
    options = {
        "data.train_data_dir": str(data),
        "output_dir": str(tmp_path / "out"),
        "data.resolution": 16,
        "model": toy.VAE,
    }
    options |= {"loss.adversarial.discriminator": {"channels": 8, "layers": 2}, "train_batch_size": 4}
    found = []
    for start in (0, 1000):
        recipe = load_recipe(FirstStageRecipe, None, {**options, "loss.adversarial.start_step": start})
        found.append(numbers(r"activations ([\d.]+)", "\n".join(rehearsal.dry_run(train_first_stage, recipe))))
    assert found[0] == found[1]


def test_what_would_end_the_run_ends_the_rehearsal(data, vae, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        rehearsed("unconditional", data, vae, tmp_path / "file" / "out")
