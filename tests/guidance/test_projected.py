"""APG: beside diffusers' function on the same estimates, and in pipelines."""

import threading

import pytest
import torch
from analytic import ConditionalNetwork, Mixture
from device_reads import CountReads
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from tiny import text_to_image, unconditional

from latentdiff import (
    AdaptiveProjectedGuidance,
    AutoGuidance,
    ClassifierFreeGuidance,
    ClassifierGuidance,
    Conditioning,
    DDIMScheduler,
    ImageGuidance,
    InputError,
)
from latentdiff.sampling import Denoiser, SamplingContext, sample
from latentdiff.schedulers.predictions import PREDICTION_TYPES

OPTIONS = {"num_inference_steps": 4, "seed": 3, "output_type": "latent"}


def conditional(kind="epsilon"):
    """A denoiser of two classes, classifier-free guidance of scale 4 for it, and the context."""
    means = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(means, 0.6, DDIMScheduler(prediction_type=kind))
    denoiser = Denoiser(ConditionalNetwork(mixture), Conditioning(torch.tensor([[[0.0]], [[1.0]]])))
    free = ClassifierFreeGuidance(Conditioning(torch.full((2, 1, 1), -1.0)), 4.0)
    return free, denoiser, SamplingContext(denoiser, mixture.parametrization)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize(
    "options",
    [
        {"parallel": 0.0, "momentum": 0.0},
        {"parallel": 0.3, "momentum": -0.5, "norm_threshold": 0.5},
        {"parallel": 1.0, "momentum": -0.75, "norm_threshold": 3.0},
    ],
)
def test_estimates_are_those_of_diffusers_over_a_run(kind, options):
    free, denoiser, context = conditional(kind)
    pair = free(denoiser, context)
    guided = AdaptiveProjectedGuidance(**options)(pair, context)
    latents, buffer = (
        torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)),
        MomentumBuffer(options["momentum"]),
    )
    for timestep in map(torch.tensor, (900, 600, 200)):
        x0 = context.parametrization.x0
        weak, strong = (x0(latents, prediction, timestep) for prediction in pair.both(latents, timestep, 0.0))
        expected = normalized_guidance(
            strong,
            weak,
            3.0,  # the paper's scale less 1, added to the conditional estimate
            buffer,
            eta=options["parallel"],
            norm_threshold=options.get("norm_threshold", 0.0),
            use_original_formulation=True,
        )
        found = x0(latents, guided(latents, timestep, 0.0), timestep)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_with_all_of_it_left_out_it_is_classifier_free_guidance(kind):
    free, denoiser, context = conditional(kind)
    plain = free(denoiser, context)
    guided = AdaptiveProjectedGuidance(parallel=1.0, momentum=0.0)(plain, context)
    latents, timestep = torch.randn(2, 2, 4, 4), torch.tensor(500)
    torch.testing.assert_close(guided(latents, timestep, 0.0), plain(latents, timestep, 0.0), rtol=1e-4, atol=1e-4)


def test_what_is_added_is_orthogonal_and_limited():
    free, denoiser, context = conditional()
    pair = free(denoiser, context)
    guided = AdaptiveProjectedGuidance(norm_threshold=0.5, momentum=0.0)(pair, context)
    latents, timestep = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor(900)
    strong = context.parametrization.x0(latents, pair.both(latents, timestep, 0.0)[1], timestep)
    added = context.parametrization.x0(latents, guided(latents, timestep, 0.0), timestep) - strong
    cosine = torch.nn.functional.cosine_similarity(added.flatten(1), strong.flatten(1))
    assert cosine.abs().max() < 1e-3
    assert added.flatten(1).norm(dim=1).max() <= 3 * 0.5 * 1.001


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return text_to_image(tmp_path_factory.mktemp("pipe"))


def make(pipe, guidance, **options):
    return pipe(["a red apple", "a cat"], guidance=guidance, **{**OPTIONS, "guidance_scale": 6.0, **options}).images


def test_in_a_pipeline_each_part_of_it_acts(pipe):
    results = (
        [make(pipe, [])]
        + [
            make(pipe, [AdaptiveProjectedGuidance(**options)])
            for options in (
                {"parallel": 0.0, "momentum": 0.0},
                {"parallel": 0.5, "momentum": 0.0},
                {"parallel": 0.0, "momentum": -0.5},
                {"parallel": 0.0, "momentum": 0.0, "norm_threshold": 1.0},
            )
        ]
        + [make(pipe, [AdaptiveProjectedGuidance()], guidance_rescale=0.7)]
    )
    for number, one in enumerate(results):
        assert one.isfinite().all()
        assert all((one - other).abs().max() > 1e-3 for other in results[:number])


def test_images_do_not_depend_on_their_batch_or_the_calls_before(pipe):
    guide = AdaptiveProjectedGuidance(norm_threshold=2.0)
    both = make(pipe, [guide])
    assert torch.equal(make(pipe, [guide]), both)
    alone = pipe("a cat", guidance=[guide], **{**OPTIONS, "seed": 4, "guidance_scale": 6.0}).images
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-4)


def test_threads_share_the_object_and_not_its_momentum(pipe):
    guide = AdaptiveProjectedGuidance()
    expected = [make(pipe, [guide], seed=seed) for seed in (0, 10)]
    found = [None, None]

    def call(number, seed):
        found[number] = make(pipe, [guide], seed=seed)

    threads = [threading.Thread(target=call, args=arguments) for arguments in ((0, 0), (1, 10))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(torch.equal, found, expected))


def test_with_the_other_kinds(pipe, tmp_path):
    guide = AdaptiveProjectedGuidance()
    image = ImageGuidance(pipe.vae, torch.zeros(1, 3, 16, 16), 0.1)
    assert (make(pipe, [guide, image]) - make(pipe, [guide])).abs().max() > 1e-3
    plain = unconditional(tmp_path)
    auto = AutoGuidance(unconditional(tmp_path).unet, 2.0)
    with torch.no_grad():
        for parameter in auto.unet.parameters():
            parameter.mul_(1.1)
    options = {**OPTIONS, "batch_size": 1}
    assert (
        plain(guidance=[auto, guide], **options).images - plain(guidance=[auto], **options).images
    ).abs().max() > 1e-3


def test_a_callback_may_change_the_scale(pipe):
    def weaker(pipeline, step, timestep, tensors):
        pipeline._guidance_scale = 2.0

    found = make(pipe, [AdaptiveProjectedGuidance()], callback_on_step_end=weaker)
    assert (found - make(pipe, [AdaptiveProjectedGuidance()])).abs().max() > 1e-3


def test_without_a_guidance_to_change_it_is_refused(pipe):
    guide, classifier = AdaptiveProjectedGuidance(), ClassifierGuidance(lambda x, t: x.flatten(1), 0, 1.0)
    for guidance, scale, match in (
        ([guide], 1.0, "right behind one of them"),
        ([classifier, guide], 6.0, "right behind one of them"),
        ([guide, AdaptiveProjectedGuidance()], 6.0, "another guidance of its kind"),
    ):
        with pytest.raises(InputError, match=match):
            make(pipe, guidance, guidance_scale=scale)


@pytest.mark.parametrize(
    "options",
    [
        *({"parallel": value} for value in (-0.01, 1.01, "0.5", float("nan"))),
        *({"momentum": value} for value in (-1.0, 1.0, True)),
        *({"norm_threshold": value} for value in (0.0, -1.0, float("inf"))),
    ],
)
def test_options_out_of_range(options):
    (name,) = options
    with pytest.raises(InputError, match=f"{name} is"):
        AdaptiveProjectedGuidance(**options)


def test_the_ends_of_the_ranges():
    AdaptiveProjectedGuidance(parallel=1, momentum=-0.99, norm_threshold=1e-6)
    AdaptiveProjectedGuidance(parallel=0, momentum=0.99, norm_threshold=None)


def test_no_step_reads_a_tensor(pipe):
    scheduler, context = DDIMScheduler.from_config(pipe.scheduler.config), torch.randn(2, 5, 16)
    scheduler.set_timesteps(4)
    guidance = [
        ClassifierFreeGuidance(Conditioning(torch.zeros_like(context)), 3.0),
        AdaptiveProjectedGuidance(norm_threshold=2.0),
    ]
    with CountReads() as counter:
        sample(Denoiser(pipe.unet, Conditioning(context)), scheduler, torch.randn(2, 4, 8, 8), guidance=guidance)
    assert [read for read in counter.reads if "_to_copy" not in read] == []  # timesteps become floats, which is no read
