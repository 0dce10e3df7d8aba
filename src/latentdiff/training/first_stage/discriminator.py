"""The patch discriminator of the first stage (Isola et al. 2017, arXiv 1611.07004), and its losses."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from accelerate.utils import reduce
from torch import Tensor, nn

from latentdiff.config import check

KERNEL, SLOPE, WIDEST = 4, 0.2, 8  # the widest layer has 8 times the channels of the first
GROUPS = 32


class ActNorm(nn.Module):
    """Scale and shift of each channel, set at the first training batch so that it leaves with mean 0 and variance 1.

    Args:
        channels: Channels of the input (B, channels, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.initialized: Tensor
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    @torch.no_grad()
    def _initialise(self, hidden: Tensor) -> None:
        values = hidden.transpose(0, 1).flatten(1)
        # Mean over the processes, whose parameters would else drift apart.
        self.loc.copy_(-reduce(values.mean(1), reduction="mean").view_as(self.loc))
        self.scale.copy_(1 / (reduce(values.std(1), reduction="mean") + 1e-6).view_as(self.scale))
        self.initialized.fill_(1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise a batch (B, C, H, W)."""
        if self.training and not self.initialized:
            self._initialise(hidden)
        return self.scale * (hidden + self.loc)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm (Wu & He 2018, arXiv 1803.08494) of 32 groups, or of as many below that as divide the channels."""
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "act": ActNorm, "group": group_norm}


class PatchDiscriminator(nn.Module):
    """Says of overlapping patches how real they look; the names of its parameters are the original code's.

    Args:
        in_channels: Channels of images.
        channels: Channels of the first layer; they double with every layer up to eightfold.
        layers: Number of layers that halve the resolution. Three see patches of 70 pixels a side, two of 34.
        norm: "batch" as in the published models, "act" for `ActNorm`, or "group" for `group_norm`.

    Attributes:
        smallest: Side in pixels of the smallest images that it has a logit for.

    Raises:
        ConfigError: If an argument is none of these.
    """

    def __init__(self, in_channels: int = 3, channels: int = 64, layers: int = 3, norm: str = "batch") -> None:
        super().__init__()
        check(norm in NORMS, f"norm is {norm!r}; choose {' or '.join(map(repr, NORMS))}")
        for name, number in (("in_channels", in_channels), ("channels", channels), ("layers", layers)):
            check(isinstance(number, int) and number > 0, f"{name} is {number!r}; it must be an integer of at least 1")
        self.smallest = 3 * 2**layers  # of what the halvings leave, the last two convolutions take a pixel each
        widths = [channels * min(2**number, WIDEST) for number in range(layers + 1)]
        blocks: list[nn.Module] = [nn.Conv2d(in_channels, widths[0], KERNEL, 2, 1), nn.LeakyReLU(SLOPE)]
        for number in range(layers):
            stride = 2 if number < layers - 1 else 1
            conv = nn.Conv2d(widths[number], widths[number + 1], KERNEL, stride, 1, bias=norm != "batch")
            blocks += [conv, NORMS[norm](widths[number + 1]), nn.LeakyReLU(SLOPE)]
        self.main = nn.Sequential(*blocks, nn.Conv2d(widths[-1], 1, KERNEL, 1, 1))
        for module in self.main:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 1, h, w), positive for real, of images (B, C, H, W) in [-1, 1]."""
        logits: Tensor = self.main(images)
        return logits


def hinge_loss(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 (max(0, 1 - real) + max(0, 1 + fake)), meant over all logits (Lim & Ye 2017, arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def vanilla_loss(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 (softplus(-real) + softplus(fake)), the cross-entropy of Goodfellow et al. 2014, meant over all logits."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
