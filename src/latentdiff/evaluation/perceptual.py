"""The perceptual networks of pairs, and where their weights are found."""

from __future__ import annotations

from pathlib import Path

import torch

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.evaluation.weights import file_of_package, sha256_of
from latentdiff.models.lpips import LPIPS, PerceptualDistance

VGG16, VGG16_SHA256 = "vgg16-397923af.pth", "397923af"
HEADS = "weights/v0.1/vgg.pth"


def load_lpips(vgg16: str | None, heads: str | None) -> PerceptualDistance:
    """LPIPS, version 0.1 with VGG16.

    Args:
        vgg16: torchvision's VGG16, or a file that has the heads too; None looks in torch's hub cache.
        heads: The heads; None takes those of the package `lpips` where the first file is not given.

    Raises:
        CheckpointError: If a file is missing or damaged.
    """
    if heads is None and vgg16 is None:
        try:
            heads = str(file_of_package("lpips", "lpips", HEADS, "the package lpips"))
        except ConfigError:
            raise CheckpointError(
                "LPIPS needs its heads, the file weights/v0.1/vgg.pth of the package lpips; install it with "
                "pip install --no-deps lpips, or name the file"
            ) from None
    return LPIPS.from_files(_vgg16(vgg16, "LPIPS"), heads)


def load_psim(vgg16: str | None, heads: str | None = None) -> PerceptualDistance:
    """The perceptual distance without learned weights, as table 8 has it; `heads` are of no use to it."""
    return PerceptualDistance.from_file(_vgg16(vgg16, "PSIM"))


def _vgg16(given: str | None, of: str) -> Path:
    if given is not None:
        return Path(given)
    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG16
    if not path.is_file():
        raise CheckpointError(
            f"{of} needs torchvision's {VGG16}, whose SHA-256 begins with {VGG16_SHA256}; put it into {path.parent}, "
            "or name the file"
        )
    if not (digest := sha256_of(path)).startswith(VGG16_SHA256):
        raise CheckpointError(f"{path} has the SHA-256 {digest[:16]}..., not {VGG16_SHA256}...; fetch it again")
    return path
