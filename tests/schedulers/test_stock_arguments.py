"""Schedulers are made, set and stepped with the arguments of diffusers' schedulers."""

import diffusers
import pytest
import torch

from latentdiff import (
    ConfigError,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverPP2MScheduler,
    EulerAncestralScheduler,
    LCMScheduler,
    UniPCScheduler,
)
from latentdiff.registry import SCHEDULERS

NAMES = SCHEDULERS.names()
SAMPLE = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)


@pytest.mark.parametrize("name", NAMES)
def test_what_our_configs_hold_is_taken(name):
    made = SCHEDULERS.get(name)
    config = {key: value for key, value in made().config.items() if not key.startswith("_")}
    assert {k: v for k, v in made(**config).config.items() if k != "_use_default_values"} == {
        k: v for k, v in made().config.items() if k != "_use_default_values"
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_noise_schedule_by_position(name):
    made = SCHEDULERS.get(name)
    given = made(500, 0.001, 0.01, "scaled_linear", None)
    named = made(num_train_timesteps=500, beta_start=0.001, beta_end=0.01, beta_schedule="scaled_linear")
    assert torch.equal(given.alphas_cumprod, named.alphas_cumprod) and len(given) == 500
    for misuse in (lambda: made(1, 2, 3, 4, 5, 6), lambda: made(500, num_train_timesteps=500)):
        with pytest.raises(ConfigError, match="by position"):
            misuse()


@pytest.mark.parametrize("name", NAMES)
def test_options_at_the_one_value_and_at_others(name):
    made = SCHEDULERS.get(name)
    for option, value in {**made.allowed_values, **made.solver_values}.items():
        made(**{option: value})
        with pytest.raises(ConfigError, match=f"{option} is 'other'; {made.__name__} offers"):
            made(**{option: "other"})
    with pytest.raises(ConfigError, match="has no option 'beta_strt'; did you mean 'beta_start'"):
        made(beta_strt=0.1)


def test_options_of_the_counterpart_at_their_default():
    DDIMScheduler(clip_sample=False, clip_sample_range=1.0, thresholding=False, dynamic_thresholding_ratio=0.995)
    with pytest.raises(ConfigError, match=r"clip_sample_range is 2.0; DDIMScheduler offers 1.0 only"):
        DDIMScheduler(clip_sample_range=2.0)
    with pytest.raises(ConfigError, match="clip_sample is True; DDPMScheduler offers False only"):
        DDPMScheduler(1000, clip_sample=True)


@pytest.mark.parametrize("saved", [True, False])
def test_a_config_asks_for_the_same_saved_or_in_memory(saved):
    def config(stock):
        return {**stock.config, "_class_name": type(stock).__name__} if saved else stock.config

    third = diffusers.DPMSolverMultistepScheduler(solver_order=3)
    with pytest.raises(ConfigError, match="solver_order is 3 in the config; DPMSolverPP2MScheduler offers 2 only"):
        DPMSolverPP2MScheduler.from_config(config(third))
    with pytest.raises(ConfigError, match="solver_order is 3"):
        UniPCScheduler.from_config(config(diffusers.UniPCMultistepScheduler(solver_order=3)))
    for stock in (diffusers.DPMSolverMultistepScheduler(solver_order=2), diffusers.UniPCMultistepScheduler()):
        assert DPMSolverPP2MScheduler.from_config(config(stock)).config.solver_order == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_our_configs_in_memory_make_other_solvers(name, other):
    made = SCHEDULERS.get(other).from_config(SCHEDULERS.get(name)(beta_start=0.001).config)
    assert made.config.beta_start == 0.001


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1e-300, 1e-17, 1.0, 1.5, float("nan")])
def test_betas_outside_of_0_and_1(wrong):
    for options in (
        {"beta_start": wrong},
        {"beta_end": wrong},
        {"num_train_timesteps": 3, "trained_betas": [0.1, wrong, 0.2]},
    ):
        with pytest.raises(ConfigError, match="each must lie above 1e-16 and below 1"):
            DDIMScheduler(**options)
    assert len(DDIMScheduler(num_train_timesteps=3, beta_start=1e-9, beta_end=1 - 1e-9)) == 3


@pytest.mark.parametrize("name", NAMES)
def test_betas_that_leave_nothing_of_the_signal(name):
    with pytest.raises(ConfigError, match="betas leave 0 of the signal's variance"):
        SCHEDULERS.get(name)(beta_start=1 - 1e-9, beta_end=1 - 1e-9)
    with pytest.raises(ConfigError, match="at least 1e-18 must be left"):
        SCHEDULERS.get(name)(num_train_timesteps=62, trained_betas=[0.5] * 62)
    strongest = SCHEDULERS.get(name)(num_train_timesteps=59, trained_betas=[0.5] * 59)
    for steps in (1, 2, 10, 50):
        strongest.set_timesteps(steps)
        assert len(strongest.timesteps) >= steps


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_the_first_noise_is_a_tensor(name):
    scheduler = SCHEDULERS.get(name)()
    scheduler.set_timesteps(5)
    sigma = scheduler.init_noise_sigma
    assert sigma.shape == () and sigma.dtype == torch.float32 and (SAMPLE * sigma).dtype == SAMPLE.dtype
    assert (SAMPLE.half() * sigma).dtype == torch.float16


@pytest.mark.parametrize("name", NAMES)
def test_previous_timesteps(name):
    scheduler = SCHEDULERS.get(name)()
    scheduler.set_timesteps(4)
    if scheduler.order == 1 and name != "plms":  # those visit timesteps twice
        found = [scheduler.previous_timestep(t).item() for t in scheduler.timesteps]
        assert found == [*scheduler.timesteps[1:].tolist(), -1]
        assert scheduler.previous_timestep(scheduler.timesteps[0].item()) == scheduler.timesteps[1]
    with pytest.raises(ConfigError, match="not in this run"):
        scheduler.previous_timestep(7.25)


def test_ddpm_steps_through_training_before_timesteps_are_set():
    ours, stock = DDPMScheduler(), diffusers.DDPMScheduler(clip_sample=False)
    for t in (999, 500, 1, 0):
        a = ours.step(SAMPLE * 0.1, t, SAMPLE, torch.Generator().manual_seed(0)).prev_sample
        b = stock.step(SAMPLE * 0.1, t, SAMPLE, torch.Generator().manual_seed(0)).prev_sample
        assert torch.allclose(a, b, atol=1e-4)
        assert ours.previous_timestep(t) == t - 1
    for other in (DDIMScheduler, EulerAncestralScheduler, LCMScheduler):
        with pytest.raises(ConfigError, match="call set_timesteps first"):
            other().step(SAMPLE, 999, SAMPLE)


def test_eta_and_generator_by_position():
    def rng():
        return torch.Generator().manual_seed(0)

    ddim = DDIMScheduler()
    ddim.set_timesteps(5)
    first = ddim.timesteps[0]
    named = ddim.step(SAMPLE, first, SAMPLE, eta=0.5, generator=rng()).prev_sample
    assert torch.equal(ddim.step(SAMPLE, first, SAMPLE, 0.5, False, rng()).prev_sample, named)
    assert torch.equal(ddim.step(SAMPLE, first, SAMPLE, 0.5, True, rng()).prev_sample, named)
    assert not torch.equal(ddim.step(SAMPLE, first, SAMPLE, 0.0).prev_sample, named)
    for made in (DDPMScheduler, EulerAncestralScheduler, LCMScheduler):
        scheduler = made()
        scheduler.set_timesteps(5)
        t = scheduler.timesteps[0]
        named = scheduler.step(SAMPLE, t, SAMPLE, generator=rng()).prev_sample
        assert torch.equal(scheduler.step(SAMPLE, t, SAMPLE, rng()).prev_sample, named)


def test_the_steps_of_a_distillation_by_call():
    ours, stock = LCMScheduler(), diffusers.LCMScheduler()
    for arguments in ({"original_inference_steps": 50}, {"original_inference_steps": 20}, {}):
        ours.set_timesteps(4, **arguments)
        stock.set_timesteps(4, **arguments)
        assert ours.timesteps.tolist() == stock.timesteps.tolist()
    ours.set_timesteps(4, "cpu", 20)
    stock.set_timesteps(4, "cpu", 20)
    assert ours.timesteps.tolist() == stock.timesteps.tolist()
    for wrong in (0, 1001, 2.5, True):
        with pytest.raises(ConfigError, match="original_inference_steps is"):
            ours.set_timesteps(4, original_inference_steps=wrong)
    with pytest.raises(ConfigError, match="choose 1 to original_inference_steps 3"):
        ours.set_timesteps(4, original_inference_steps=3)
