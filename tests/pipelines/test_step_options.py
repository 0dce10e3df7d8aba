"""Options of a call that reach into each step: x0 in callbacks, temperature, latents set to codes."""

import diffusers
import pytest
import torch
from device_reads import CountReads
from tiny import text_to_image

from latentdiff import InputError, TextToImagePipeline, VQModel
from latentdiff.conditioning import Conditioning
from latentdiff.pipelines import codec
from latentdiff.registry import SCHEDULERS
from latentdiff.sampling import Denoiser, sample
from latentdiff.schedulers import make_scheduler

STEPS = 5
OPTIONS = {"num_inference_steps": STEPS, "seed": 0, "output_type": "latent"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("step_options"))


@pytest.fixture
def pipe(model):
    return TextToImagePipeline.from_pipe(model)


@pytest.fixture
def vq(model):
    """The same model with a VQ first stage, whose latents are scaled."""
    torch.manual_seed(0)
    vae = VQModel(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        num_vq_embeddings=6,
        scaling_factor=0.5,
        sample_size=16,
    ).eval()
    torch.nn.init.normal_(vae.quantize.embedding.weight)
    return TextToImagePipeline.from_pipe(model, vae=vae)


def estimates(pipe, **options):
    """The result, and what a callback sees of x0."""
    seen = []

    def look(pipeline, step, timestep, tensors):
        assert set(tensors) == {"latents", "pred_original_sample"}
        seen.append(tensors["pred_original_sample"])
        return {}

    inputs = ["latents", "pred_original_sample"]
    made = pipe(
        "a cat", callback_on_step_end=look, callback_on_step_end_tensor_inputs=inputs, **OPTIONS | options
    ).images
    return made, seen


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(SCHEDULERS.names()))
def test_callbacks_see_x0(pipe, name):
    """A run's last step lands on its x0, where it lands on noise-free images."""
    pipe.set_scheduler(name, **{"set_alpha_to_one": True} if name == "plms" else {})
    made, seen = estimates(pipe)
    assert len(seen) == STEPS + (name == "plms") or name in ("heun", "restart")
    torch.testing.assert_close(seen[-1], made, rtol=1e-4, atol=1e-4)
    assert torch.equal(made, pipe("a cat", **OPTIONS).images), "looking changes nothing"
    assert (seen[0] - seen[-1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("own", "stock"),
    [("ddim", "DDIMScheduler"), ("euler", "EulerDiscreteScheduler"), ("dpmpp_2m", "DPMSolverMultistepScheduler")],
)
def test_callbacks_see_the_same_x0_with_stock_schedulers(pipe, own, stock):
    pipe.set_scheduler(own, timestep_spacing="trailing")
    ours = estimates(pipe)[1]
    pipe.set_scheduler(getattr(diffusers, stock), timestep_spacing="trailing")
    theirs = estimates(pipe)[1]
    torch.testing.assert_close(torch.stack(theirs), torch.stack(ours), rtol=1e-3, atol=1e-3)


def test_x0_alone_or_nothing_may_be_asked_for(pipe):
    seen = []

    def look(pipeline, step, timestep, tensors):
        seen.append(sorted(tensors))
        return {}

    for inputs in (["pred_original_sample"], []):
        pipe("a cat", callback_on_step_end=look, callback_on_step_end_tensor_inputs=inputs, **OPTIONS)
        assert seen[-1] == inputs


@pytest.mark.parametrize("name", ["ddim", "plms", "ddpm"])
def test_quantised_steps_go_from_codes(vq, name):
    vq.set_scheduler(name)
    made, seen = estimates(vq, quantize_denoised=True)
    codes = vq.vae.quantize.embedding.weight * vq.vae.config.scaling_factor
    for x0 in seen:
        distances = (x0.permute(0, 2, 3, 1).unsqueeze(-2) - codes).norm(dim=-1)
        assert distances.min(-1).values.max() < 1e-5
    assert (made - vq("a cat", **OPTIONS).images).abs().max() > 1e-3
    torch.testing.assert_close(codec.quantizer(vq.vae, torch.device("cpu"))(seen[0]), seen[0])


def test_quantised_steps_are_refused_without_codes_or_with_another_solver(pipe, vq):
    with pytest.raises(InputError, match="VQ first stage"):
        pipe("a cat", quantize_denoised=True, **OPTIONS)
    for scheduler in ("dpmpp_2m", diffusers.DDIMScheduler):
        vq.set_scheduler(scheduler)
        with pytest.raises(InputError, match="'ddim', 'plms' or 'ddpm'"):
            vq("a cat", quantize_denoised=True, **OPTIONS)
    with pytest.raises(InputError, match="quantize_denoised is 'yes'"):
        vq("a cat", quantize_denoised="yes", **OPTIONS)


def test_temperature_of_a_call(pipe):
    hot = pipe("a cat", eta=1.0, **OPTIONS).images
    assert torch.equal(hot, pipe("a cat", eta=1.0, temperature=1, **OPTIONS).images)
    cool, cold = (pipe("a cat", eta=1.0, temperature=t, **OPTIONS).images for t in (0.5, 0.0))
    assert (hot - cool).abs().max() > 1e-3 and (cool - cold).abs().max() > 1e-3
    for scheduler, options in (("ddim", {}), ("euler", {}), (diffusers.DDPMScheduler, {})):
        pipe.set_scheduler(scheduler)
        with pytest.raises(InputError, match="temperature is 0"):
            pipe("a cat", temperature=0.0, **options, **OPTIONS)


def test_no_step_reads_a_tensor(pipe, vq):
    scheduler = make_scheduler("ddpm", pipe.scheduler.config)
    scheduler.set_timesteps(STEPS)
    options = {"replace_x0": codec.quantizer(vq.vae, torch.device("cpu")), "observe_x0": lambda x0: None}
    with CountReads() as counter:
        denoiser = Denoiser(pipe.unet, Conditioning(torch.randn(2, 5, 16)))
        sample(denoiser, scheduler, torch.randn(2, 4, 8, 8), temperature=0.5, **options)
    assert [read for read in counter.reads if "_to_copy" not in read] == []  # timesteps become floats, which is no read
