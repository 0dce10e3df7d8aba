"""The diffusion loss, and the noisy latents that training on them starts with."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from diffusers.configuration_utils import FrozenDict

from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.noise_schedule import NoiseSchedule
from latentdiff.schedulers.predictions import FLOW
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.options import TimestepOptions


def draw_latents(
    moments: torch.Tensor, vae: FrozenDict, draws: SampleGenerators, noise_offset: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample latents and noise, of which `noisy_latents` makes what the network sees.

    Args:
        moments: Unscaled: means, then log variances (B, 2c, h, w), or the latents themselves (B, c, h, w).
        vae: Configuration of the first stage, which gives c, the latents' scale and their shift, if any.
        draws: The batch's generators.
        noise_offset: Standard deviation of what is added to the noise of a whole channel, so that models learn to make
            images darker or brighter than the average (Guttenberg 2023, "Diffusion with offset noise").

    Returns:
        Scaled latents (B, c, h, w), and noise of their shape.
    """
    latents, logvar = moments[:, : vae.latent_channels], moments[:, vae.latent_channels :]
    if logvar.shape[1]:
        latents = latents + (0.5 * logvar.clamp(-30, 20)).exp() * draws.normal_like(latents)
    latents = vae.scaling_factor * (latents - (getattr(vae, "shift_factor", None) or 0))
    noise = draws.normal_like(latents)
    if noise_offset:
        noise = noise + noise_offset * draws.normal_like(latents[:, :, :1, :1])
    return latents, noise


DENSITIES: dict[str, Callable[[torch.Tensor, TimestepOptions], torch.Tensor]] = {
    # Shares of the way to pure noise, of uniform ones u (Esser et al. 2024, arXiv 2403.03206, section 3.1).
    "uniform": lambda u, options: u,
    "logit_normal": lambda u, options: (options.logit_mean + options.logit_std * torch.special.ndtri(u)).sigmoid(),
    "mode": lambda u, options: 1 - u - options.mode_scale * ((math.pi / 2 * u).cos().square() - 1 + u),
    "cosmap": lambda u, options: 1 - 1 / ((math.pi / 2 * u).tan() + 1),
}


def draw_timesteps(schedule: NoiseSchedule, draws: SampleGenerators, options: TimestepOptions) -> torch.Tensor:
    """Timesteps (B,) on the CPU: int64, or float32 for a flow, which has all between 0 and T.

    Args:
        schedule: Gives the number of timesteps.
        draws: The batch's generators.
        options: How often each timestep is drawn.
    """
    if schedule.whole and options.density == "uniform":
        return draws.integers(len(schedule))
    return schedule.timestep_of(DENSITIES[options.density](draws.uniform(), options).clamp(0, 1))


def noisy_latents(
    scheduler: TableScheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Latents (B, c, h, w) with noise, in the network's scale: (1 - s) x0 + s noise for a flow at timesteps s T."""
    if scheduler.config.prediction_type != FLOW:
        return scheduler.add_noise(latents, noise, timesteps)
    share = (timesteps / scheduler.config.num_train_timesteps).to(latents.dtype)
    return torch.lerp(latents, noise, share.reshape(-1, *[1] * (latents.ndim - 1)))


def target_of(
    scheduler: TableScheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """What the network is to predict (B, c, h, w), as the scheduler's prediction type says."""
    return {
        "epsilon": lambda: noise,
        "v_prediction": lambda: scheduler.get_velocity(latents, noise, timesteps),
        "sample": lambda: latents,
        FLOW: lambda: noise - latents,
    }[scheduler.config.prediction_type]()


def timestep_weights(
    alphas_cumprod: torch.Tensor, prediction_type: str, snr_gamma: float | None, elbo_weight: float
) -> torch.Tensor:
    """How much the squared error of a prediction counts at each timestep.

    Written for x0, whose error is that of the noise over SNR, that of the velocity over SNR + 1, and that of a flow
    over (sqrt(SNR) + 1)^2: min-SNR weighting is min(SNR, gamma), the variational bound's (SNR(t - 1) - SNR(t)) / 2.

    Args:
        alphas_cumprod: Cumulative alphas, (T,).
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        snr_gamma: Min-SNR bound (Hang et al. 2023, arXiv 2303.09556); None weighs all timesteps alike, as eq. 2 of the
            paper does.
        elbo_weight: What is added, as a multiple of the bound's weights (the original's `original_elbo_weight`; as
            there, timestep 0 has the weight of timestep 1).

    Returns:
        Weights (T,), float32.
    """
    alphas = alphas_cumprod.double()
    snr = alphas / (1 - alphas)
    per_x0 = {
        "epsilon": snr,
        "v_prediction": snr + 1,
        "sample": torch.ones_like(snr),
        FLOW: (snr.sqrt() + 1).square(),
    }[prediction_type]
    weights = torch.ones_like(snr)
    if snr_gamma is not None:
        weights = torch.where(per_x0 > 0, snr.clamp(max=snr_gamma) / per_x0, 1)  # their limit where all is noise
    if elbo_weight:
        elbo = (snr[:-1] - snr[1:]) / 2 / per_x0[1:]
        weights = weights + elbo_weight * torch.cat([elbo[:1], elbo])
    return weights.float()


def by_variance(weights: torch.Tensor, simple: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
    """Weights for errors whose variance at each timestep is learned, as the original's `learn_logvar` has them.

    Errors e with weights w then count w e / var + log var (Kendall & Gal 2017, arXiv 1703.04977, eq. 8), which is least
    where the variance is that of the timestep's errors; the variational bound's part stays as it is.

    Args:
        weights: With the bound's part, (B,).
        simple: Without it, (B,).
        logvar: Logarithms of the variances, (B,), whose mean is to be added to the loss.
    """
    return weights + simple * torch.expm1(-logvar)


def huber_widths(alphas_cumprod: torch.Tensor, huber_c: float) -> torch.Tensor:
    """Where the Huber loss turns from squares to absolute values, at each timestep, (T,), float32.

    The SNR schedule of Khrapov et al. 2024 (arXiv 2403.16728), as diffusers' training scripts have it: 1 where there is
    no noise, `huber_c` where there is nothing else.
    """
    alphas = alphas_cumprod.double()
    sigmas = ((1 - alphas) / alphas).sqrt()
    return (huber_c + (1 - huber_c) / (1 + sigmas) ** 2).float()


def _huber(error: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """2 c (sqrt(e^2 + c^2) - c), which is e^2 for errors that are small beside c, without their cancellation."""
    c = width[:, None, None, None]
    return 2 * c * error.square() / ((error.square() + c.square()).sqrt() + c)


ERRORS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "l2": lambda error, width: error.square(),
    "l1": lambda error, width: error.abs(),
    "huber": _huber,
}


def diffusion_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor,
    kind: str = "l2",
    widths: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean error of the images (eq. 2 of the paper), weighted.

    Args:
        prediction: Network output (B, C, H, W).
        target: The noise, the velocity or the clean latents, as the prediction type says, (B, C, H, W).
        weights: Weight of each image, (B,); see `timestep_weights`.
        kind: "l2", "l1" or "huber".
        widths: Width of Huber's loss for each image, (B,); see `huber_widths`.

    Returns:
        The loss, ().
    """
    error = prediction.float() - target.float()
    per_image = ERRORS[kind](error, weights if widths is None else widths).mean(dim=(1, 2, 3))
    return (weights * per_image).mean()
