from pathlib import Path

import diffusers
import numpy as np
import pytest
from safetensors.numpy import load_file

from latentdiff import ConfigError
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.schedulers.noise_schedule import (
    BETA_SCHEDULES,
    NoiseSchedule,
    original_ddim_timesteps,
    spaced_timesteps,
)

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "aux_schedules.safetensors")
ORIGINAL_NAMES = {
    "linear": "sqrt_linear",
    "scaled_linear": "linear",
    "sqrt": "sqrt",
    "squaredcos_cap_v2": "cosine",
}


@pytest.mark.parametrize("name", ORIGINAL_NAMES)
def test_betas_are_the_originals(name):
    betas = BETA_SCHEDULES[name](0.0015, 0.0195, 1000)
    np.testing.assert_allclose(betas, GOLDEN[f"betas.{ORIGINAL_NAMES[name]}"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid", "exp"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_betas_are_diffusers(name, zero_snr):
    options = {"beta_schedule": name, "beta_start": 0.0015, "beta_end": 0.0195, "num_train_timesteps": 100}
    if name == "exp":
        if zero_snr:
            pytest.skip("diffusers has this schedule in Heun only, which does not rescale")
        stock = diffusers.HeunDiscreteScheduler(**options)
    else:
        stock = diffusers.DDPMScheduler(**options, rescale_betas_zero_snr=zero_snr)
    schedule = NoiseSchedule.from_config({**options, "rescale_betas_zero_snr": zero_snr})
    # diffusers works in float32, whose subtraction of the last level costs digits at the noisy end
    np.testing.assert_allclose(schedule.alphas_cumprod, stock.alphas_cumprod.double(), rtol=2e-5, atol=1e-7)
    assert not zero_snr or schedule.alphas_cumprod[-1] == 0


@pytest.mark.parametrize("steps", [5, 7, 50, 200, 250])
def test_original_step_choice(steps):
    golden = {name: GOLDEN[f"ddim.{name}.{steps}"] for name in ("ts", "sigma", "alpha_prev")}
    timesteps = original_ddim_timesteps(steps)
    assert timesteps == golden["ts"][::-1].tolist()

    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", set_alpha_to_one=False)
    rounded = scheduler.schedule.alphas_cumprod.astype(np.float32)  # the original samples with its float32 buffers
    scheduler.schedule.__dict__["alphas_cumprod"] = rounded.astype(np.float64)
    scheduler.set_timesteps(timesteps=timesteps)
    assert scheduler.timesteps.tolist() == timesteps
    np.testing.assert_allclose(np.square(scheduler.grid.alpha[1:])[::-1], golden["alpha_prev"], rtol=1e-12)
    noise = [dict(row["prev"])["noise"] for row in scheduler._rows(1.0)]
    np.testing.assert_allclose(noise[::-1], golden["sigma"], rtol=1e-7)  # in part computed in float32 there
    assert noise[-1] > 0  # the original adds noise at its last step, too


@pytest.mark.parametrize("steps", [3, 9, 27, 36, 37, 101, 251, 333, 501, 1000])
def test_where_the_original_failed(steps):
    with pytest.raises(ConfigError, match=f"{steps} original DDIM steps begin at timestep 1000"):
        original_ddim_timesteps(steps)


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts(steps):
    with pytest.raises(ConfigError):
        original_ddim_timesteps(steps)
    with pytest.raises(ConfigError):
        spaced_timesteps("leading", steps, 1000)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_spacing_is_diffusers_for_every_step_count(spacing):
    stock = diffusers.DDIMScheduler(timestep_spacing=spacing)
    for steps in range(1, 1001, 3):
        stock.set_timesteps(steps)
        ours = spaced_timesteps(spacing, steps, 1000).round()
        assert ours.tolist() == stock.timesteps.tolist()[:steps]


def test_sigma_and_timestep_are_inverse_at_training_levels():
    schedule = NoiseSchedule.from_config(DDIMScheduler().config)
    timesteps = np.arange(1000.0)
    np.testing.assert_allclose(schedule.timestep_at(schedule.sigma_at(timesteps)), timesteps, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_schedule": "scaled_liner"}, "scaled_linear"),
        ({"prediction_type": "flow"}, "v_prediction"),
        ({"trained_betas": [0.1, 0.2]}, "2 values for num_train_timesteps 1000"),
    ],
)
def test_unknown_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        DDIMScheduler(**options)


def test_unknown_spacing_is_named():
    with pytest.raises(ConfigError, match="'leading'"):
        DDIMScheduler(timestep_spacing="leadng").set_timesteps(5)
