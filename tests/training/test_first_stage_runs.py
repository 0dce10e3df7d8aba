"""Whole runs of first stages: what is measured of images held out, how they end, what is refused before they start."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from diffusers import AutoencoderKL
from first_stages import ADVERSARIAL, FSQ, KL, RESIDUAL, VQ, draw, log, run
from PIL import Image
from safetensors.torch import load_file, save_file

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, PerceptualDistance, UnconditionalPipeline
from latentdiff.config import load_recipe
from latentdiff.models.autoencoder_fsq import FSQModel
from latentdiff.models.autoencoder_rvq import ResidualVQModel
from latentdiff.models.autoencoder_vq import VQModel
from latentdiff.pipelines.codec import encode
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.engine import session as sessions
from latentdiff.training.first_stage.autoencoder import load_first_stage
from latentdiff.training.recipes import DiffusionRecipe

pytestmark = pytest.mark.thorough

MEAN_COLOUR = 13.87  # dB of drawn images painted over with their mean colour


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("first") / "drawn", 40)


@pytest.fixture(scope="module")
def vgg16(module_folder):
    """A trunk with random weights."""
    torch.manual_seed(0)
    path = module_folder / "vgg16.safetensors"
    save_file({name: p for name, p in PerceptualDistance().state_dict().items() if name.startswith("features")}, path)
    return path


def test_images_held_out_are_measured_and_shown(images, vgg16, tmp_path):
    lpips = {"vgg16": str(vgg16), "preprocessing": "torchvision"}
    options = {"validation.share": 0.25, "validation.steps": 2, "loss.lpips": lpips, "loss.perceptual_weight": 0.5}
    output = run(images, tmp_path, max_train_steps=4, **options, **ADVERSARIAL)
    names = ("loss", "psnr", "ssim", "perceptual", "frechet_vgg16")
    found = {name: log(output, f"validation/{name}") for name in names}
    assert all(len(values) == 2 and min(values) > 0 for values in found.values())
    assert log(output, "perceptual")[0] > 0 and log(output, "adversarial_weight")[0] > 0
    with Image.open(output / "validation" / "reconstructions-4.png") as picture:
        assert picture.size == (8 * 18 + 2, 2 * 18 + 2)  # eight of the ten, above their reconstructions
    assert not [
        name for name in load_file(output / "best" / "vae" / "diffusion_pytorch_model.safetensors") if "feat" in name
    ]


def test_held_out_folder_and_picture_are_those_of_the_exported_weights(images, tmp_path):
    held_out = draw(tmp_path / "held-out", 3)
    options = {"validation.data_dir": str(held_out), "validation.steps": 2, "loss.reconstruction": "l2"}
    output = run(images, tmp_path / "run", **options)
    vae = load_first_stage(str(output / "vae"))
    files = [np.asarray(Image.open(path)) for path in sorted(held_out.iterdir())]
    batch = torch.from_numpy(np.stack(files)).movedim(-1, 1) / 127.5 - 1
    with torch.no_grad():
        decoded = vae.decode(vae.encode(batch).latent_dist.mode()).sample.clamp(-1, 1)
    errors = (decoded - batch).square().mean(dim=(1, 2, 3))
    assert log(output, "validation/loss") == pytest.approx([float(errors.mean())], rel=1e-4)
    assert log(output, "validation/psnr") == pytest.approx([float((10 * (4 / errors).log10()).mean())], rel=1e-4)
    shown = np.asarray(Image.open(output / "validation" / "reconstructions-2.png"))
    assert (shown[2:18, 2:18] == files[0]).all()
    expected = np.round((decoded[0].movedim(0, -1).numpy() + 1) * 127.5)
    assert abs(shown[20:36, 2:18].astype(float) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 5])
def test_any_channels_are_judged_measured_and_shown(vgg16, tmp_path, channels):
    """16-bit grey PNG, which the perceptual network sees as grey, and arrays of five channels, which it can't see."""
    data = tmp_path / "data"
    data.mkdir()
    for i in range(8):
        values = np.random.default_rng(i).integers(0, 2**16, (16, 16, channels), dtype=np.uint16)
        Image.fromarray(values[..., 0]).save(data / f"{i}.png") if channels == 1 else np.save(data / f"{i}.npy", values)
    lpips = {"loss.lpips": {"vgg16": str(vgg16), "preprocessing": "caffe"}, "loss.perceptual_weight": 1.0}
    if channels == 5:
        with pytest.raises(ConfigError, match="lpips is given for images of 5 channels"):
            run(data, tmp_path / "bad", **lpips)
    options = {**(lpips if channels == 1 else {}), **ADVERSARIAL, "validation.share": 0.25, "validation.steps": 2}
    output = run(data, tmp_path / "run", model=VQ, **options)
    assert load_first_stage(str(output / "vae")).config.out_channels == channels
    assert log(output, "validation/ssim") and log(output, "discriminator")
    assert len(log(output, "validation/frechet_vgg16")) == (channels == 1)
    with Image.open(output / "validation" / "reconstructions-2.png") as picture:
        assert picture.size == (2 * 18 + 2, 2 * 18 + 2)


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        (DistributedType.FSDP, ADVERSARIAL, r"not trained by FSDP, .* launch without it"),
        (
            DistributedType.DEEPSPEED,
            {"model": VQ, "loss.codebook.restart": 9},
            r"not trained by DeepSpeed, .* without it",
        ),
        (
            DistributedType.DEEPSPEED,
            {"loss.adversarial.discriminator": {"layers": 2, "norm": "act"}},
            "not trained by DeepSpeed",
        ),
    ],
)
def test_sharded_networks_are_refused(images, tmp_path, monkeypatch, kind, options, line):
    accelerator = SimpleNamespace(distributed_type=kind, is_main_process=True, device=torch.device("cpu"))
    monkeypatch.setattr(sessions, "make_accelerator", lambda recipe: accelerator)
    with pytest.raises(ConfigError, match=line) as caught:
        run(images, tmp_path / "run", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_no_first_stage_but_names_it(images, tmp_path):
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=f"is no first stage, but holds one; give {tmp_path / 'vae'}"):
        run(images, tmp_path / "run", model={"pretrained_model_name_or_path": str(tmp_path)})


def test_means_are_over_the_steps_that_have_a_value(images, tmp_path):
    options = {"loss.adversarial.start_step": 3, "max_train_steps": 4, **ADVERSARIAL}
    each, together = (run(images, tmp_path / str(every), logging_steps=every, **options) for every in (1, 4))
    assert log(together, "discriminator") == log(each, "discriminator") and len(log(each, "discriminator")) == 1
    assert log(together, "loss")[0] == pytest.approx(np.mean(log(each, "loss")), rel=1e-5)


@pytest.mark.parametrize(("model", "kind"), [(KL, AutoencoderKL), (VQ, VQModel)])
def test_decoder_alone_from_a_trained_first_stage(images, tmp_path, model, kind):
    first = run(images, tmp_path / "first", model=model) / "vae"
    options = {"model": {"pretrained_model_name_or_path": str(first)}, "trainable": "decoder", **ADVERSARIAL}
    second = run(images, tmp_path / "second", **options) / "vae"
    before, after = (load_first_stage(str(folder)) for folder in (first, second))
    assert type(before) is type(after) is kind
    batch = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.equal(encode(before, batch, scaled=False), encode(after, batch, scaled=False))
    kept = {n for n, p in before.named_parameters() if torch.equal(p, after.get_parameter(n))}
    assert "decoder.conv_out.weight" not in kept
    assert {name.split(".")[0] for name in kept} >= {"encoder", "quant_conv"} | (
        {"quantize"} if kind is VQModel else set()
    )


@pytest.mark.parametrize(("model", "kind"), [(VQ, VQModel), (FSQ, FSQModel), (RESIDUAL, ResidualVQModel)])
def test_a_new_vq_model_serves_a_pipeline(images, tmp_path, caplog, model, kind):
    vae = run(images, tmp_path / "first", model=model) / "vae"
    unet = {
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "attention_levels": [False, False],
        "num_attention_heads": 1,
        "norm_num_groups": 4,
    }
    options = {
        "data.train_data_dir": str(images),
        "output_dir": str(tmp_path / "second"),
        "vae": str(vae),
        "unet": unet,
    }
    output = train_diffusion(
        load_recipe(DiffusionRecipe, None, {**options, "data.resolution": 16, "max_train_steps": 1})
    )
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe) is UnconditionalPipeline and type(pipe.vae) is kind and not caplog.records
    assert pipe(batch_size=1, num_inference_steps=2, seed=0, output_type="np").images.shape == (1, 16, 16, 3)


def test_restarted_codes_come_into_use(images, tmp_path):
    used = {}
    for restart in (0, 5):
        options = {"max_train_steps": 30, "logging_steps": 10, "loss.codebook.restart": restart}
        used[restart] = log(run(images, tmp_path / str(restart), model=VQ, **options), "codes_used")[-1]
    assert used[5] > 1.5 * used[0]


BAD = {
    "lpips missing": ({"loss.perceptual_weight": 1.0}, ConfigError, "lpips is missing; give the files"),
    "lpips unused": (
        {"loss.lpips": {"vgg16": "a"}},
        ConfigError,
        "neither loss.perceptual_weight nor valid",
    ),
    "lpips no file": ({"loss.perceptual_weight": 1, "loss.lpips": {"vgg16": "no.pth"}}, CheckpointError, "no.pth"),
    "lpips options": (
        {"loss.perceptual_weight": 1, "loss.lpips": {"vgg": "no.pth"}},
        ConfigError,
        "'loss.lpips.vgg'; did you",
    ),
    "lpips too small": (
        {"loss.perceptual_weight": 1, "loss.lpips": {"vgg16": "a"}, "data.resolution": 8},
        ConfigError,
        "at least 16",
    ),
    "default discriminator": (
        {"loss.adversarial.start_step": 5},
        ConfigError,
        "resolution is 16, but the discriminator needs 24",
    ),
    "two distances": (
        {"loss.lpips": {"vgg16": "a", "heads": "b", "preprocessing": "caffe"}},
        ConfigError,
        "loss.lpips.heads is given, but with preprocessing",
    ),
    "small": (
        {"loss.adversarial.discriminator": {"layers": 3}},
        ConfigError,
        "resolution is 16, but the discriminator needs 24",
    ),
    "norm": (
        {"loss.adversarial.discriminator": {"norm": "layer"}},
        ConfigError,
        "discriminator.norm is 'layer'; it must be 'batch' or 'act'",
    ),
    "layers": (
        {"loss.adversarial.discriminator": {"layers": 0}},
        ConfigError,
        "layers is 0; it must be at least 1",
    ),
    "unknown": ({"loss.adversarial.discriminator": {"depth": 3}}, ConfigError, "depth"),
    "channels": ({"loss.adversarial.discriminator": {"in_channels": 3}}, ConfigError, "in_channels"),
    "negative": ({"loss.kl_weight": -1}, ConfigError, "loss.kl_weight is -1; it must be at least 0"),
    "kl of vq": ({"model": VQ, "loss.kl_weight": 1e-3}, ConfigError, "loss.kl_weight is given, but training this VQ"),
    "restart of kl": (
        {"loss.codebook.restart": 9},
        ConfigError,
        "loss.codebook is given, but training this AutoencoderKL does",
    ),
    "restart of decoder": (
        {"model": VQ, "loss.codebook.restart": 9, "trainable": "decoder"},
        ConfigError,
        "VQModel's decoder does not use it",
    ),
    "class": ({"model": {**KL, "_class_name": "VQVAE"}}, ConfigError, "'VQVAE'; known: AutoencoderKL, FSQModel, R"),
    "codebook of fsq": ({"model": FSQ, "loss.codebook.beta": 1}, ConfigError, "training this FSQModel does not use it"),
    "kl of residual": ({"model": RESIDUAL, "loss.kl_weight": 1}, ConfigError, "training this ResidualVQModel does not"),
    "channels of fsq": ({"model": {**FSQ, "latent_channels": 3}}, ConfigError, "no option 'latent_channels'"),
    "levels": ({"model": {**FSQ, "levels": [1, 8]}}, ConfigError, r"levels is \[1, 8\]; give a number of at least 2"),
    "data's channels": ({"model": {**KL, "in_channels": 4}}, ConfigError, "the images have 3 channels"),
    "resolution": ({"data.resolution": 17}, ConfigError, "needs a multiple of 2"),
    "both": ({"model": {"pretrained_model_name_or_path": "a", **VQ}}, ConfigError, "leave them out"),
    "no model": ({"model": {"pretrained_model_name_or_path": "a/b/c"}}, CheckpointError, "a/b/c"),
    "nothing held out": ({"validation.steps": 5}, ConfigError, "validation.steps is 5, but no image is held out"),
    "share": ({"validation.share": 1.0, "validation.steps": 5}, ConfigError, "must be at least 0 and below 1"),
    "tiny share": (
        {"validation.share": 0.01, "validation.steps": 5},
        ConfigError,
        "0 images of 16 pixels are held out",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_before_the_first_step(images, tmp_path, name):
    options, kind, match = BAD[name]
    with pytest.raises(kind, match=match) as caught:
        run(images, tmp_path / "run", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


RANK = """
import json, sys, torch
from latentdiff.config import load_recipe
from latentdiff.data.images import ImageFolder
from latentdiff.training.first_stage.autoencoder import make_first_stage
from latentdiff.training.first_stage.task import FirstStageTask
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.session import open_session
from latentdiff.training.recipes import FirstStageRecipe

recipe = load_recipe(FirstStageRecipe, None, json.loads(sys.argv[1]))
torch.manual_seed(recipe.seed)


class Kept(FirstStageTask):
    encoders = {}

    def after_step(self, ema, rng):
        super().after_step(ema, rng)
        averaged = {f"ema.{name}": p for name, p in ema.shadow.items()}
        state = {**dict(self.named_parameters()), **averaged, "counts": self.bottleneck.counts}
        state |= {f"adversarial.{name}": value for name, value in self.adversarial.named_buffers() if "lecam" in name}
        self.encoders[f"encoder.{self.step}"] = self.vae.encoder.conv_in.weight.detach().clone()
        state |= self.encoders
        path = f"{recipe.output_dir}-{session.accelerator.process_index}.pt"
        torch.save({name: p.detach() for name, p in state.items()}, path)


task = Kept(make_first_stage(recipe.model, 3, 16), recipe)
with open_session(recipe) as session:
    assert session.accelerator.num_processes == 2
    train(task, ImageFolder(recipe.data.train_data_dir, 16), recipe, session)
"""


PHASES = [
    {"name": "reconstruct", "weights": {"adversarial": 0, "discriminator": 0}},
    {"name": "judge", "start_step": 2, "trainable": "discriminator"},
    {"name": "sharpen", "start_step": 3, "trainable": "decoder"},
]
STARTS = {
    "late": {"loss.adversarial.start_step": 2},
    "in phases": {"phases": PHASES, "loss.adversarial.lecam_weight": 0.1, "loss.equivariance": {}},
}


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "start"), [("batch", "late"), ("act", "late"), ("group", "in phases")])
def test_two_processes_keep_the_same_weights(images, tmp_path, norm, start):
    """With a start before the discriminator's, adaptive weights that differ, accumulation and restarted codes."""
    (tmp_path / "rank.py").write_text(RANK)
    recipe = {
        "data.resolution": 16,
        "model": VQ,
        "train_batch_size": 2,
        "max_train_steps": 5,
        "optimizer.learning_rate": 3e-3,
    }
    recipe |= {
        "data.train_data_dir": str(images),
        "output_dir": str(tmp_path / "run"),
        "loss.codebook.restart": 2,
        **STARTS[start],
    }
    recipe |= {
        "gradient_accumulation_steps": 2,
        "loss.adversarial.discriminator": {**ADVERSARIAL["loss.adversarial.discriminator"], "norm": norm},
    }
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = [sys.executable, *launch, str(tmp_path / "rank.py"), json.dumps(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"run-{rank}.pt", weights_only=True) for rank in (0, 1))
    still = [torch.equal(first[f"encoder.{step}"], first[f"encoder.{step + 1}"]) for step in range(4)]
    assert still == [start == "in phases" and step > 0 for step in range(4)]
    if start == "late":  # of the step since the last restart, on both, both micro-batches
        assert first["counts"].sum() == 2 * 2 * 2 * 64
    different = [name for name, value in first.items() if not torch.equal(value, second[name])]
    assert not different


@pytest.mark.slow
@pytest.mark.parametrize("model", [KL, VQ], ids=["kl", "vq"])
def test_an_adversarial_run_improves_images_held_out(vgg16, tmp_path, model):
    images = draw(tmp_path / "drawn", 300)
    options = {"loss.perceptual_weight": 0.1, "loss.lpips": {"vgg16": str(vgg16), "preprocessing": "torchvision"}}
    options |= {"validation.share": 0.1, "validation.steps": 100, "max_train_steps": 500, "ema.decay": 0.98}
    options |= {"loss.codebook.restart": 20} if model is VQ else {}
    start = {"loss.adversarial.start_step": 200, "loss.adversarial.warmup_steps": 100, **ADVERSARIAL}
    output = run(images, tmp_path / "run", model=model, train_batch_size=8, logging_steps=50, **options, **start)
    figures = {name: log(output, f"validation/{name}") for name in ("psnr", "ssim", "perceptual", "frechet_vgg16")}
    assert figures["psnr"][-1] > MEAN_COLOUR + 3  # half of its error
    assert figures["psnr"][-1] > figures["psnr"][0] + 1 and figures["ssim"][-1] > figures["ssim"][0]
    for name in ("perceptual", "frechet_vgg16"):
        assert figures[name][-1] < figures[name][0]
    assert log(output, "discriminator")[-1] > 0 and log(output, "adversarial_weight")[-1] > 0
