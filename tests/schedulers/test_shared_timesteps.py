"""Karras levels that share a whole timestep: runs that start midway, and guidance, take the sigma of their own step."""

import diffusers
import pytest
import torch
from counterparts import MODEL

from latentdiff.pipelines.start import StartPoint
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers.parametrization import Parametrization

ONE = torch.ones(2, 1, 1, 1)
RUNS = [(1000, 50), (100, 20), (50, 20)]
OWN = ["dpmpp_2m", "dpmpp_2m_sde", "unipc", "euler", "heun"]


def karras(name, total, steps):
    scheduler_class = SCHEDULERS.get(name) if name in SCHEDULERS else getattr(diffusers, name)
    scheduler = scheduler_class(**MODEL, num_train_timesteps=total, use_karras_sigmas=True)
    scheduler.set_timesteps(steps)
    return scheduler


def sigma_of(scheduler, timesteps):
    """Sigma, over the scale of the image, that `add_noise` gives."""
    return scheduler.add_noise(0 * ONE, ONE, timesteps) / scheduler.add_noise(ONE, 0 * ONE, timesteps)


def test_levels_do_share_timesteps():
    for total, steps in RUNS:
        timesteps = karras("dpmpp_2m", total, steps).timesteps.tolist()
        assert len(set(timesteps)) < len(timesteps)


@pytest.mark.parametrize(("total", "steps"), RUNS)
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("form", ["view", "copy"])
def test_a_start_midway_has_the_sigma_of_its_step(name, total, steps, form):
    scheduler = karras(name, total, steps)
    for first in range(0, len(scheduler.timesteps), scheduler.order):
        scheduler.set_begin_index(first)
        timesteps = scheduler.timesteps[first].expand(2)
        timesteps = timesteps if form == "view" else timesteps.clone()
        expected = scheduler.sigmas[first].expand_as(ONE)
        torch.testing.assert_close(sigma_of(scheduler, timesteps), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_noise_in_the_middle_of_a_run_is_that_of_the_next_step(name):
    """As masked sampling adds it before every step."""
    scheduler = karras(name, 100, 20)
    x = ONE
    for index, timestep in enumerate(scheduler.timesteps):
        for form in (timestep.expand(2), timestep.repeat(2)):
            torch.testing.assert_close(
                sigma_of(scheduler, form)[0, 0, 0, 0], scheduler.sigmas[index], rtol=1e-5, atol=0
            )
        x = scheduler.step(0.1 * x, timestep, x, variance_noise=ONE).prev_sample


def test_several_timesteps_of_a_run_have_their_own_levels():
    scheduler = karras("dpmpp_2m", 100, 20)
    torch.testing.assert_close(sigma_of(scheduler, scheduler.timesteps[-2:]).flatten(), scheduler.sigmas[-3:-1])
    every_second = scheduler.timesteps[-3::2]
    torch.testing.assert_close(sigma_of(scheduler, every_second).flatten(), scheduler.sigmas[[-4, -2]])


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_guidance_knows_the_level_of_each_step(name):
    scheduler = karras(name, 100, 20)
    parametrization = Parametrization.of(scheduler)
    for index, timestep in enumerate(scheduler.timesteps):
        for form in (timestep, timestep.expand(2)):
            alpha, sigma = parametrization.levels(form, ONE)
            torch.testing.assert_close((sigma / alpha).flatten()[0], scheduler.sigmas[index], rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", [*OWN, "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"])
@pytest.mark.parametrize("strength", [0.1, 0.2, 1.0])
def test_start_points_have_the_sigma_of_the_step_they_begin_with(name, strength):
    scheduler = karras(name, 100, 20)
    begin = StartPoint(0 * ONE, strength).begin(scheduler, ONE)
    if strength == 1:
        assert begin.first == 0 and scheduler.begin_index == 0
        return
    assert begin.first == (20 - round(20 * strength)) * scheduler.order
    scale = scheduler.add_noise(ONE, 0 * ONE, scheduler.timesteps[begin.first].expand(2))
    torch.testing.assert_close((begin.latents / scale)[0, 0, 0, 0], scheduler.sigmas[begin.first], rtol=1e-5, atol=0)
