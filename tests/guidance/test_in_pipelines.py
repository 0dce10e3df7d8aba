"""Guidance objects where they are used: in pipelines, with real networks and a real first stage."""

import pytest
import torch
from analytic import Mixture
from device_reads import CountReads
from diffusers import AutoencoderKL
from tiny import text_to_image, unconditional

from latentdiff import (
    ClassifierGuidance,
    DDIMScheduler,
    ImageGuidance,
    InputError,
    NoisyLatentClassifier,
    PerceptualDistance,
)
from latentdiff.conditioning import Conditioning
from latentdiff.guidance.classifier_free import ClassifierFreeGuidance
from latentdiff.guidance.image import downsampling, half_squared_error, masking
from latentdiff.sampling import Denoiser, sample

pytestmark = pytest.mark.thorough

STEPS = 4
LEFT_HALF = torch.cat([torch.ones(1, 1, 16, 8), torch.zeros(1, 1, 16, 8)], dim=3)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory, placement):
    return placement.put(text_to_image(tmp_path_factory.mktemp("pipe")))


@pytest.fixture(scope="module")
def classifier(placement):
    torch.manual_seed(2)
    model = NoisyLatentClassifier(
        sample_size=8,
        num_classes=3,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(False, True),
        num_head_channels=8,
        norm_num_groups=4,
        class_names=["cat", "dog", "star"],
    ).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return placement.put(model)


@pytest.fixture(scope="module")
def decoder():
    """A first stage whose latents fill its range: untrained ones hardly differ in their images."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=1.0,
    )
    return vae.eval().requires_grad_(False)


def make(pipe, prompts=("a red apple", "a cat"), **options):
    options = {"num_inference_steps": STEPS, "seed": 3, "output_type": "latent", "guidance_scale": 3.0} | options
    return pipe(list(prompts), **options).images


def guides(pipe, classifier, labels, target):
    half = masking(LEFT_HALF.to(pipe.device))
    return [
        ClassifierGuidance(classifier, labels, 5.0),
        ImageGuidance(pipe.vae, target, 0.1, transform=downsampling(2)),
        ImageGuidance(pipe.vae, LEFT_HALF * torch.ones(1, 3, 16, 16), 0.1, transform=half),
    ]


def test_all_kinds_together_and_images_do_not_depend_on_their_batch(pipe, classifier, placement):
    targets = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = make(pipe, guidance=guides(pipe, classifier, ["dog", "star"], targets))
    alone = make(pipe, ["a cat"], seed=4, guidance=guides(pipe, classifier, "star", targets[1:]))
    placement.assert_close(both[1:], alone)
    assert (both - make(pipe)).abs().mean() > 0.01
    for i in range(3):
        fewer = guides(pipe, classifier, ["dog", "star"], targets)
        del fewer[i]
        assert (both - make(pipe, guidance=fewer)).abs().max() > 1e-3, "one of them does nothing"
    for network in (pipe.unet, pipe.vae, classifier):
        assert all(parameter.grad is None for parameter in network.parameters())


def test_gradient_checkpointing_changes_memory_only(pipe, placement):
    guidance = [ImageGuidance(pipe.vae, torch.zeros(1, 3, 16, 16), 0.1)]
    plain = make(pipe, guidance=guidance)
    pipe.unet.enable_gradient_checkpointing()
    try:
        checkpointed = make(pipe, guidance=guidance)
    finally:
        pipe.unet.disable_gradient_checkpointing()
    placement.assert_close(checkpointed, plain)


def test_half_precision_comes_out_in_half_precision(tmp_path, classifier, placement):
    pipe = unconditional(tmp_path).to(placement.device, torch.bfloat16)
    for through_network in (True, False):
        image = ImageGuidance(pipe.vae, torch.ones(1, 3, 16, 16), 0.1, through_network=through_network)
        options = {"num_inference_steps": STEPS, "seed": 0, "output_type": "latent"}
        found = pipe(**options, guidance=[ClassifierGuidance(classifier, "cat", 5.0), image]).images
        assert (
            found.dtype == torch.bfloat16 and found.isfinite().all() and not torch.equal(found, pipe(**options).images)
        )


def test_no_step_reads_a_tensor(pipe, classifier, placement):
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(STEPS, device=placement.device)
    context, noise = placement.put(torch.randn(2, 5, 16)), placement.put(torch.randn(2, 4, 8, 8))
    guidance = [
        ClassifierFreeGuidance(Conditioning(torch.zeros_like(context)), 3.0),
        *guides(pipe, classifier, ["dog", "star"], torch.zeros(1, 3, 8, 8)),
    ]
    with CountReads() as counter:
        sample(Denoiser(pipe.unet, Conditioning(context)), scheduler, noise, guidance=guidance)
    assert [read for read in counter.reads if "_to_copy" not in read] == []  # timesteps become floats, which is no read


def test_classifier_free_guidance_must_be_first(pipe, classifier):
    free = ClassifierFreeGuidance(Conditioning(torch.zeros(2, 5, 16)), 3.0)  # refused before it is looked at
    with pytest.raises(InputError, match="put it first"):
        make(pipe, guidance_scale=1.0, guidance=[ClassifierGuidance(classifier, 0, 1.0), free])


def test_an_unconditional_model_is_guided_alike(tmp_path, classifier, placement):
    pipe = placement.put(unconditional(tmp_path))
    options = {"batch_size": 2, "num_inference_steps": STEPS, "seed": 0, "output_type": "latent"}
    guided = pipe(**options, guidance=[ClassifierGuidance(classifier, "cat", 5.0)]).images
    assert (guided - pipe(**options).images).abs().max() > 1e-3


CASES = {
    "downsampled": ({"transform": downsampling(4)}, half_squared_error, (0.0, 3.0, 30.0)),
    "bicubic": ({"transform": downsampling(2, "bicubic")}, half_squared_error, (0.0, 1.0, 10.0)),
    "mask": ({"transform": masking(LEFT_HALF)}, half_squared_error, (0.0, 0.1, 1.0)),
    "linear part": ({"through_network": False}, half_squared_error, (0.0, 0.1, 1.0)),
    "perceptual": ({}, None, (0.0, 10.0, 100.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_distance_falls_with_the_scale(name, decoder):
    """Latents of N(0, 1), whose perfect network is known, and the decoder of a real first stage."""
    options, distance, scales = CASES[name]
    if distance is None:
        torch.manual_seed(1)
        distance = PerceptualDistance().requires_grad_(False)
    transform = options.get("transform", lambda images: images)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        target = transform(decoder.decode(torch.randn(1, 4, 8, 8, generator=rng)).sample)
    noise, distances = torch.randn(4, 4, 8, 8, generator=rng), []
    for scale in scales:
        scheduler = DDIMScheduler()
        scheduler.set_timesteps(10)
        denoiser = Mixture(torch.zeros(1, 4, 8, 8), 1.0, scheduler)
        guide = ImageGuidance(decoder, target, scale, distance=distance, **options)
        latents = sample(denoiser, scheduler, noise, guidance=[guide])
        with torch.no_grad():
            images = transform(decoder.decode(latents).sample)
            distances.append(float(distance(images, target.expand_as(images)).mean()))
    print(name, dict(zip(scales, distances, strict=True)))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.5 * distances[0]
