"""What the original code's samplers do beside plain steps: uneven steps, all of them, temperature, quantised x0."""

import diffusers
import pytest
import torch
from counterparts import MODEL

from latentdiff import ConfigError, DDIMScheduler, InputError
from latentdiff.registry import SCHEDULERS
from latentdiff.sampling import sample, step_options
from latentdiff.schedulers import make_scheduler, original_ddim_timesteps

CONVERTED = DDIMScheduler(**MODEL, steps_offset=1, set_alpha_to_one=False, timestep_spacing="leading").config
BY_TIMESTEPS = ["ddim", "plms", "ddpm"]


def predict(x, timestep, fraction=0.0):
    """Some prediction that depends on everything."""
    return torch.sin(3 * x) * 0.8 + 0.1 * timestep / 1000


def run(scheduler, x, **options):
    """The samples after each step."""
    seen = []
    sample(predict, scheduler, x, callback=lambda step, timestep, latents: seen.append(latents) or latents, **options)
    return seen


# -- how many steps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(SCHEDULERS.names()))
def test_original_spacing_gives_the_originals_steps(name):
    if name in ("lcm", "tcd", "restart"):
        pytest.skip("has levels of its own")
    scheduler = make_scheduler(name, CONVERTED, timestep_spacing="original")
    for steps in (7, 50, 400):
        scheduler.set_timesteps(steps)
        visited = list(dict.fromkeys(scheduler.timesteps.tolist()))  # PLMS and Heun's method visit some twice
        assert visited == original_ddim_timesteps(steps)
    with pytest.raises(ConfigError, match="divides 1000"):
        scheduler.set_timesteps(333)


@pytest.mark.parametrize("steps", [7, 20])
def test_original_spacing_is_ddim_over_these_timesteps(steps):
    x = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    options = {**MODEL, "set_alpha_to_one": False}
    by_name, by_list = DDIMScheduler(**options, timestep_spacing="original"), DDIMScheduler(**options)
    by_name.set_timesteps(steps)
    by_list.set_timesteps(timesteps=original_ddim_timesteps(steps))
    assert torch.equal(run(by_name, x)[-1], run(by_list, x)[-1])


def test_original_spacing_is_refused_where_diffusers_would_not_know_it():
    config = DDIMScheduler(**MODEL, timestep_spacing="original").config
    assert make_scheduler("euler", config).config.timestep_spacing == "original"
    with pytest.raises(ConfigError, match="unknown to diffusers"):
        make_scheduler(diffusers.EulerDiscreteScheduler, config)
    made = make_scheduler(diffusers.EulerDiscreteScheduler, config, timestep_spacing="trailing")
    assert made.config.timestep_spacing == "trailing"


@pytest.mark.parametrize("name", BY_TIMESTEPS)
def test_all_timesteps_of_a_converted_model(name):
    """Its offset of 1, which is DDIM's, would ask for timestep 1000."""
    scheduler = make_scheduler(name, CONVERTED)
    scheduler.set_timesteps(1000)
    assert list(dict.fromkeys(scheduler.timesteps.tolist())) == list(range(999, -1, -1))
    scheduler.set_timesteps(999)
    assert list(dict.fromkeys(scheduler.timesteps.tolist())) == list(range(999, 0, -1))
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[0] == 981


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_2m_sde", "unipc", "euler", "heun"])
def test_as_many_timesteps_as_other_solvers_have(name):
    scheduler = make_scheduler(name, CONVERTED)
    most = 1000 - getattr(scheduler, "multistep", False)
    scheduler.set_timesteps(most)
    assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize("name", ["ddim", "euler"])
@pytest.mark.parametrize("argument", ["timesteps", "sigmas"])
@pytest.mark.parametrize("values", [[float("nan"), 1.0], [float("inf"), 1.0], ["a", "b"], [[9.0, 1.0]], 5.0])
def test_steps_that_are_no_finite_numbers(name, argument, values):
    with pytest.raises(ConfigError, match=f"{argument} is"):
        SCHEDULERS.get(name)().set_timesteps(**{argument: values})


# -- temperature -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "eta"), [("ddim", 1.0), ("ddpm", 0.0), ("euler_ancestral", 0.0), ("dpmpp_2m_sde", 0.0)]
)
def test_temperature_is_a_factor_on_the_noise(name, eta):
    scheduler, x = SCHEDULERS.get(name)(**MODEL), torch.ones(2, 1, 4, 4)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def step(noise, **options):
        scheduler.set_timesteps(5)
        options |= {"eta": eta} if eta else {}
        return scheduler.step(0.1 * x, scheduler.timesteps[0], x, variance_noise=noise, **options).prev_sample

    assert torch.equal(step(noise, temperature=0.5), step(0.5 * noise))
    assert torch.equal(step(noise, temperature=0.0), step(0 * noise))
    assert not torch.equal(step(noise), step(0.5 * noise))


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), SCHEDULERS.get("unipc")(), diffusers.DDPMScheduler()])
def test_temperature_without_noise_is_refused(scheduler):
    scheduler.set_timesteps(5)
    with pytest.raises(InputError, match=r"temperature is 0\.5"):
        step_options(scheduler, temperature=0.5)


# -- x0 set to codes ---------------------------------------------------------------------------------------------------


def coarse(x0):
    """Stands for the nearest codes."""
    return (2 * x0).round() / 2


def original_transfer(x, noise_pred, alpha_bar, alpha_bar_next, noise=0.0, eta=0.0):
    """The original's `p_sample_ddim` with quantised x0, after Song et al. 2021, eq. 12 and 16."""
    sigma = eta * ((1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_next)) ** 0.5
    x0 = coarse((x - (1 - alpha_bar) ** 0.5 * noise_pred) / alpha_bar**0.5)
    return alpha_bar_next**0.5 * x0 + (1 - alpha_bar_next - sigma**2) ** 0.5 * noise_pred + sigma * noise


def levels(scheduler, timesteps):
    alpha_bar = scheduler.alphas_cumprod.double()
    return [float(alpha_bar[t]) for t in timesteps] + [float(alpha_bar[0])]


X = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_with_quantised_x0_is_the_originals(eta):
    scheduler = DDIMScheduler(**MODEL, set_alpha_to_one=False, timestep_spacing="original")
    scheduler.set_timesteps(10)
    bars, x, drawn = levels(scheduler, scheduler.timesteps.tolist()), X, torch.Generator().manual_seed(3)
    found = run(scheduler, X, eta=eta, replace_x0=coarse, generator=torch.Generator().manual_seed(3))
    for i, timestep in enumerate(scheduler.timesteps):
        noise = torch.randn(x.shape, generator=drawn, dtype=x.dtype) if eta else 0.0
        x = original_transfer(x, predict(x, timestep), *bars[i : i + 2], noise, eta)
        torch.testing.assert_close(found[i], x, rtol=1e-5, atol=1e-5)


def test_plms_with_quantised_x0_is_the_originals():
    scheduler = SCHEDULERS.get("plms")(**MODEL, set_alpha_to_one=False, timestep_spacing="original")
    scheduler.set_timesteps(10)
    timesteps = original_ddim_timesteps(10)
    bars, x, old = levels(scheduler, timesteps), X, []
    found = run(scheduler, X, replace_x0=coarse)[1:]  # the first is but the trial step
    weights = {1: (3, -1), 2: (23, -16, 5), 3: (55, -59, 37, -9)}
    for i, timestep in enumerate(timesteps):
        newest = predict(x, timestep)
        if not old:
            mean = (newest + predict(original_transfer(x, newest, *bars[:2]), timesteps[1])) / 2
        else:
            chosen = weights[min(len(old), 3)]
            estimates = [newest, *old[::-1]]
            mean = sum(w * e for w, e in zip(chosen, estimates, strict=False)) / sum(chosen)
        x = original_transfer(x, mean, *bars[i : i + 2])
        old.append(newest)
        torch.testing.assert_close(found[i], x, rtol=1e-5, atol=1e-5)


def test_ddpm_with_quantised_x0_is_the_originals():
    """The posterior's mean (Ho et al. 2020, eq. 7) of the quantised x0."""
    scheduler = SCHEDULERS.get("ddpm")(**MODEL)
    scheduler.set_timesteps(1000)
    scheduler.set_begin_index(995)
    found = run(scheduler, X, first=995, replace_x0=coarse, temperature=0.0)
    bars, betas, x = scheduler.alphas_cumprod.double(), scheduler.betas.double(), X
    for i, t in enumerate(range(4, -1, -1)):
        before = bars[t - 1] if t else torch.ones(())
        x0 = coarse((x - (1 - bars[t]).sqrt() * predict(x, t)) / bars[t].sqrt())
        x = (betas[t] * before.sqrt() * x0 + (1 - before) * (1 - betas[t]).sqrt() * x) / (1 - bars[t])
        torch.testing.assert_close(found[i], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BY_TIMESTEPS)
def test_x0_that_is_replaced_by_itself_changes_nothing(name):
    scheduler = SCHEDULERS.get(name)(**MODEL)
    runs = []
    for options in ({}, {"replace_x0": lambda x0: x0}):
        scheduler.set_timesteps(6)
        runs.append(run(scheduler, X, generator=torch.Generator().manual_seed(0), **options)[-1])
    assert torch.equal(*runs)


@pytest.mark.parametrize(
    "scheduler", [SCHEDULERS.get("dpmpp_2m")(), SCHEDULERS.get("euler")(), diffusers.DDIMScheduler()]
)
def test_quantised_x0_is_refused_where_a_step_needs_more(scheduler):
    scheduler.set_timesteps(5)
    with pytest.raises(InputError, match="quantize_denoised has no meaning for"):
        step_options(scheduler, replace_x0=coarse)
