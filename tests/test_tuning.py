"""`tune_steps` on a tiny model: what it says is what calls of the pipeline give."""

import json

import numpy as np
import pytest
import torch
from tiny import tiny_unconditional

from latentdiff import CheckpointError, DiffusionPipeline, InputError, save_tuned, tune_steps
from latentdiff.schedulers.tuned import FIELD, read_tuned

IMAGES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_unconditional(tmp_path_factory.mktemp("model"))


def load(folder):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def tuned(folder):
    pipe = load(folder)
    pipe.set_scheduler("deis")
    return tune_steps(pipe, 3, num_images=IMAGES, batch_size=2, seed=5, rounds=2)


def latents(pipe, **schedule):
    return pipe(batch_size=IMAGES, seed=5 + IMAGES, output_type="latent", **schedule).images


@pytest.mark.thorough
def test_distances_are_those_of_images_that_were_not_tuned_on(folder, tuned):
    pipe = load(folder)
    pipe.set_scheduler("dpmpp_2m", use_karras_sigmas=True)
    teacher = latents(pipe, num_inference_steps=80)
    pipe.set_scheduler("deis", use_karras_sigmas=False)

    def distance(timesteps):
        return float((latents(pipe, timesteps=timesteps) - teacher).square().flatten(1).mean(1).sqrt().mean())

    assert tuned.distance == pytest.approx(distance(tuned.timesteps), rel=1e-4)
    assert tuned.untuned["trailing"] == pytest.approx(distance([999, 666, 332]), rel=1e-4)
    assert set(tuned.untuned) == {"trailing", "linspace", "karras", "logsnr"}


def test_untuned_timesteps_are_kept_where_none_are_better(tuned):
    assert tuned.distance <= min(tuned.untuned.values())
    assert (tuned.method in tuned.untuned) == (tuned.distance == min(tuned.untuned.values()))
    assert (tuned.solver, tuned.guidance_scale, len(tuned.timesteps)) == ("DEISScheduler", 1.0, 3)


@pytest.mark.thorough
def test_the_same_call_finds_the_same(folder, tuned):
    pipe = load(folder)
    pipe.set_scheduler("deis")
    before = pipe.scheduler
    assert tune_steps(pipe, 3, num_images=IMAGES, batch_size=2, seed=5, rounds=2) == tuned
    assert pipe.scheduler is before and pipe.scheduler.num_inference_steps is not None


def test_a_saved_model_takes_them(tmp_path, tuned):
    folder = tiny_unconditional(tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    path = save_tuned(folder, tuned)
    changed = [file for file, content in before.items() if file.read_bytes() != content]
    assert changed == [path] and len(before) == sum(file.is_file() for file in folder.rglob("*"))
    config = json.loads(path.read_text())
    assert {name: value for name, value in config.items() if name != FIELD} == json.loads(before[path])
    pipe = load(folder)
    assert read_tuned(pipe.scheduler.config) == [tuned]
    with pytest.raises(InputError, match="no such timesteps for DDIMScheduler"):
        pipe(num_inference_steps="tuned:3", seed=0)
    pipe.set_scheduler("deis")
    by_name = latents(pipe, num_inference_steps="tuned:3")
    assert torch.equal(by_name, latents(pipe, timesteps=tuned.timesteps))
    pipe.save_pretrained(tmp_path / "again")
    assert read_tuned(load(tmp_path / "again").scheduler.config) == [tuned]


def test_no_folder_of_a_model(tmp_path, tuned):
    with pytest.raises(CheckpointError, match=r"has no scheduler/scheduler_config\.json; give a model's folder"):
        save_tuned(tmp_path, tuned)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="can't be read"):
        save_tuned(tmp_path, tuned)
    assert (tmp_path / "scheduler" / "scheduler_config.json").read_text() == "[1]"


@pytest.mark.parametrize(
    ("solver", "options", "message"),
    [
        ("euler_ancestral", {}, "EulerAncestralScheduler adds noise"),
        ("restart", {}, "RestartScheduler adds noise"),
        ("ddim", {"num_inference_steps": 1}, "num_inference_steps is 1; steps are tuned for 2 to 40"),
        ("ddim", {"num_inference_steps": 41}, "num_inference_steps is 41; steps are tuned for 2 to 40"),
        ("ddim", {"num_images": 0}, "num_images is 0"),
        ("ddim", {"batch_size": 0}, "batch_size is 0"),
        ("ddim", {"inputs": ["a dog"]}, r"inputs is \['a dog'\]; give a mapping of the same arguments"),
        ("ddim", {"inputs": [{"prompt": "a"}, {"text": "a"}]}, "give a mapping of the same arguments"),
    ],
)
def test_what_cannot_be_tuned(folder, solver, options, message):
    pipe = load(folder)
    pipe.set_scheduler(solver)
    with pytest.raises(InputError, match=message):
        tune_steps(pipe, **{"num_inference_steps": 4, **options})


def test_a_stock_scheduler_is_refused(folder):
    from diffusers import DPMSolverMultistepScheduler

    pipe = load(folder)
    pipe.set_scheduler(DPMSolverMultistepScheduler)
    with pytest.raises(InputError, match="DPMSolverMultistepScheduler is not one of latentdiff's solvers"):
        tune_steps(pipe, 4)


@pytest.mark.thorough
@pytest.mark.parametrize("solver", ["ddim", "plms", "euler", "heun", "dpmpp_2m", "unipc", "deis"])
def test_every_deterministic_solver(folder, solver):
    pipe = load(folder)
    pipe.set_scheduler(solver)
    found = tune_steps(pipe, 4, num_images=2, rounds=1)
    assert found.distance <= min(found.untuned.values()) and np.isfinite(found.distance)
