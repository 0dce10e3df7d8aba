"""The diffusion loss, and the noisy latents that training on them starts with."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor


def draw_noisy(
    moments: torch.Tensor, vae: Any, scheduler: Any, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sample latents, and noise and timesteps for `scheduler.add_noise`.

    Args:
        moments: Unscaled: means, then log variances (B, 2c, h, w), or the latents themselves (B, c, h, w).
        vae: Configuration of the first stage, which gives c, the latents' scale and their shift, if any.
        scheduler: Gives the number of timesteps, of which all are as likely.
        rng: CPU generator of all draws.

    Returns:
        Scaled latents (B, c, h, w), noise of their shape, timesteps (B,).
    """
    latents, logvar = moments[:, : vae.latent_channels], moments[:, vae.latent_channels :]
    if logvar.shape[1]:
        posterior_noise = randn_tensor(latents.shape, generator=rng, device=latents.device)
        latents = latents + (0.5 * logvar.clamp(-30, 20)).exp() * posterior_noise
    latents = vae.scaling_factor * (latents - (getattr(vae, "shift_factor", None) or 0))
    noise = randn_tensor(latents.shape, generator=rng, device=latents.device)
    steps = scheduler.config.num_train_timesteps
    return latents, noise, torch.randint(0, steps, (len(latents),), generator=rng).to(latents.device)


def diffusion_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
    snr_gamma: float | None,
) -> torch.Tensor:
    """Mean squared error per image (eq. 2 of the paper), optionally weighted by signal-to-noise ratio.

    Args:
        prediction: Network output (B, C, H, W).
        target: The noise, the velocity or the clean latents, as `prediction_type` says, (B, C, H, W).
        alphas_cumprod: Cumulative alphas at each image's timestep, (B,).
        prediction_type: "epsilon", "v_prediction" or "sample".
        snr_gamma: Min-SNR bound (Hang et al. 2023), restated for each prediction type; None weighs all steps alike.

    Returns:
        The loss, ().
    """
    per_image = (prediction.float() - target.float()).square().mean(dim=(1, 2, 3))
    if snr_gamma is None:
        return per_image.mean()
    snr = alphas_cumprod / (1 - alphas_cumprod)
    clipped = snr.clamp(max=snr_gamma)
    weight = {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1), "sample": clipped}[prediction_type]
    return (weight * per_image).mean()
