"""Rectified flow, densities of timesteps and zero terminal SNR, from the recipe to samples of the saved folder."""

import json

import diffusers
import pytest
import torch
import toy

from latentdiff import ConfigError, DDIMScheduler, DiffusionPipeline, FlowMatchEulerScheduler
from latentdiff.schedulers.predictions import FLOW
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.losses import (
    draw_timesteps,
    noisy_latents,
    target_of,
    timestep_weights,
)
from latentdiff.training.diffusion.options import TimestepOptions

FLOW_SCHEDULE = {"prediction_type": FLOW, "shift": 2.0}
ZERO_SNR = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.0015,
    "beta_end": 0.0195,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
}


def drawn(scheduler, **options):
    return draw_timesteps(scheduler.schedule, SampleGenerators(0, range(4000)), TimestepOptions(**options)).double()


def test_the_path_of_a_flow_is_straight():
    scheduler = DDIMScheduler(prediction_type=FLOW)
    latents, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([0.0, 250.0, 1000.0])
    noisy = noisy_latents(scheduler, latents, noise, timesteps)
    share = (timesteps / 1000)[:, None, None, None]
    torch.testing.assert_close(noisy, (1 - share) * latents + share * noise)
    assert torch.equal(target_of(scheduler, latents, noise, timesteps), noise - latents)


def test_timesteps_without_a_density_are_drawn_as_before():
    scheduler, draws = DDIMScheduler(), SampleGenerators(0, range(64))
    found = draw_timesteps(scheduler.schedule, SampleGenerators(0, range(64)), TimestepOptions())
    assert torch.equal(found, draws.integers(1000))


@pytest.mark.parametrize(
    ("options", "mean", "below"),
    [
        ({}, 0.5, 0.25),
        ({"density": "logit_normal"}, 0.5, 0.136),
        ({"density": "logit_normal", "logit_mean": 1.0, "logit_std": 0.5}, 0.722, 0.0),
        ({"density": "mode", "mode_scale": 1.29}, 0.5, 0.152),
        ({"density": "cosmap"}, 0.5, 0.205),
    ],
    ids=str,
)
def test_densities(options, mean, below):
    """The mean, and the share of timesteps below a quarter, by integration of the paper's formulas."""
    for scheduler, last in ((DDIMScheduler(prediction_type=FLOW), 1000), (DDIMScheduler(), 999)):
        timesteps = drawn(scheduler, **options)
        assert timesteps.min() >= 0 and timesteps.max() <= last
        assert float(timesteps.mean()) / 1000 == pytest.approx(mean, abs=0.02)
        assert float((timesteps < 250).double().mean()) == pytest.approx(below, abs=0.025)


def test_a_shift_moves_what_is_trained_on_as_what_is_visited():
    plain, moved = (
        drawn(DDIMScheduler(prediction_type=FLOW)),
        drawn(DDIMScheduler(prediction_type=FLOW, flow_shift=3.0)),
    )
    share = plain / 1000
    torch.testing.assert_close(moved, 3000 * share / (1 + 2 * share), rtol=1e-5, atol=1e-3)


def test_min_snr_weights_of_a_flow():
    """An error of v is one of x0 over s, so that min(SNR, gamma) for x0 is s^2 min(SNR, gamma) for v."""
    schedule = DDIMScheduler(prediction_type=FLOW).schedule
    weights = timestep_weights(torch.from_numpy(schedule.alphas_cumprod), FLOW, 5.0, 0.0)
    share = torch.arange(1001) / 1000
    snr = ((1 - share) / share).square()
    torch.testing.assert_close(weights[1:], (share.square() * snr.clamp(max=5.0))[1:].float(), rtol=1e-4, atol=1e-6)
    assert weights[0] == 0


@pytest.mark.thorough
def test_a_flow_is_trained_saved_and_sampled(data, vae, tmp_path):
    options = {"noise_schedule": FLOW_SCHEDULE, "timesteps.density": "logit_normal", "optimizer.learning_rate": 5e-3}
    output = toy.train("class-to-image", data, vae, tmp_path, max_train_steps=60, logging_steps=10, **options)
    losses = [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.97 * losses[0]  # these latents are mostly noise, so the least that there can be is near 1.7
    saved = json.loads((output / "pipeline" / "scheduler" / "scheduler_config.json").read_text())
    assert (saved["_class_name"], saved["shift"], saved["num_train_timesteps"]) == (
        "FlowMatchEulerScheduler",
        2.0,
        1000,
    )
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(output / "pipeline" / "scheduler")
    assert theirs.config.shift == 2.0
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    assert type(pipe.scheduler) is FlowMatchEulerScheduler and pipe.scheduler.config.timestep_spacing == "trailing"
    made = {}
    for name in (FlowMatchEulerScheduler, "ddim", "euler", "dpmpp_2m", "unipc"):
        pipe.set_scheduler(name)
        made[name] = pipe("red", num_inference_steps=12, seed=0, output_type="np").images
    assert abs(made["ddim"] - made[FlowMatchEulerScheduler]).max() < 1e-3
    assert abs(made["euler"] - made[FlowMatchEulerScheduler]).max() < 0.2


@pytest.mark.thorough
def test_a_flow_resumes_bit_for_bit(data, vae, tmp_path):
    options = {"noise_schedule": FLOW_SCHEDULE, "ema.profiles": [0.05, 0.1], "ema.snapshot_steps": 2}
    whole = toy.train("unconditional", data, vae, tmp_path / "whole", **options)
    toy.train("unconditional", data, vae, tmp_path / "parts", **options)
    for part in ("pipeline", "checkpoint-4"):
        (tmp_path / "parts" / part).rename(tmp_path / part)
    parts = toy.train("unconditional", data, vae, tmp_path / "parts", **options, resume_from_checkpoint="checkpoint-2")
    for file in ("checkpoint-4/model.safetensors", "checkpoint-4/ema.safetensors", "ema/step-4.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes()


@pytest.mark.thorough
def test_runs_begin_at_pure_noise_where_training_ends_there(data, vae, tmp_path):
    output = toy.train("unconditional", data, vae, tmp_path, max_train_steps=2, noise_schedule=ZERO_SNR)
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    for name in (None, "dpmpp_2m", "euler"):
        if name:
            pipe.set_scheduler(name)
        scheduler = pipe.scheduler
        scheduler.set_timesteps(4)
        assert scheduler.config.timestep_spacing == "trailing" and float(scheduler.timesteps[0]) == 999
        assert float(scheduler.alphas_cumprod[-1]) < 1e-7
        assert pipe(num_inference_steps=4, seed=0, output_type="np").images.shape == (1, 16, 16, 3)


BAD = {
    "betas": ({"noise_schedule": {**FLOW_SCHEDULE, "beta_start": 0.1}}, "noise_schedule has 'beta_start'"),
    "shift": ({"noise_schedule": {**FLOW_SCHEDULE, "shift": -1.0}}, "shift is -1.0; it must be a number above 0"),
    "bound": ({"noise_schedule": FLOW_SCHEDULE, "loss.elbo_weight": 0.1}, "loss.elbo_weight is 0.1"),
    "density": ({"timesteps.density": "normal"}, "timesteps.density"),
    "unused": ({"timesteps.logit_mean": 1.0}, "logit_mean is given, but density is 'uniform'"),
    "strength": ({"timesteps.density": "mode", "timesteps.mode_scale": 1.8}, "mode_scale is 1.8"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_options_are_one_line(data, vae, tmp_path, name):
    options, message = BAD[name]
    with pytest.raises(ConfigError, match=message) as caught:
        toy.train("unconditional", data, vae, tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "log.jsonl").exists()
