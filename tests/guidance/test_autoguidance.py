"""Autoguidance: closed forms for Gaussian data, and pipelines of a model and an earlier state of it."""

import copy

import pytest
import torch
from analytic import Mixture, MixtureNetwork
from device_reads import CountReads
from diffusers import FlowMatchEulerDiscreteScheduler
from tiny import text_to_image, tiny_class_to_image, unconditional

from latentdiff import (
    AutoGuidance,
    ClassToImagePipeline,
    Conditioning,
    DDIMScheduler,
    DiffusionPipeline,
    ImageGuidance,
    InputError,
    UNet2DConditionModel,
)
from latentdiff.sampling import Denoiser, SamplingContext, sample
from latentdiff.schedulers.predictions import PREDICTION_TYPES

OPTIONS = {"num_inference_steps": 4, "seed": 3, "output_type": "latent"}


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", [20, 400, 900])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_gaussians(kind, timestep, scale):
    """The score of p_strong^w p_weak^(1 - w), of noisy latents: for Gaussians of one mean it is that of a Gaussian."""
    mean, stds = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0)), (0.5, 0.9)
    strong, weak = (Mixture(mean, std, DDIMScheduler(prediction_type=kind)) for std in stds)
    latents, timestep = torch.randn(3, 2, 4, 4), torch.tensor(timestep)
    denoiser = Denoiser(MixtureNetwork(strong), Conditioning())
    parametrization = strong.parametrization
    guided = AutoGuidance(MixtureNetwork(weak), scale)(denoiser, SamplingContext(denoiser, parametrization))
    alpha, sigma = strong.levels(timestep)
    inverse = [1 / (alpha**2 * std**2 + sigma**2) for std in stds]
    expected = sigma * (scale * inverse[0] + (1 - scale) * inverse[1]) * (latents - alpha * mean)
    found = parametrization.epsilon(latents, guided(latents, timestep, 0.0), timestep)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_samples_are_narrower_than_those_of_either():
    """A weak model is broader, and what is led away from it is narrower than what the strong one makes."""
    spread = {}
    for scale in (1.0, 2.0, 3.0):
        scheduler = DDIMScheduler()
        scheduler.set_timesteps(100)
        strong, weak = (Mixture(torch.zeros(1, 2, 8, 8), std, scheduler) for std in (0.5, 0.7))
        denoiser = Denoiser(MixtureNetwork(strong), Conditioning())
        noise = torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        guidance = [AutoGuidance(MixtureNetwork(weak), scale)]
        spread[scale] = float(sample(denoiser, scheduler, noise, guidance=guidance).std())
    assert spread[3.0] < spread[2.0] < spread[1.0] and spread[1.0] == pytest.approx(0.5, abs=0.03)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return unconditional(tmp_path_factory.mktemp("pipe"))


def earlier(pipe, seed=1):
    """The same model before some training: its network is another."""
    generator, found = torch.Generator().manual_seed(seed), copy.copy(pipe)
    found.register_modules(unet=copy.deepcopy(pipe.unet))
    with torch.no_grad():
        for parameter in found.unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return found


def test_a_pipeline_from_a_folder_and_its_network_alone(pipe, tmp_path):
    earlier(pipe).save_pretrained(tmp_path / "earlier")
    weak = DiffusionPipeline.from_pretrained(tmp_path / "earlier")
    guided = pipe(batch_size=2, guidance=[AutoGuidance(weak, 2.0)], **OPTIONS).images
    assert torch.equal(guided, pipe(batch_size=2, guidance=[AutoGuidance(weak.unet, 2.0)], **OPTIONS).images)
    plain = pipe(batch_size=2, **OPTIONS).images
    assert (guided - plain).abs().max() > 1e-3
    assert torch.equal(plain, pipe(batch_size=2, guidance=[AutoGuidance(weak, 1.0)], **OPTIONS).images)
    alone = pipe(guidance=[AutoGuidance(weak, 2.0)], **{**OPTIONS, "seed": 4}).images
    torch.testing.assert_close(guided[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_first_step_is_the_formula(pipe):
    weak, seen = earlier(pipe), []
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    guidance = [AutoGuidance(weak, 3.0), lambda predictor, context: lambda *args: spy(predictor, args, seen)]
    pipe(latents=noise, guidance=guidance, **OPTIONS)
    timestep = pipe.scheduler.timesteps[0]
    with torch.no_grad():
        strong, worse = (unet(noise, timestep).sample for unet in (pipe.unet, weak.unet))
    torch.testing.assert_close(seen[0], worse + 3.0 * (strong - worse), rtol=1e-4, atol=1e-4)


def spy(predictor, args, seen):
    seen.append(predictor(*args))
    return seen[-1]


def test_a_smaller_network_in_another_precision(pipe):
    torch.manual_seed(0)
    small = UNet2DConditionModel.from_config({**pipe.unet.config, "block_out_channels": (4, 8), "norm_num_groups": 2})
    guide = AutoGuidance(small.to(torch.bfloat16).eval(), 2.0)
    found = pipe(guidance=[guide], **OPTIONS).images
    assert found.dtype == torch.float32 and found.isfinite().all()
    assert not torch.equal(found, pipe(**OPTIONS).images)


def test_a_model_in_another_precision_has_the_same_first_stage(pipe):
    weak = earlier(pipe)
    weak.register_modules(vae=copy.deepcopy(pipe.vae))
    found = pipe(guidance=[AutoGuidance(weak.to(dtype=torch.bfloat16), 2.0)], **OPTIONS).images
    assert found.dtype == torch.float32 and found.isfinite().all()


def test_it_acts_in_its_interval_alone(pipe):
    weak, calls = earlier(pipe), []
    handle = weak.unet.register_forward_hook(lambda *args: calls.append(1))
    pipe(guidance=[AutoGuidance(weak, 2.0, (0.25, 0.75))], **OPTIONS)
    handle.remove()
    assert len(calls) == 2


def test_behind_classifier_free_guidance_and_under_image_guidance(tmp_path):
    pipe = text_to_image(tmp_path)
    weak = earlier(pipe)
    image = ImageGuidance(pipe.vae, torch.zeros(1, 3, 16, 16), 0.1)
    results = [
        pipe("a cat", guidance_scale=scale, guidance=guidance, **OPTIONS).images
        for scale in (1.0, 3.0)
        for guidance in ([], [AutoGuidance(weak, 2.0)], [AutoGuidance(weak, 2.0), image])
    ]
    for number, one in enumerate(results):
        assert all((one - other).abs().max() > 1e-3 for other in results[:number])
    assert all(parameter.grad is None for parameter in weak.unet.parameters())


def test_a_class_embedder_of_its_own(tmp_path):
    pipe = ClassToImagePipeline.from_pretrained(tiny_class_to_image(tmp_path))
    pipe.set_progress_bar_config(disable=True)
    weak = earlier(pipe)
    options = {**OPTIONS, "guidance_scale": 1.0}
    shared = pipe("cat", guidance=[AutoGuidance(weak, 2.0)], **options).images
    weak.register_modules(class_embedder=copy.deepcopy(pipe.class_embedder))
    assert torch.equal(pipe("cat", guidance=[AutoGuidance(weak, 2.0)], **options).images, shared)
    with torch.no_grad():
        for parameter in weak.class_embedder.parameters():
            parameter.add_(1.0)
    with pytest.raises(InputError, match="another class_embedder"):
        pipe("cat", guidance=[AutoGuidance(weak, 2.0)], **options)
    conditioning = Conditioning(weak.encode_labels("cat"))
    found = pipe("cat", guidance=[AutoGuidance(weak, 2.0, conditioning=conditioning)], **options).images
    assert (found - shared).abs().max() > 1e-3
    with pytest.raises(InputError, match="conditioning has 1 rows, the guided network's 2"):
        pipe(["cat", "dog"], guidance=[AutoGuidance(weak, 2.0, conditioning=conditioning)], **options)


def test_models_that_do_not_go_together(pipe, tmp_path):
    def changed(**parts):
        made = earlier(pipe)
        made.register_modules(**parts)
        return made

    vae = copy.deepcopy(pipe.vae)
    with torch.no_grad():
        next(iter(vae.decoder.parameters())).add_(0.1)
    config = pipe.unet.config
    wide = UNet2DConditionModel.from_config({**config, "in_channels": 5})
    context = UNet2DConditionModel.from_config({**config, "cross_attention_dim": 16})
    scheduler = pipe.scheduler
    for weak, match in (
        (changed(vae=vae), "another vae"),
        (changed(scheduler=DDIMScheduler.from_config(scheduler.config, prediction_type="sample")), "predicts sample"),
        (changed(scheduler=DDIMScheduler.from_config(scheduler.config, beta_end=0.03)), "another noise schedule"),
        (changed(scheduler=DDIMScheduler.from_config(scheduler.config, num_train_timesteps=500)), "noise schedule"),
        (changed(scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000)), "predicts None"),
        (copy.deepcopy(pipe.unet).to("meta"), "is on meta, the latents are on cpu"),
        (wide, "in_channels 5, the guided one 4"),
        (context, "cross_attention_dim 16, the guided one None"),
    ):
        with pytest.raises(InputError, match=match) as raised:
            pipe(guidance=[AutoGuidance(weak, 2.0)], **OPTIONS)
        assert "\n" not in str(raised.value)
    for model in ("a/folder", tmp_path, None, 3, pipe.vae.config):
        with pytest.raises(InputError, match="the guiding model is"):
            AutoGuidance(model)
    for options, match in (({"scale": float("nan")}, "scale is"), ({"interval": (0.5, 0.5)}, "guidance_interval is")):
        with pytest.raises(InputError, match=match):
            AutoGuidance(pipe, **options)


def test_no_step_reads_a_tensor(pipe):
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(4)
    guidance = [AutoGuidance(earlier(pipe), 2.0)]
    with CountReads() as counter:
        sample(Denoiser(pipe.unet, Conditioning()), scheduler, torch.randn(2, 4, 8, 8), guidance=guidance)
    assert [read for read in counter.reads if "_to_copy" not in read] == []  # timesteps become floats, which is no read
