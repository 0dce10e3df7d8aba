"""Real training runs at tiny size: they learn, resume bit for bit, and end as folders that pipelines load."""

import json

import numpy as np
import pytest
import torch
import toy
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file
from tiny import SPECIAL, WORDS

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, InputError, LatentDiffError, TextToImagePipeline
from latentdiff.config import load_recipe
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

pytestmark = pytest.mark.thorough

COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (50, 80, 220)}
UNET = {**toy.UNET, "sample_size": 8, "cross_attention_dim": 16}
TEXT = toy.TASKS["text-to-image"]["text_encoder"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve flat squares with their colour as caption."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for i in range(12):
        colour = list(COLOURS)[i % 3]
        Image.new("RGB", (20, 16), tuple(c + i for c in COLOURS[colour])).save(folder / f"{i}.png")
        rows.append(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} apple"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    return folder


def first_stage(images, output, **options):
    recipe = {
        "data.train_data_dir": str(images),
        "output_dir": str(output),
        "data.resolution": 16,
        "model": toy.VAE,
        "train_batch_size": 4,
        "max_train_steps": 4,
        "optimizer.learning_rate": 5e-3,
        "checkpoint.steps": 2,
        "logging_steps": 2,
    }
    return train_first_stage(load_recipe(FirstStageRecipe, None, {**recipe, **options}))


@pytest.fixture(scope="module")
def vae(images, tmp_path_factory):
    return first_stage(images, tmp_path_factory.mktemp("vae")) / "vae"


def diffusion(images, vae, output, **options):
    return toy.train("text-to-image", images, vae, output, **{"unet": UNET, **options})


def weights_of(folder):
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {f"{path.parent.name}.{name}": tensor for path in files for name, tensor in load_file(path).items()}


def assert_same_bits(first, second, placement):
    assert first.keys() == second.keys()
    for name in first:
        placement.assert_same(first[name], second[name])


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_first_stage_learns_and_loads(images, tmp_path):
    output = first_stage(
        images, tmp_path, max_train_steps=60, logging_steps=10, **{"optimizer.learning_rate": 2e-3}, seed=1
    )
    history = losses(output)
    assert history[-1] < 0.6 * history[0]
    assert isinstance(AutoencoderKL.from_pretrained(output / "vae"), AutoencoderKL)


ADVERSARIAL = {
    "loss.adversarial": {"discriminator": {"channels": 4, "layers": 2}, "start_step": 1, "warmup_steps": 2},
}
VQ = {**toy.VAE, "_class_name": "VQModel", "num_vq_embeddings": 32}
FIRST_STAGES = {
    "kl": {},
    "kl, adversarial, bf16": {**ADVERSARIAL, "mixed_precision": "bf16", "data.random_flip": True},
    "vq, adversarial": {"model": VQ, "loss.codebook.restart": 3, "gradient_accumulation_steps": 2, **ADVERSARIAL},
}


@pytest.mark.parametrize("name", FIRST_STAGES)
def test_first_stage_resumes_bit_for_bit(images, tmp_path, name, placement):
    options = {"mixed_precision": placement.mixed_precision, **FIRST_STAGES[name]}
    whole = first_stage(images, tmp_path / "whole", **options)
    first_stage(images, tmp_path / "parts", max_train_steps=2, **options)
    parts = first_stage(images, tmp_path / "parts", resume_from_checkpoint="latest", **options)
    assert_same_bits(weights_of(whole / "checkpoint-4"), weights_of(parts / "checkpoint-4"), placement)
    assert_same_bits(weights_of(whole / "vae"), weights_of(parts / "vae"), placement)


def test_diffusion_learns_and_samples(images, vae, tmp_path):
    output = diffusion(images, vae, tmp_path, max_train_steps=100, logging_steps=25)
    history = losses(output)
    assert history[-1] < 0.7 * history[0]
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe) is TextToImagePipeline
    assert pipe("a red apple", num_inference_steps=2, seed=0, output_type="np").images.shape == (1, 16, 16, 3)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "mixed_precision": "bf16"}])
def test_diffusion_resumes_bit_for_bit(images, vae, tmp_path, options, placement):
    options = {"mixed_precision": placement.mixed_precision, **options}
    whole = diffusion(images, vae, tmp_path / "whole", **options)
    diffusion(images, vae, tmp_path / "parts", max_train_steps=2, **options)
    parts = diffusion(images, vae, tmp_path / "parts", resume_from_checkpoint="latest", **options)
    assert_same_bits(weights_of(whole / "pipeline"), weights_of(parts / "pipeline"), placement)


def test_latent_scale_is_measured(images, vae, tmp_path):
    """Scaled latents of the data have unit variance."""
    output = diffusion(images, vae, tmp_path, max_train_steps=1, **{"checkpoint.steps": 1})
    scale = DiffusionPipeline.from_pretrained(output / "pipeline").vae.config.scaling_factor
    mean, logvar = np.split(np.load(output / "latents" / "moments.npy").astype(np.float64), 2, axis=1)
    noise = np.random.default_rng(0).standard_normal((64, *mean.shape))
    assert abs((scale * (mean + np.exp(0.5 * logvar) * noise)).std() - 1) < 0.02


def test_latents_are_encoded_once(images, vae, tmp_path, monkeypatch):
    diffusion(images, vae, tmp_path, max_train_steps=1)
    stamp = (tmp_path / "latents" / "moments.npy").stat().st_mtime_ns
    monkeypatch.setattr(AutoencoderKL, "encode", None)
    diffusion(images, vae, tmp_path, max_train_steps=2, resume_from_checkpoint="latest")
    assert (tmp_path / "latents" / "moments.npy").stat().st_mtime_ns == stamp


def test_unconditional_and_flipped(images, vae, tmp_path):
    options = {
        "unet": {**UNET, "cross_attention_dim": None},
        "conditioning": None,
    }
    output = diffusion(images, vae, tmp_path, **options, **{"data.random_flip": True}, max_train_steps=2)
    assert len(np.load(output / "latents" / "moments.npy")) == 24
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert pipe(batch_size=2, num_inference_steps=2, seed=0, output_type="np").images.shape == (2, 16, 16, 3)


def test_going_on_from_a_pipeline(images, vae, tmp_path):
    first = diffusion(images, vae, tmp_path / "first", max_train_steps=2)
    again = diffusion(
        images, vae, tmp_path / "again", pretrained_model_name_or_path=str(first / "pipeline"), max_train_steps=1
    )
    before, after = weights_of(first / "pipeline"), weights_of(again / "pipeline")
    assert before.keys() == after.keys() and not torch.equal(
        before["unet.conv_in.weight"], after["unet.conv_in.weight"]
    )
    assert torch.equal(before["vae.quant_conv.weight"], after["vae.quant_conv.weight"])


def test_checkpoints_are_limited_and_whole(images, tmp_path):
    first_stage(images, tmp_path, max_train_steps=6, **{"checkpoint.total_limit": 2})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-4", "checkpoint-6", "log.jsonl", "logs", "vae"]


BAD = {
    "no data": ({"data.train_data_dir": "/nowhere"}, InputError, "not a folder"),
    "diverging": (
        {"optimizer.learning_rate": 1e20, "max_train_steps": 8, "max_skipped_steps": 4},
        LatentDiffError,
        "4 steps in",
    ),
    "schedule": ({"optimizer.lr_scheduler": "cosin"}, ConfigError, "lr_scheduler"),
    "checkpoint": ({"resume_from_checkpoint": "elsewhere"}, CheckpointError, "not a checkpoint"),
    "model": ({"model": {**toy.VAE, "latent_chanels": 4}}, ConfigError, "latent_chanels"),
    "steps": ({"max_train_steps": 0}, ConfigError, "max_train_steps"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recipe_is_one_line(images, tmp_path, name):
    options, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        first_stage(images, tmp_path / "run", **options)
    assert "\n" not in str(caught.value)


def test_damaged_checkpoint_is_named(images, tmp_path):
    first_stage(images, tmp_path)
    (tmp_path / "checkpoint-4" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="checkpoint-4"):
        first_stage(images, tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-4"), max_train_steps=6)


def test_captions_are_needed(images, vae, tmp_path):
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "plain" / "a.png")
    with pytest.raises(InputError, match=r"metadata\.jsonl"):
        diffusion(tmp_path / "plain", vae, tmp_path / "run", **{"conditioning.vocabulary": str(images / "vocab.txt")})
