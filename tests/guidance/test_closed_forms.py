"""Classifier and image guidance where the right answer is known: Gaussian mixtures, in every prediction type."""

import pytest
import torch
from analytic import LinearDecoder, Mixture

from latentdiff import DDIMScheduler, InputError
from latentdiff.guidance.classifier import ClassifierGuidance
from latentdiff.guidance.image import ImageGuidance, downsampling, half_squared_error, masking
from latentdiff.sampling import SamplingContext, sample
from latentdiff.schedulers.predictions import FLOW, PREDICTION_TYPES

EXACT = {"rtol": 1e-4, "atol": 1e-5}
STD = 0.6
TIMESTEPS = (20, 400, 900)


def rng():
    return torch.Generator().manual_seed(0)


def mixture(kind="epsilon", classes=3, std=STD):
    means = torch.randn(classes, 2, 4, 4, generator=rng())
    return Mixture(means, std, DDIMScheduler(prediction_type=kind))


def guided_x0(model, guidance, latents, timestep, fraction=0.0):
    """The estimate of z0 after guidance, and what the loop would have been given."""
    context, predictor = SamplingContext(model, model.parametrization), model
    for guide in guidance:
        predictor = guide(predictor, context)
    with torch.no_grad():
        prediction = predictor(latents, timestep, fraction)
    assert not prediction.requires_grad
    return model.parametrization.x0(latents, prediction, timestep)


@pytest.fixture
def latents():
    return torch.randn(3, 2, 4, 4, generator=rng())


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_classifier_guidance_gives_the_conditional_mean(kind, timestep, latents):
    """Bayes: score of p(z | y) = score of p(z) + grad log p(y | z); so E[z0 | z_t, y] at scale 1, labels per image."""
    model, timestep = mixture(kind), torch.tensor(timestep)
    labels = torch.tensor([2, 0, 1])
    found = guided_x0(model, [ClassifierGuidance(model.log_joint, labels, 1.0)], latents, timestep)
    expected = model.means_given(latents, timestep)[range(3), labels]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    unguided = model.x0(latents, timestep)
    twice = guided_x0(model, [ClassifierGuidance(model.log_joint, labels, 2.0)], latents, timestep)
    torch.testing.assert_close(twice - unguided, 2 * (found - unguided), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_image_guidance_gives_the_posterior_mean(kind, timestep, latents):
    """One Gaussian, y = D z0 + noise: with the noise's and z0's own variance as weight, eq. 17 is exact at scale 1."""
    model, timestep = mixture(kind, classes=1), torch.tensor(timestep)
    gain = torch.tensor([[1.5, 0.0], [0.0, 1.5]])  # a multiple of a rotation keeps the posterior's variance isotropic
    alpha, sigma = model.levels(timestep)
    variance = STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)  # of z0 given z_t
    noise = 0.3
    target = torch.randn(3, 2, 4, 4, generator=rng().manual_seed(5))

    def distance(images, targets):
        return half_squared_error(images, targets) / (noise**2 + 1.5**2 * variance)

    guide = ImageGuidance(LinearDecoder(gain), target, 1.0, distance=distance)
    found = guided_x0(model, [guide], latents, timestep)
    prior = model.x0(latents, timestep)
    kalman = 1.5 * variance / (noise**2 + 1.5**2 * variance)
    torch.testing.assert_close(found, prior + kalman * (target - 1.5 * prior), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_the_linear_part_is_exact_for_latents_of_unit_variance(kind, timestep, latents):
    model, timestep = mixture(kind, classes=1, std=1.0), torch.tensor(timestep)
    options = {"vae": LinearDecoder(torch.randn(2, 3, generator=rng()), 0.7), "target": torch.zeros(1, 3, 4, 4)}
    through = guided_x0(model, [ImageGuidance(**options, scale=0.3)], latents, timestep)
    assert model.calls_with_grad
    model.calls_with_grad = 0
    linear = guided_x0(model, [ImageGuidance(**options, scale=0.3, through_network=False)], latents, timestep)
    assert not model.calls_with_grad
    torch.testing.assert_close(linear, through, rtol=1e-3, atol=1e-4)
    assert (linear - model.x0(latents, timestep)).abs().max() > 1e-4


def test_guidance_composes_in_either_order(latents):
    """Image guidance behind another differentiates it too; each correction is the one of its own estimate."""
    model, timestep = mixture("v_prediction"), torch.tensor(500)
    decoder, options = LinearDecoder(torch.eye(2)), {"scale": 0.2}
    first = ImageGuidance(decoder, torch.ones(1, 2, 4, 4), **options)
    second = ImageGuidance(decoder, masking(torch.ones(1, 1, 4, 4))(-torch.ones(1, 2, 4, 4)), **options)
    context = SamplingContext(model, model.parametrization)
    _, sigma = model.levels(timestep)
    leaf = latents.clone().requires_grad_()
    inner = first(model, context)(leaf, timestep, 0.0)
    estimate = model.parametrization.x0(leaf, inner, timestep)
    slope = torch.autograd.grad(half_squared_error(estimate, -torch.ones_like(estimate)).sum(), leaf)[0]
    expected = model.parametrization.shift(inner.detach(), 0.2 * sigma * slope, timestep)
    found = second(first(model, context), context)(latents, timestep, 0.0)
    torch.testing.assert_close(found, expected, **EXACT)
    # The slope went through the first guidance into the network: without it, it would be another.
    plain = second(lambda *args: first(model, context)(*args).detach(), context)(latents, timestep, 0.0)
    assert (plain - found).abs().max() > 1e-3
    classifier = ClassifierGuidance(model.log_joint, 1, 1.0)
    for guides in ([classifier, first], [first, classifier]):
        x0 = guided_x0(model, guides, latents, timestep)
        assert (x0 - guided_x0(model, guides[:1], latents, timestep)).abs().max() > 1e-3


def test_all_prediction_types_sample_the_same():
    """The same noise, network and guidance end at the same latents, whatever the network predicts of the same betas."""
    ends = []
    for kind in set(PREDICTION_TYPES) - {FLOW}:
        scheduler, model = DDIMScheduler(prediction_type=kind), mixture(kind)
        scheduler.set_timesteps(10)
        target = downsampling(2)(torch.ones(1, 2, 4, 4))
        guidance = [
            ClassifierGuidance(model.log_joint, [1, 2], 3.0),
            ImageGuidance(LinearDecoder(torch.eye(2)), target, 0.5, transform=downsampling(2)),
        ]
        ends.append(sample(model, scheduler, torch.randn(2, 2, 4, 4, generator=rng()), guidance=guidance))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-3, atol=1e-3)


def test_outside_its_interval_guidance_does_nothing(latents):
    model, timestep = mixture(), torch.tensor(500)
    for guide in (
        ClassifierGuidance(model.log_joint, 0, 5.0, interval=(0.2, 0.5)),
        ImageGuidance(LinearDecoder(torch.eye(2)), torch.ones(1, 2, 4, 4), 1.0, interval=(0.2, 0.5)),
    ):
        predict = guide(model, SamplingContext(model, model.parametrization))
        plain = model(latents, timestep)
        assert torch.equal(predict(latents, timestep, 0.1), plain)
        assert torch.equal(predict(latents, timestep, 0.5), plain)
        assert not torch.equal(predict(latents, timestep, 0.2), plain)


@pytest.mark.parametrize("mode", ["average", "bicubic"])
def test_downsampling_keeps_a_constant_and_the_mean(mode):
    images = torch.rand(1, 3, 8, 12, generator=rng())
    small = downsampling(4, mode)(images)
    assert small.shape == (1, 3, 2, 3)
    torch.testing.assert_close(downsampling(4, mode)(torch.full_like(images, 0.3)), torch.full_like(small, 0.3))
    assert abs(float(small.mean() - images.mean())) < 0.05


def test_wrong_arguments_are_input_errors(latents):
    model, timestep = mixture(), torch.tensor(500)
    context = SamplingContext(model, model.parametrization)
    for make in (
        lambda: ClassifierGuidance(model.log_joint, 0, float("nan")),
        lambda: ClassifierGuidance(model.log_joint, 0, 1.0, interval=(0.5, 0.5)),
        lambda: downsampling(0),
        lambda: downsampling(2, "nearest"),
        lambda: ClassifierGuidance(model.log_joint, [0, 1], 1.0)(model, context)(latents, timestep, 0.0),
        lambda: ImageGuidance(LinearDecoder(torch.eye(2)), torch.ones(1, 2, 5, 4), 1.0)(model, context)(
            latents, timestep, 0.0
        ),
    ):
        with pytest.raises(InputError):
            make()
    guided = ClassifierGuidance(model.log_joint, 0, 1.0)(model, context)
    with torch.inference_mode(), pytest.raises(InputError, match="no_grad"):
        guided(latents.clone(), timestep, 0.0)
