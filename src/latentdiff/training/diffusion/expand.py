"""From a model without a condition to one that sees more channels, without losing what it knows."""

from __future__ import annotations

from typing import Any

import torch

from latentdiff.models.unet import UNet2DConditionModel


def expand_conv_in(unet: UNet2DConditionModel, in_channels: int) -> UNet2DConditionModel:
    """A network whose first convolution takes further channels after the old ones, with weights of 0.

    So it predicts what the old one does, whatever the new channels hold, and training goes on from there; gradients
    reach the new weights at the first step.

    Args:
        unet: Of fewer input channels; it is left as it is.
        in_channels: Channels of the new network's input.
    """
    wide: UNet2DConditionModel = type(unet).from_config({**unet.config, "in_channels": in_channels})
    weights: dict[str, Any] = unet.state_dict()
    old = weights["conv_in.weight"]
    new = torch.zeros(len(old), in_channels, *old.shape[2:], dtype=old.dtype, device=old.device)
    new[:, : old.shape[1]] = old
    wide.load_state_dict({**weights, "conv_in.weight": new})
    return wide
