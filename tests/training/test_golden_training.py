"""Losses, optimiser steps and EMA of the original code."""

import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from golden_models import CASES, load_case
from golden_weights import GOLDEN
from safetensors.torch import load_file

from latentdiff import DDIMScheduler
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.losses import (
    by_variance,
    diffusion_loss,
    draw_latents,
    huber_widths,
    timestep_weights,
)
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.schedules import warmup_cosine, warmup_linear

AUX, LOSSES = load_file(GOLDEN / "aux_schedules.safetensors"), load_file(GOLDEN / "aux_diffusion_losses.safetensors")
AUX_SCHEDULER = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")


def scheduler_of(case):
    config = case.config
    return DDIMScheduler(
        beta_start=config["linear_start"], beta_end=config["linear_end"], beta_schedule="scaled_linear"
    )


def loss_of(case, z, noise, t, context):
    scheduler = scheduler_of(case)
    prediction = case.unet(scheduler.add_noise(z, noise, t), t, encoder_hidden_states=context).sample
    return diffusion_loss(prediction, noise, timestep_weights(scheduler.alphas_cumprod, "epsilon", None, 0.0)[t])


def train_three_steps(case, trained, context=lambda: None, after_step=lambda: None):
    """The loss of each step is the original's; `trained` are the networks."""
    io = case.io
    optimizer = torch.optim.AdamW([p for network in trained for p in network.train().parameters()], lr=2e-3)
    for step in range(3):
        loss = loss_of(case, io["train.z"], io["train.noise"][step], io["train.t"][step], context())
        assert torch.allclose(loss, io["train.loss"][step], rtol=1e-4)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        after_step()
    load_case.cache_clear()


@pytest.mark.parametrize("name", CASES)
def test_loss_is_the_originals(name):
    case = load_case(name)
    io = case.io
    with torch.no_grad():
        found = loss_of(case, io["z"], io["ploss.noise"], io["ploss.t"], io.get("cond"))
    assert torch.allclose(found, io["ploss.l2"][0], rtol=1e-5)


def test_three_training_steps_are_the_originals():
    load_case.cache_clear()  # the network is trained below; others must not get it
    case = load_case("ldm_uncond")
    io, unet = case.io, case.unet.requires_grad_(True)
    ema = EMA(unet, 0.9999)
    # The original's shadow starts from its checkpoint's EMA weights and count, ours takes both as a resumed run does.
    ema.load(dict(case.unet_ema.named_parameters()), int(io["train.num_updates"]) - 3)
    train_three_steps(case, [unet], after_step=ema.update)
    # Not the third recorded parameter, the time embedding's bias: with one channel a group, normalisation removes its
    # effect, its gradient is rounding error (1e-10 in fp32, 1e-19 in fp64), and AdamW scales that up to full steps.
    names = {"out.2.weight": "conv_out.weight", "input_blocks.0.0.bias": "conv_in.bias"}
    weights = dict(unet.named_parameters())
    for theirs, ours in names.items():
        assert torch.allclose(weights[ours], io[f"train.after.diffusion_model.{theirs}"], atol=1e-5)
        assert torch.allclose(ema.shadow[ours], io[f"train.ema_after.diffusion_model.{theirs}"], atol=1e-5)


def test_three_steps_of_a_class_conditional_model_are_the_originals():
    """The class embedding is trained with the UNet."""
    load_case.cache_clear()
    case = load_case("ldm_cin")
    io, embedder = case.io, case.components["class_embedder"]
    train_three_steps(case, [case.unet, embedder], context=lambda: embedder(io["class_label"]))
    assert torch.allclose(case.unet.conv_out.weight, io["train.after.diffusion_model.out.2.weight"], atol=1e-5)
    assert torch.allclose(embedder.embedding.weight, io["train.after.embedding"], atol=1e-5)


def test_ema_is_the_originals():
    io = AUX
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(io["ema.raw"][0].clone())
    ema = EMA(module, 0.9999)
    for raw, shadow in zip(io["ema.raw"][1:], io["ema.shadow"][1:], strict=True):
        module.weight.data.copy_(raw)
        ema.update()
        assert torch.allclose(ema.shadow["weight"], shadow, atol=1e-6)
    with ema.applied():
        assert torch.equal(module.weight, ema.shadow["weight"])
    assert torch.equal(module.weight, io["ema.raw"][-1])


def test_learning_rates_are_the_originals():
    steps = AUX["lr.n"].tolist()
    cosine = {"lr_start": 1e-3, "lr_max": 0.1, "lr_min": 1e-4}
    cases = {
        "lr.warmup_cosine": warmup_cosine(1000, 50000, **cosine),
        "lr.linear": warmup_linear(100, 100000, f_min=0.1),
        "lr.churches": warmup_linear(10000, 1),
    }
    for name, factor in cases.items():
        assert [factor(step) for step in steps] == pytest.approx(AUX[name].tolist(), rel=1e-9)


@pytest.mark.parametrize(
    ("case", "kind", "prediction_type"), [(0, "l2", "epsilon"), (1, "l1", "epsilon"), (2, "l2", "")]
)
def test_losses_of_any_prediction_are_the_originals(case, kind, prediction_type):
    """Its variational weights for x0 are another expression, which is not that of the bound.

    Theirs are made in float32 of 1 - alphas_cumprod, which is 0.0015 at first: 4e-5 of relative rounding.
    """
    target = LOSSES["noise" if prediction_type == "epsilon" else "x_start"]
    total, simple, elbo, _ = LOSSES[f"{case}.loss"]
    alphas, t = AUX_SCHEDULER.alphas_cumprod, LOSSES["t"]
    assert torch.allclose(AUX_SCHEDULER.add_noise(LOSSES["x_start"], LOSSES["noise"], t), LOSSES["x_noisy"], atol=1e-5)
    assert torch.allclose(diffusion_loss(LOSSES["model_output"], target, torch.ones(4), kind), simple, rtol=1e-5)
    if prediction_type == "epsilon":
        bound = timestep_weights(alphas, "epsilon", None, 1.0) - 1
        assert torch.allclose(bound, LOSSES["lvlb_weights"], rtol=1e-4, atol=1e-6)
        assert torch.allclose(diffusion_loss(LOSSES["model_output"], target, bound[t], kind), elbo, rtol=1e-4)
        weights = timestep_weights(alphas, "epsilon", None, [0.0, 0.5][case])
        assert torch.allclose(diffusion_loss(LOSSES["model_output"], target, weights[t], kind), total, rtol=1e-4)


@pytest.mark.parametrize(("case", "kind", "target", "elbo"), [(3, "l2", "noise", 0.01), (4, "l1", "x_start", 0.0)])
def test_losses_with_learned_variances_are_the_originals(case, kind, target, elbo):
    """Their output is a clamped one: case 2 computed a posterior mean, and for x0 that clamps in place."""
    total, simple, _, _ = LOSSES[f"{case}.loss"]
    t, prediction_type = LOSSES["t"], "epsilon" if target == "noise" else "sample"
    weights, plain = (timestep_weights(AUX_SCHEDULER.alphas_cumprod, prediction_type, None, w)[t] for w in (elbo, 0.0))
    errors, logvar = (LOSSES["model_output"].clamp(-1, 1), LOSSES[target]), LOSSES[f"{case}.logvar"][t]
    assert torch.allclose(diffusion_loss(*errors, plain, kind), simple, rtol=1e-5)
    found = diffusion_loss(*errors, by_variance(weights, plain, logvar), kind) + logvar.mean()
    assert torch.allclose(found, total, rtol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gamma", [None, 5.0])
def test_weights_are_finite_where_all_is_noise(kind, gamma):
    alphas = DDIMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    weights = timestep_weights(alphas, kind, gamma, 0.0)
    limit = 0 if gamma and kind != "epsilon" else 1
    assert alphas[-1] == 0 and weights.isfinite().all() and weights[-1] == limit


def test_min_snr_weights_are_those_of_the_paper():
    """Weights of the x0 loss are min(SNR, gamma); an epsilon loss is SNR times, a v loss SNR + 1 times the x0 loss."""
    alphas = torch.tensor([0.999, 0.5, 0.01])
    snr = alphas / (1 - alphas)
    x0_error = torch.rand(3, 4, 2, 2)
    expected = (snr.clamp(max=5.0) * x0_error.square().mean(dim=(1, 2, 3))).mean()
    for kind, factor in {"sample": torch.ones(3), "epsilon": snr, "v_prediction": snr + 1}.items():
        error = x0_error * factor.sqrt()[:, None, None, None]
        weights = timestep_weights(alphas, kind, 5.0, 0.0)
        assert torch.allclose(diffusion_loss(error, torch.zeros_like(error), weights), expected)


def test_the_bound_is_the_same_for_every_prediction():
    """The variational bound of one x0 error, whichever way the network says it."""
    alphas = torch.tensor([0.999, 0.5, 0.01])
    snr = alphas / (1 - alphas)
    for kind, factor in {"epsilon": snr, "v_prediction": snr + 1}.items():
        added = timestep_weights(alphas, kind, None, 2.0) - timestep_weights(alphas, kind, None, 0.0)
        expected = timestep_weights(alphas, "sample", None, 2.0) - timestep_weights(alphas, "sample", None, 0.0)
        assert torch.allclose((added * factor)[1:], expected[1:], rtol=1e-5, atol=1e-6)


def test_huber_is_squares_near_zero_and_absolute_values_far_away():
    widths = huber_widths(torch.tensor([0.99999, 0.00001]), 0.1)
    assert widths[0] == pytest.approx(1, abs=0.02) and widths[1] == pytest.approx(0.1, abs=1e-3)
    for size, expected in ((1e-3, 1e-6), (100.0, 2 * 0.1 * (100 - 0.1))):
        error = torch.full((1, 4, 2, 2), size)
        found = diffusion_loss(error, torch.zeros_like(error), torch.ones(1), "huber", torch.tensor([0.1]))
        assert float(found) == pytest.approx(expected, rel=1e-3)


def test_offset_noise_is_one_number_a_channel():
    vae = FrozenDict(latent_channels=3, scaling_factor=1.0)
    moments = torch.zeros(500, 3, 8, 8)
    _, plain = draw_latents(moments, vae, SampleGenerators(0, range(500)))
    _, offset = draw_latents(moments, vae, SampleGenerators(0, range(500)), 0.5)
    added = offset - plain
    assert torch.allclose(added, added[..., :1, :1].expand_as(added), atol=1e-6)
    assert float(added.std()) == pytest.approx(0.5, abs=5 * 0.5 / (2 * 1500) ** 0.5)  # 1500 draws
