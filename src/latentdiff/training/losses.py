"""The diffusion loss."""

from __future__ import annotations

import torch


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
