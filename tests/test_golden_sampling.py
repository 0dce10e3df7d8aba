"""Whole sampling runs of the original code, step by step, through the one loop."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from golden_models import ALL_CASES, load_case

from latentdiff import DDIMScheduler, DDPMScheduler, PLMSScheduler
from latentdiff.conditioning import Conditioning
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.pipelines.codec import decode, quantizer
from latentdiff.sampling import Denoiser, KnownRegion, sample

RELATIVE = 1e-4


def noise_schedule(case, **options):
    """The original's constants: square-root-linear betas and the last step landing on timestep 0's level."""
    config = case.config
    return {
        "beta_start": config["linear_start"],
        "beta_end": config["linear_end"],
        "beta_schedule": "scaled_linear",
        **options,
    }


def unet_of(case):
    """What the original sampled with: EMA weights where it has them."""
    return case.unet_ema or case.unet


def trajectory(case, scheduler, guidance=(), noises=None, **options):
    """x_T and x after each step, (steps + 1, B, C, H, W)."""
    io = case.io
    scheduler.set_timesteps(timesteps=io["ddim.timesteps"].flip(0).tolist())
    if noises is not None:
        replay(scheduler, noises)
    steps = [io["x_T"]]

    def keep(_step, _timestep, latents):
        steps.append(latents)
        return latents

    sample(
        Denoiser(unet_of(case), case.conditioning), scheduler, io["x_T"], guidance=guidance, callback=keep, **options
    )
    return torch.stack(steps)


def replay(scheduler, noises):
    """Let `scheduler.step` use the recorded noise, in order, in place of a generator's."""
    step, queue = scheduler.step, iter(noises)

    def with_noise(model_output, timestep, sample, eta=0.0, generator=None, return_dict=True):
        return step(model_output, timestep, sample, eta=eta, variance_noise=next(queue), return_dict=return_dict)

    scheduler.step = with_noise


def assert_steps_equal(found, expected, relative=RELATIVE):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() <= relative * theirs.abs().max()


@pytest.fixture(params=ALL_CASES)
def case(request):
    return load_case(request.param)


def test_ddim_is_the_originals(case):
    scheduler = DDIMScheduler(**noise_schedule(case, set_alpha_to_one=False))
    assert_steps_equal(trajectory(case, scheduler), case.io["ddim0.x_inter"])


def test_ddim_with_eta_1_is_the_originals(case):
    scheduler = DDIMScheduler(**noise_schedule(case, set_alpha_to_one=False))
    found = trajectory(case, scheduler, noises=case.io["ddim1.noise"], eta=1.0)
    assert_steps_equal(found, case.io["ddim1.x_inter"])


def test_quantised_estimates_are_the_originals():
    """Every step picks codes, which spreads what is rounded otherwise."""
    case = load_case("ldm_uncond")
    scheduler = DDIMScheduler(**noise_schedule(case, set_alpha_to_one=False))
    found = trajectory(case, scheduler, replace_x0=quantizer(case.vae, torch.device("cpu")))
    assert_steps_equal(found, case.io["quantx0.x_inter"], 1e-3)
    assert (found - case.io["ddim0.x_inter"]).abs().max() > 0.1


def guidance_of(case):
    if "cfg.scale" not in case.io:
        return ()
    return (ClassifierFreeGuidance(Conditioning(case.io["uncond"]), float(case.io["cfg.scale"])),)


@pytest.mark.parametrize("name", ["ldm_txt2img", "ldm_cin", "ldm_layout2img"])
def test_classifier_free_guidance_is_the_originals(name):
    case = load_case(name)
    scheduler = DDIMScheduler(**noise_schedule(case, set_alpha_to_one=False))
    found = trajectory(case, scheduler, guidance_of(case))
    assert_steps_equal(found, case.io["cfg.x_inter"])
    image = decode(case.vae, found[-1])
    expected = case.io["cfg.image"].add(1).div(2).clamp(0, 1)
    assert (image - expected).abs().max() <= RELATIVE


@dataclass(frozen=True)
class Replayed(KnownRegion):
    """A known region with recorded noise in place of fresh."""

    noises: Iterator[torch.Tensor] | None = None

    def noise(self):
        return next(self.noises)


def test_masked_sampling_is_the_originals():
    case = load_case("ldm_txt2img")
    scheduler = DDIMScheduler(**noise_schedule(case, set_alpha_to_one=False))
    noises = iter(case.io["masked.qnoise"])
    found = trajectory(case, scheduler, known=Replayed(case.io["z"], case.io["masked.mask"], noises=noises))
    assert_steps_equal(found, case.io["masked.x_inter"])


@pytest.mark.parametrize("name", ["ldm_txt2img", "ldm_churches"])
def test_plms_is_the_originals(name):
    case = load_case(name)
    scheduler = PLMSScheduler(**noise_schedule(case, set_alpha_to_one=False))
    ascending = case.io["ddim.timesteps"]
    # The first step calls the network twice, so the second timestep stands twice; its first result is intermediate.
    scheduler.set_timesteps(timesteps=ascending.flip(0).tolist())
    steps, calls = [case.io["x_T"]], []

    def keep(step, _timestep, latents):
        calls.append(step)
        steps.append(latents)
        return latents

    denoiser = Denoiser(unet_of(case), case.conditioning)
    sample(denoiser, scheduler, case.io["x_T"], guidance=guidance_of(case), callback=keep)
    del steps[1]
    assert len(calls) == len(ascending) + 1
    assert_steps_equal(steps, case.io["plms.x_inter"])


def test_ancestral_step_is_the_originals(case):
    scheduler = DDPMScheduler(**noise_schedule(case))
    total = scheduler.config.num_train_timesteps
    denoiser = Denoiser(unet_of(case), case.conditioning)
    for index, timestep in enumerate((total - 1, total // 2, 0)):
        scheduler.set_timesteps(total)
        scheduler.set_begin_index(total - 1 - timestep)
        x = case.io["unet.x"]
        with torch.no_grad():
            prediction = denoiser(x, torch.tensor(timestep), 0.0)
        found = scheduler.step(prediction, timestep, x, variance_noise=case.io["ancestral.noise"][index])
        assert_steps_equal([found.prev_sample], [case.io["ancestral.out"][index]])


def test_image_is_the_originals(case):
    found = decode(case.vae, case.io["ddim0.final"])
    expected = case.io["ddim0.image"].add(1).div(2).clamp(0, 1)
    assert (found - expected).abs().max() <= RELATIVE
    # The original truncates to bytes where its float result may differ from ours by a rounding error.
    bytes_ = found.mul(255).to(torch.uint8).permute(0, 2, 3, 1).int()
    assert (bytes_ - case.io["ddim0.image_u8"].int()).abs().max() <= 1
