"""Tiny decoders learn what their teachers decode, and leave these as they are."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

from latentdiff import CheckpointError, ConfigError, TinyDecoder
from latentdiff.cli.main import main
from latentdiff.config import load_recipe
from latentdiff.models.autoencoder_vq import VQModel
from latentdiff.models.latent_colours import LatentColours
from latentdiff.pipelines import preview
from latentdiff.seeding import SampleGenerators
from latentdiff.training.first_stage.distillation import Teacher, make_tiny_decoder
from latentdiff.training.first_stage.task import DistillationTask, train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

SHAPE = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
SMALL = {"block_out_channels": [16, 16], "layers_per_block": 1}


def teacher(kind=AutoencoderKL):
    torch.manual_seed(0)
    vae = kind(**SHAPE, **({"num_vq_embeddings": 16} if kind is VQModel else {})).eval()
    preview.fit(vae, preview.drawn_latents(vae))
    return vae


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "vae"
    teacher().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Shaded grounds of random colours."""
    path, rng = tmp_path_factory.mktemp("data") / "images", np.random.default_rng(0)
    path.mkdir()
    for number in range(16):
        shades = np.linspace(rng.integers(0, 90, 3), rng.integers(100, 256, 3), 16).astype(np.uint8)
        Image.fromarray(np.repeat(shades[:, None], 16, 1)).save(path / f"{number:02}.png")
    return path


def options(folder, images, output, **changed):
    base = {"data.train_data_dir": str(images), "data.resolution": 16, "output_dir": str(output), "report_to": "none"}
    base |= {"model": {"pretrained_model_name_or_path": str(folder)}, "distill_decoder": True, "decoder": SMALL}
    return {**base, "train_batch_size": 4, "max_train_steps": 2, "logging_steps": 1, **changed}


def run(*places, **changed):
    return train_first_stage(load_recipe(FirstStageRecipe, None, options(*places, **changed)))


def some(count=6):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("kind", [AutoencoderKL, VQModel])
def test_the_loss_is_the_distance_from_what_the_teacher_decodes(kind):
    vae = teacher(kind)
    made = make_tiny_decoder(SMALL, vae, some())
    recipe = load_recipe(FirstStageRecipe, None, options("vae", "images", "run"))
    loss, _ = DistillationTask(Teacher(vae), made, recipe)(some(), SampleGenerators(0, range(6)))
    with torch.no_grad():
        output = vae.encode(some())
        if kind is VQModel:
            latents = output.latents  # before quantisation, as diffusion models make them
        else:
            mean, std = output.latent_dist.mean, output.latent_dist.std
            latents = mean + std * SampleGenerators(0, range(6)).normal_like(mean)
        expected = F.l1_loss(made.decode(latents).sample, vae.decode(latents).sample)
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    assert loss.item() != pytest.approx(float(F.l1_loss(made.decode(latents).sample.detach(), some())), rel=1e-2)
    loss.backward()
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(parameter.grad.any() for parameter in made.parameters())


def test_a_new_decoder_follows_its_teacher():
    vae = teacher()
    vae.register_to_config(scaling_factor=0.3, shift_factor=0.1)
    made = make_tiny_decoder({"layers_per_block": 2}, vae, some())
    config = made.config
    assert (config.latent_channels, config.block_out_channels, config.layers_per_block) == (4, [64, 64], 2)
    assert (config.scaling_factor, config.shift_factor) == (0.3, 0.1)
    with torch.no_grad():
        latents = vae.encode(some()).latent_dist.mode()
    assert config.latent_scale == pytest.approx(float(1 / latents.std()), rel=1e-5)
    assert torch.equal(LatentColours.of(made).factors, LatentColours.of(vae).factors)
    assert make_tiny_decoder({"latent_scale": 2.0}, vae, some()).config.latent_scale == 2.0


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"latent_channels": 3}, "decoder.latent_channels is 3, but the first stage has 4; leave it out"),
        ({"scaling_factor": 2.0}, "decoder.scaling_factor is 2.0"),
        ({"block_out_channels": [8]}, "decoder.block_out_channels has 1 levels, but the first stage 2; give as many"),
        ({"block_out_channels": [8, 8, 8]}, "has 3 levels, but the first stage 2"),
        ({"channels": 8}, "decoder does not fit TinyDecoder"),
    ],
)
def test_decoders_that_do_not_fit_are_refused(given, line):
    with pytest.raises(ConfigError, match=line):
        make_tiny_decoder(given, teacher(), some())


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"model": {}}, "distill_decoder needs the first stage to learn from"),
        ({"model": {"latent_channels": 4}}, "distill_decoder needs the first stage to learn from"),
        ({"distill_decoder": False}, "decoder is given, but distill_decoder is false"),
        ({"trainable": "all"}, "trainable is given, but distill_decoder does not use it"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing is given, but distill_decoder does not use it"),
        ({"loss.kl_weight": 1e-6}, "loss.kl_weight is given, but distill_decoder does not use it"),
        ({"loss.codebook.beta": 0.25}, "loss.codebook is given, but distill_decoder does not use it"),
        ({"loss.adversarial.weight": 0.5}, "loss.adversarial is given, but distill_decoder does not use it"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changed, line):
    with pytest.raises(ConfigError, match=line):
        load_recipe(FirstStageRecipe, None, options("vae", "images", "run", **changed))


@pytest.mark.thorough
def test_it_learns_to_decode_as_its_teacher_does(images, tmp_path):
    shape = {"model": SHAPE, "distill_decoder": False, "decoder": {}, "optimizer.learning_rate": 5e-3}
    folder = run("", images, tmp_path / "first", max_train_steps=60, logging_steps=60, **shape) / "vae"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {"validation.steps": 40, "validation.share": 0.25, "optimizer.learning_rate": 3e-3, "ema.decay": 0.0}
    output = run(folder, images, tmp_path / "run", max_train_steps=80, logging_steps=40, **changed)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    losses = [line["validation/loss"] for line in lines if "validation/loss" in line]
    assert len(losses) == 2 and losses[-1] < losses[0]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    made, vae = TinyDecoder.from_pretrained(output / "decoder"), AutoencoderKL.from_pretrained(folder)
    batch = torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in sorted(images.iterdir())])
    with torch.no_grad():
        latents = vae.encode(batch.movedim(-1, 1) / 127.5 - 1).latent_dist.mode()
        ours, theirs = made.decode(latents).sample, vae.decode(latents).sample
    means = theirs.mean(dim=(2, 3), keepdim=True)
    assert (ours - theirs).square().mean() < 0.1 * (theirs - means).square().mean()
    with Image.open(output / "validation" / "reconstructions-80.png") as picture:
        shown = np.asarray(picture)  # four held out: what the teacher decodes above what the decoder does
    assert shown.shape == (2 * 18 + 2, 4 * 18 + 2, 3)
    checkpoint = load_file(next(output.glob("checkpoint-*")) / "model.safetensors")
    assert all(name.startswith("decoder.") for name in checkpoint)
    assert (output / "best" / "decoder" / "config.json").is_file()


@pytest.mark.thorough
def test_a_run_goes_on_with_the_same_teacher_alone(folder, images, tmp_path):
    other = tmp_path / "vae"
    shutil.copytree(folder, other)
    whole = run(other, images, tmp_path / "whole", max_train_steps=4)
    run(other, images, tmp_path / "parts")
    again = {"max_train_steps": 4, "resume_from_checkpoint": "latest"}
    parts = run(other, images, tmp_path / "parts", **again)
    files = [load_file(place / "decoder" / "diffusion_pytorch_model.safetensors") for place in (whole, parts)]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    torch.manual_seed(1)
    AutoencoderKL(**SHAPE).save_pretrained(other)
    with pytest.raises((ConfigError, CheckpointError), match="weights of the first stage"):
        run(other, images, tmp_path / "parts", **{**again, "max_train_steps": 6})


@pytest.mark.thorough
def test_the_commands_distil_a_decoder_and_use_it(folder, images, unconditional, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = options(folder, images, "tiny")
    del given["distill_decoder"]
    words = [word for name, value in given.items() for word in (f"--{name}", json_of(value))]
    assert main(["train", "first-stage", "--distill-decoder", *words, "--quiet"]) == 0
    sample = ["sample", "--model", str(unconditional), "--steps", "2", "-n", "1", "--quiet"]
    assert main([*sample, "-o", "plain"]) == 0
    assert main([*sample, "-o", "out", "--decoder", "tiny"]) == 0
    plain, made = (np.asarray(Image.open(f"{place}/000000.png")) for place in ("plain", "out"))
    assert plain.shape == made.shape and (plain != made).any()
    assert main(["info", "out/000000.png"]) == 0
    assert "--decoder tiny" in capsys.readouterr().out
    assert main([*sample, "-o", "plain", "--decoder", "tiny"]) == 2  # images of other options are there
    assert "was made of another model, input or options" in capsys.readouterr().err


def json_of(value):
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture
def unconditional(tmp_path, folder):
    from tiny import tiny_unconditional

    return tiny_unconditional(tmp_path)
