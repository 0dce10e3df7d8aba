"""Predictions, x0 and epsilon: against what the schedulers themselves make of a prediction."""

import diffusers
import pytest
import torch

from latentdiff import DDIMScheduler
from latentdiff.errors import ConfigError
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers.parametrization import Parametrization
from latentdiff.schedulers.predictions import FLOW, PREDICTION_TYPES

SHARED = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear"}
# LCM's x0 includes its boundary condition, and PLMS combines predictions of several steps.
OWN = [SCHEDULERS.get(name) for name in SCHEDULERS.names() if name not in ("lcm", "plms")]
STOCK = [diffusers.DDIMScheduler, diffusers.DDPMScheduler, diffusers.EulerDiscreteScheduler]


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("scheduler_class", [*OWN, *STOCK], ids=lambda c: f"{c.__module__.split('.')[0]}-{c.__name__}")
def test_x0_is_the_schedulers(scheduler_class, kind):
    if kind == FLOW and scheduler_class in STOCK:
        pytest.skip("which these don't know")
    scheduler = scheduler_class(**SHARED, prediction_type=kind)
    if "clip_sample" in scheduler.config:
        scheduler.register_to_config(clip_sample=False)
    scheduler.set_timesteps(7)
    parametrization = Parametrization.of(scheduler)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 4, 4, generator=rng) * scheduler.init_noise_sigma
    noise_alone = kind == FLOW and scheduler.timesteps[0] == 1000  # which says next to nothing of x0
    for timestep in scheduler.timesteps[int(noise_alone) :]:
        latents, out = scheduler.scale_model_input(x, timestep), torch.randn(x.shape, generator=rng)
        found = parametrization.x0(latents, out, timestep)
        result = scheduler.step(out, timestep, x, generator=rng)
        expected = result.pred_original_sample
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        x = result.prev_sample


@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}], ids=["spaced", "karras"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_levels_are_the_solvers_own_where_it_has_such(name, options):
    scheduler = SCHEDULERS.get(name)(**SHARED, **options)
    scheduler.set_timesteps(6)
    parametrization = Parametrization.of(scheduler)
    alpha, sigma = parametrization.levels(scheduler.timesteps, torch.ones(len(scheduler.timesteps), 1))
    torch.testing.assert_close((sigma / alpha).flatten(), scheduler.sigmas[:-1], rtol=1e-5, atol=0)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_between_timesteps_log_snr_is_linear_and_ends_hold():
    scheduler = diffusers.DDIMScheduler(**SHARED)
    parametrization, like = Parametrization.of(scheduler), torch.ones(1, 1)
    log_snr = (scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)).log()
    for timestep, expected in ((10.25, 0.75 * log_snr[10] + 0.25 * log_snr[11]), (-1, log_snr[0]), (1005, log_snr[-1])):
        alpha, sigma = parametrization.levels(torch.tensor(timestep), like)
        assert float((alpha / sigma).log() * 2) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_a_shift_changes_epsilon_by_itself_and_x0_to_match(kind):
    parametrization = Parametrization.of(DDIMScheduler(**SHARED, prediction_type=kind))
    rng = torch.Generator().manual_seed(1)
    latents, prediction, delta = torch.randn(3, 2, 4, 4, 4, generator=rng, dtype=torch.float64)
    timesteps = torch.tensor([20, 700])
    shifted = parametrization.shift(prediction, delta, timesteps)
    epsilons = [parametrization.epsilon(latents, p, timesteps) for p in (prediction, shifted)]
    torch.testing.assert_close(epsilons[1] - epsilons[0], delta, rtol=0, atol=1e-6)
    alpha, sigma = parametrization.levels(timesteps, latents)
    again = alpha * parametrization.x0(latents, shifted, timesteps) + sigma * epsilons[1]
    torch.testing.assert_close(again, latents, rtol=0, atol=1e-6)


def test_schedulers_of_other_processes_are_refused():
    with pytest.raises(ConfigError, match="alphas_cumprod"):
        Parametrization.of(diffusers.EDMEulerScheduler())
