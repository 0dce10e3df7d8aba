"""Losses, optimiser steps and EMA of the original code."""

from pathlib import Path

import pytest
import torch
from golden_models import CASES, load_case
from safetensors.torch import load_file

from latentdiff import DDIMScheduler
from latentdiff.training.ema import EMA
from latentdiff.training.losses import diffusion_loss


def scheduler_of(case):
    config = case.config
    return DDIMScheduler(
        beta_start=config["linear_start"], beta_end=config["linear_end"], beta_schedule="scaled_linear"
    )


def loss_of(case, unet, z, noise, t):
    scheduler = scheduler_of(case)
    context = case.io.get("cond")
    prediction = unet(scheduler.add_noise(z, noise, t), t, encoder_hidden_states=context).sample
    return diffusion_loss(prediction, noise, scheduler.alphas_cumprod[t], "epsilon", None)


@pytest.mark.parametrize("name", CASES)
def test_loss_is_the_originals(name):
    case = load_case(name)
    io = case.io
    with torch.no_grad():
        found = loss_of(case, case.unet, io["z"], io["ploss.noise"], io["ploss.t"])
    assert torch.allclose(found, io["ploss.l2"][0], rtol=1e-5)


def test_three_training_steps_are_the_originals():
    load_case.cache_clear()  # the network is trained below; others must not get it
    case = load_case("ldm_uncond")
    io, unet = case.io, case.unet.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3)
    ema = EMA(unet, 0.9999)
    # The original's shadow starts from its checkpoint's EMA weights and count, ours takes both as a resumed run does.
    ema.load(dict(case.unet_ema.named_parameters()), int(io["train.num_updates"]) - 3)
    for step in range(3):
        loss = loss_of(case, unet, io["train.z"], io["train.noise"][step], io["train.t"][step])
        assert torch.allclose(loss, io["train.loss"][step], rtol=1e-4)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
    load_case.cache_clear()
    # Not the third recorded parameter, the time embedding's bias: with one channel a group, normalisation removes its
    # effect, its gradient is rounding error (1e-10 in fp32, 1e-19 in fp64), and AdamW scales that up to full steps.
    names = {"out.2.weight": "conv_out.weight", "input_blocks.0.0.bias": "conv_in.bias"}
    weights = dict(unet.named_parameters())
    for theirs, ours in names.items():
        assert torch.allclose(weights[ours], io[f"train.after.diffusion_model.{theirs}"], atol=1e-5)
        assert torch.allclose(ema.shadow[ours], io[f"train.ema_after.diffusion_model.{theirs}"], atol=1e-5)


def test_ema_is_the_originals():
    io = load_file(Path(__file__).parents[1] / "golden" / "aux_schedules.safetensors")
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


def test_min_snr_weights_are_those_of_the_paper():
    """Weights of the x0 loss are min(SNR, gamma); an epsilon loss is SNR times, a v loss SNR + 1 times the x0 loss."""
    alphas = torch.tensor([0.999, 0.5, 0.01])
    snr = alphas / (1 - alphas)
    x0_error = torch.rand(3, 4, 2, 2)
    expected = (snr.clamp(max=5.0) * x0_error.square().mean(dim=(1, 2, 3))).mean()
    for kind, factor in {"sample": torch.ones(3), "epsilon": snr, "v_prediction": snr + 1}.items():
        error = x0_error * factor.sqrt()[:, None, None, None]
        assert torch.allclose(diffusion_loss(error, torch.zeros_like(error), alphas, kind, 5.0), expected)
