"""CFG++: beside its algorithm written out, and in pipelines."""

import itertools

import diffusers
import pytest
import torch
from analytic import ConditionalNetwork, Mixture
from device_reads import CountReads
from tiny import text_to_image

from latentdiff import (
    AdaptiveProjectedGuidance,
    CFGPlusPlus,
    ClassifierFreeGuidance,
    Conditioning,
    DDIMScheduler,
    ImageGuidance,
    InputError,
)
from latentdiff.registry import SCHEDULERS
from latentdiff.sampling import Denoiser, sample
from latentdiff.schedulers.predictions import FLOW, PREDICTION_TYPES

OPTIONS = {"num_inference_steps": 4, "seed": 3, "output_type": "latent"}
SCALE = 0.6


def run(kind="epsilon", eta=0.0, interval=(0.0, 1.0), seen=None):
    """The run of a mixture of two classes; the network, the noise, the scheduler and the result."""
    scheduler = DDIMScheduler(prediction_type=kind)
    scheduler.set_timesteps(6)
    means = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(means, 0.6, scheduler)
    denoiser = Denoiser(ConditionalNetwork(mixture), Conditioning(torch.tensor([[[0.0]], [[1.0]]])))
    guidance = [ClassifierFreeGuidance(Conditioning(torch.full((2, 1, 1), -1.0)), SCALE, interval), CFGPlusPlus()]
    noise = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    options = {"eta": eta, "generator": torch.Generator().manual_seed(2), "observe_x0": seen}
    return mixture, noise, scheduler, sample(denoiser, scheduler, noise, guidance=guidance, **options)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_it_is_the_algorithm(kind, eta):
    """Algorithm 2 of the paper, with the noise of DDIM's eq. 12."""
    estimates = []
    mixture, x, scheduler, found = run(kind, eta, seen=estimates.append)
    drawn = torch.Generator().manual_seed(2)
    levels = list(zip(scheduler.grid.alpha, scheduler.grid.sigma, strict=True))
    for step, timestep in enumerate(scheduler.timesteps):
        (alpha, sigma), (alpha_next, sigma_next) = levels[step : step + 2]
        scaled = x / (alpha + sigma) if kind == FLOW else x  # as the network sees it
        unconditional = mixture.x0(scaled, timestep)
        conditional = mixture.means_given(scaled, timestep)[range(2), range(2)]
        guided = unconditional + SCALE * (conditional - unconditional)
        fresh = eta * sigma_next / sigma * (1 - (alpha / alpha_next) ** 2) ** 0.5
        noise = (x - alpha * unconditional) / sigma
        x = alpha_next * guided + (sigma_next**2 - fresh**2) ** 0.5 * noise
        x = x + fresh * torch.randn(x.shape, generator=drawn) if fresh else x
        torch.testing.assert_close(estimates[step], guided, rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=2e-3)


def test_it_is_guidance_whose_scale_depends_on_the_step():
    """Both are DDIM steps: along one noise, the scale is scale rho / (rho - rho_next), with rho = sigma / alpha."""
    mixture, x, scheduler, found = run()
    free = ClassifierFreeGuidance(Conditioning(torch.full((2, 1, 1), -1.0)), SCALE)
    rho = [sigma / alpha for alpha, sigma in zip(scheduler.grid.alpha, scheduler.grid.sigma, strict=True)]
    scales = [SCALE * one / (one - following) for one, following in itertools.pairwise(rho)]

    def change(step, timestep, latents):
        free.scale = scales[step + 1] if step < 5 else 0.0
        return latents

    free.scale = scales[0]
    denoiser = Denoiser(ConditionalNetwork(mixture), Conditioning(torch.tensor([[[0.0]], [[1.0]]])))
    scheduler.set_timesteps(6)
    torch.testing.assert_close(
        sample(denoiser, scheduler, x, guidance=[free], callback=change), found, rtol=1e-3, atol=2e-3
    )


def test_outside_its_interval_there_is_the_condition_alone():
    mixture, x, scheduler, found = run(interval=(0.0, 0.1))
    half = run(interval=(0.0, 0.5))[-1]
    denoiser = Denoiser(ConditionalNetwork(mixture), Conditioning(torch.tensor([[[0.0]], [[1.0]]])))
    scheduler.set_timesteps(6)
    plain = sample(denoiser, scheduler, x)
    assert (found - plain).abs().max() > 1e-3 and (found - half).abs().max() > 1e-3


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("pipe"))


def make(pipe, guidance, **options):
    return pipe(["a red apple", "a cat"], guidance=guidance, **{**OPTIONS, "guidance_scale": SCALE, **options}).images


def test_in_a_pipeline(pipe):
    found = make(pipe, [CFGPlusPlus()])
    assert (found - make(pipe, [])).abs().max() > 1e-3
    alone = pipe("a cat", guidance=[CFGPlusPlus()], **{**OPTIONS, "seed": 4, "guidance_scale": SCALE}).images
    torch.testing.assert_close(found[1:], alone, rtol=1e-4, atol=1e-4)
    assert (found - make(pipe, [CFGPlusPlus()], negative_prompt="a dog")).abs().max() > 1e-3
    image = ImageGuidance(pipe.vae, torch.zeros(1, 3, 16, 16), 0.1)
    assert (found - make(pipe, [CFGPlusPlus(), image])).abs().max() > 1e-3


@pytest.mark.parametrize("name", [n for n in SCHEDULERS.names() if n != "ddim"] + [diffusers.DDIMScheduler])
def test_other_solvers_are_refused(pipe, name):
    before = pipe.scheduler
    pipe.set_scheduler(name)
    try:
        with pytest.raises(InputError, match="can't; use 'ddim'") as raised:
            make(pipe, [CFGPlusPlus()])
    finally:
        pipe.scheduler = before
    assert "\n" not in str(raised.value)


def test_other_scales_and_places_are_refused(pipe):
    for scale, options, guidance, match in (
        (1.0, {}, [CFGPlusPlus()], "right behind one of them"),
        (1.01, {}, [CFGPlusPlus()], "guidance_scale is 1.01; CFG\\+\\+ takes 0 to 1"),
        (-0.01, {}, [CFGPlusPlus()], "guidance_scale is -0.01"),
        (SCALE, {"guidance_rescale": 0.5}, [CFGPlusPlus()], "guidance_rescale has no meaning"),
        (SCALE, {}, [CFGPlusPlus(), CFGPlusPlus()], "right behind one of them"),
        (SCALE, {}, [AdaptiveProjectedGuidance(), CFGPlusPlus()], "another guidance of its kind"),
        (SCALE, {}, [CFGPlusPlus(), AdaptiveProjectedGuidance()], "right behind one of them"),
    ):
        with pytest.raises(InputError, match=match):
            make(pipe, guidance, guidance_scale=scale, **options)
    for scale in (0.0, 0.99):
        assert make(pipe, [CFGPlusPlus()], guidance_scale=scale).isfinite().all()


def test_a_callback_may_change_the_scale(pipe):
    def change(scale):
        def callback(pipeline, step, timestep, tensors):
            pipeline._guidance_scale = scale

        return make(pipe, [CFGPlusPlus()], callback_on_step_end=callback)

    plain = make(pipe, [CFGPlusPlus()])
    assert torch.equal(change(SCALE), plain)
    weaker, full = change(0.3), change(1.0)
    assert (weaker - plain).abs().max() > 1e-4 and (weaker - full).abs().max() > 1e-4
    with pytest.raises(InputError, match="guidance_scale is 1\\.1;"):
        change(1.1)


def test_no_step_reads_a_tensor(pipe):
    scheduler, context = DDIMScheduler.from_config(pipe.scheduler.config), torch.randn(2, 5, 16)
    scheduler.set_timesteps(4)
    guidance = [ClassifierFreeGuidance(Conditioning(torch.zeros_like(context)), SCALE), CFGPlusPlus()]
    with CountReads() as counter:
        sample(Denoiser(pipe.unet, Conditioning(context)), scheduler, torch.randn(2, 4, 8, 8), guidance=guidance)
    assert [read for read in counter.reads if "_to_copy" not in read] == []  # timesteps become floats, which is no read
