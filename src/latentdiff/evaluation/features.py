"""What turns images into features: the base class of the entries of `FEATURE_EXTRACTORS`, and how one is named."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.bulk.threads import one_thread
from latentdiff.registry import FEATURE_EXTRACTORS

CPU_BLOCK, ACCELERATOR_BLOCK = 8, 64
BICUBIC = "bicubic-antialias"


class FeatureExtractor(nn.Module, ABC):
    """Base of the networks whose features images are compared by.

    Args:
        identity: The SHA-256 of the weights.

    Attributes:
        name: What numbers call its features, such as "inception-2015".
        resize: How it resizes images, as numbers name it, such as "tf-resize".
        dims: The numbers of features in its outputs, by the outputs' names; the first is that of distances.
        is_fid: Whether these are the features that FID is defined by.
    """

    name: str
    resize: str
    dims: Mapping[str, int]
    is_fid: bool = False

    def __init__(self, identity: str) -> None:
        super().__init__()
        self.identity = identity

    @classmethod
    @abstractmethod
    def load(cls, place: str | None = None) -> Self:
        """Load the network.

        Args:
            place: What stands after the colon of `NAME:PLACE`, a file or folder; None takes the usual weights.

        Raises:
            CheckpointError: If weights are missing or damaged.
            ConfigError: If a package is missing, or a place is not given where one is needed.
        """

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images uint8 (B, 3, H, W): each output float32 (B, D), by its name."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    @property
    def block(self) -> int:
        """How many images it is given at once: always as many, as the last bits of features depend on it."""
        return CPU_BLOCK if self.device.type == "cpu" else ACCELERATOR_BLOCK

    @torch.no_grad()
    def of_block(self, images: Tensor) -> dict[str, Tensor]:
        """Features, on the CPU, of at most `block` images uint8 (B, 3, H, W).

        Fewer are filled up with the last one, so that an image's features don't depend on how many there are.
        """
        missing = self.block - len(images)
        whole = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
        # TensorFloat-32, cuDNN's default for convolutions, has three digits; and kernels chosen by speed vary.
        exact = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
        with exact, one_thread():
            found = self(whole.to(self.device))
        return {name: found[name][: len(images)].float().cpu() for name in self.dims}


def load_extractor(spec: str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """Load a feature extractor by name, in evaluation mode.

    Args:
        spec: A name of the registry such as "inception", or with weights of your own `NAME:FILE`; "dinov2:FOLDER" and
            "clip:FOLDER" take a folder of transformers.
        device: Where it computes.

    Raises:
        ConfigError: If the name is unknown, or a package is missing.
        CheckpointError: If weights are missing or damaged.
    """
    name, _, place = spec.partition(":")
    entry: type[FeatureExtractor] = FEATURE_EXTRACTORS.get(name)
    return entry.load(place or None).requires_grad_(False).eval().to(device)


def bicubic(images: Tensor, side: int) -> Tensor:
    """The centre square of images uint8 (B, 3, H, W), resized to `side` pixels, in [0, 1]; nothing folds over."""
    height, width = images.shape[2:]
    short = min(height, width)
    size = [round(height * side / short), round(width * side / short)]
    values = F.interpolate(images.float(), size, mode="bicubic", antialias=True).div(255).clamp(0, 1)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return values[:, :, top : top + side, left : left + side]
