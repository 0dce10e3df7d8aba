"""Consistency distillation: the student learns, is saved with its solver, and samples in four steps."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
import toy
from safetensors.torch import load_file

from latentdiff import ConfigError, DiffusionPipeline, LCMScheduler, TCDScheduler
from latentdiff.data.images import ImageFolder
from latentdiff.schedulers.predictions import FLOW
from latentdiff.seeding import SampleGenerators
from latentdiff.testing import GaussianData
from latentdiff.testing.gaussian import noise_level, run_scheduler
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.distillation import prepare_distillation

pytestmark = pytest.mark.thorough
FLOW_SCHEDULE = {"prediction_type": FLOW}
DISTILL = {"max_train_steps": 4, "unet": {}, "noise_schedule": {}}


@pytest.fixture(scope="module")
def teachers(data, vae, tmp_path_factory):
    """Teachers by task; the one of classes predicts a flow."""
    folder = tmp_path_factory.mktemp("teachers")
    options = {"class-to-image": {"noise_schedule": FLOW_SCHEDULE, "max_train_steps": 60}}
    for task in ("unconditional", "class-to-image", "text-to-image", "inpaint"):
        toy.train(task, data, vae, folder / task, **{"max_train_steps": 2, **options.get(task, {})})
    return folder


def distilled(task, data, teachers, output, first_stage=None, **options):
    given = {"pretrained_model_name_or_path": str(teachers / task / "pipeline"), "distill": {}, **DISTILL, **options}
    return toy.train(task, data, first_stage, output, conditioning=None, **given)


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("method", "solver"), [("consistency", LCMScheduler), ("trajectory", TCDScheduler)])
def test_the_loss_falls_and_four_steps_make_images(data, teachers, tmp_path, method, solver):
    options = {
        "distill.method": method,
        "max_train_steps": 80,
        "logging_steps": 20,
        "optimizer.learning_rate": 1e-3,
        "train_batch_size": 8,
    }
    output = distilled("class-to-image", data, teachers, tmp_path, **options)
    history = losses(output)
    assert history[-1] < 0.8 * history[0]
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe.scheduler) is solver and pipe.scheduler.config.original_inference_steps == 50
    images = pipe("red", num_inference_steps=4, guidance_scale=1, seed=0, output_type="np").images
    assert images.shape == (1, 16, 16, 3)


@pytest.mark.parametrize("task", ["unconditional", "text-to-image", "inpaint"])
def test_any_conditioning_is_distilled_by_its_unet_alone(data, teachers, tmp_path, task):
    output = distilled(task, data, teachers, tmp_path)
    for part in (output / "pipeline").glob("*/*.safetensors"):
        before, after = load_file(teachers / task / "pipeline" / part.relative_to(output / "pipeline")), load_file(part)
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (part.parent.name != "unet"), part
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    rows, quiet = toy.lines(data)[:2], {} if task in ("unconditional", "inpaint") else {"guidance_scale": 1}
    assert toy.call(task, pipe, data, rows, num_inference_steps=4, seed=0, **quiet).shape == (2, 16, 16, 3)


def test_a_distillation_resumes_bit_for_bit(data, teachers, tmp_path):
    whole = distilled("class-to-image", data, teachers, tmp_path / "whole")
    shutil.copytree(whole / "checkpoint-2", tmp_path / "parts" / "checkpoint-2")
    parts = distilled("class-to-image", data, teachers, tmp_path / "parts", resume_from_checkpoint="latest")
    for file in ("model.safetensors", "ema.safetensors"):
        first, second = (load_file(folder / "checkpoint-4" / file) for folder in (whole, parts))
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert {name.split(".")[0] for name in first} == {"unet"}  # the teacher is no part of it


def test_guidance_is_learned_along(data, teachers, tmp_path):
    """The first loss is that of the guided teacher, which a student of the unguided one doesn't have."""
    found = {}
    for scale in (1.0, 4.0):
        options = {"distill": {"guidance_scale": scale}, "max_train_steps": 1, "logging_steps": 1}
        found[scale] = losses(distilled("class-to-image", data, teachers, tmp_path / str(scale), **options))[0]
    assert found[4.0] != found[1.0]


def test_the_exact_consistency_function_has_no_loss():
    """What `Consistency` compares is equal for the perfect teacher of narrow data and their perfect student."""
    data = GaussianData(std=0.02)
    scheduler = LCMScheduler()
    scheduler.set_timesteps(4)
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    made = run_scheduler(scheduler, data.model(scheduler, consistency=True), x, generator=torch.Generator())
    assert float(made.mean()) == pytest.approx(data.mean, abs=0.01)
    assert noise_level(scheduler, 0)[0] > 0.99


class Exact(torch.nn.Module):
    """Predicts the noise of images that are all one, or `share` of it."""

    def __init__(self, image, scheduler, share=1.0):
        super().__init__()
        self.image, self.alphas, self.share = image, scheduler.alphas_cumprod, share

    def forward(self, sample, timestep, **_):
        alpha = self.alphas[timestep.long()].reshape(-1, 1, 1, 1)
        return SimpleNamespace(sample=self.share * (sample - alpha.sqrt() * self.image) / (1 - alpha).sqrt())


@pytest.mark.parametrize("method", ["consistency", "trajectory"])
def test_who_knows_the_image_is_consistent(data, teachers, method):
    """For a single image the solver's steps are exact, and a student who knows it has nothing left to learn."""
    given = {"pretrained_model_name_or_path": str(teachers / "unconditional" / "pipeline"), "conditioning": None}
    recipe = toy.recipe("unconditional", data, None, "unused", **given, distill={"method": method})
    conditioner = make_conditioner(recipe, ImageFolder(data, toy.SIDE))
    consistency = prepare_distillation(conditioner, recipe.distill)
    moments = torch.cat([torch.full((8, 4, 8, 8), 0.7), torch.full((8, 4, 8, 8), -30.0)], dim=1)
    image = 0.7 * conditioner.pipeline.vae.config.scaling_factor
    consistency.teacher = Exact(image, consistency.scheduler)
    found = []
    for share in (1.0, 0.9):
        student = Exact(image, consistency.scheduler, share)
        found.append(float(consistency(student, {"moments": moments}, SampleGenerators(0, range(8)))))
    assert found[0] < 0.05 * found[1]  # the noise of timestep 0 stays


BAD = {
    "another schedule": ({"distill.teacher": "unconditional"}, "predicts epsilon, the pretrained"),
    "no pretrained": (
        {"pretrained_model_name_or_path": None, "first_stage": "vae", "unet": toy.UNET},
        "give the pipeline to",
    ),
    "loss": ({"loss.type": "l1"}, "loss is given, but distill has its own"),
    "density": ({"timesteps.density": "cosmap"}, "timesteps is given, but distill has its own"),
    "steps": ({"distill.solver_steps": 1001}, "distill.solver_steps is 1001; it must be 2 to 1000"),
    "method": (
        {"distill.method": "shortcut"},
        "distill.method is 'shortcut'; it must be 'consistency' or 'trajectory'",
    ),
    "one step": ({"distill.solver_steps": 1}, "distill.solver_steps is 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_distilled_is_one_line(data, teachers, tmp_path, name):
    options, message = BAD[name]
    if "distill.teacher" in options:
        options = {"distill.teacher": str(teachers / options["distill.teacher"] / "pipeline")}
    with pytest.raises(ConfigError, match=message) as caught:
        distilled("class-to-image", data, teachers, tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "log.jsonl").exists()


def test_a_teacher_of_other_betas_is_refused(data, vae, teachers, tmp_path):
    other = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.02}
    toy.train("unconditional", data, vae, tmp_path / "other", noise_schedule=other, max_train_steps=1)
    with pytest.raises(ConfigError, match="has another noise schedule than the pretrained pipeline"):
        teacher = {"distill.teacher": str(tmp_path / "other" / "pipeline")}
        distilled("unconditional", data, teachers, tmp_path / "out", **teacher)
    same = {"distill.teacher": str(teachers / "unconditional" / "pipeline"), "max_train_steps": 1}
    assert (distilled("unconditional", data, teachers, tmp_path / "same", **same) / "pipeline").is_dir()


def test_guidance_without_a_null_condition_is_refused(data, teachers, tmp_path):
    with pytest.raises(ConfigError, match=r"distill\.guidance_scale is 2\.0, but this model knows no null"):
        distilled("unconditional", data, teachers, tmp_path, **{"distill.guidance_scale": 2.0})
