"""The Inception network of 2015 that FID is defined by, under the names of its published torch weights.

It is Inception v3 (Szegedy et al. 2015, arXiv 1512.00567) with three differences from the later networks of that name:
average pools don't count the padding, the last block pools by the maximum, and there are 1,008 classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.errors import CheckpointError
from latentdiff.evaluation.features import FeatureExtractor
from latentdiff.evaluation.tf_resize import tf_resize
from latentdiff.evaluation.weights import WeightFile, find_weights
from latentdiff.io.tensor_files import open_tensors

WEIGHTS = WeightFile(
    names=("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    sha256="6726825d",
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
SIDE, CLASSES = 299, 1008
DIMS = {"pool": 2048, "logits": CLASSES, "spatial": 7 * 17 * 17}
SPATIAL_CHANNELS = 7  # of 17x17 each: what Nash et al. 2021 and ADM take of "mixed_6/conv"


class Conv(nn.Module):
    """Convolution without bias, batch norm and ReLU: (B, in, H, W) to (B, out, H', W')."""

    def __init__(
        self,
        channels: int,
        out: int,
        size: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """The response, of the size that the convolution gives."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _along(channels: int, out: int, size: int = 7) -> Conv:
    return Conv(channels, out, (1, size), padding=(0, size // 2))


def _down(channels: int, out: int, size: int = 7) -> Conv:
    return Conv(channels, out, (size, 1), padding=(size // 2, 0))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Mixed35(nn.Module):
    """A block on 35x35 maps: (B, channels, 35, 35) to (B, 224 + pool, 35, 35)."""

    def __init__(self, channels: int, pool: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(channels, 64)
        self.branch5x5_1, self.branch5x5_2 = Conv(channels, 48), Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(channels, 64), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(channels, pool)

    def forward(self, x: Tensor) -> Tensor:
        """The four branches, one after the other."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        five = self.branch5x5_2(self.branch5x5_1(x))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(_average(x))], dim=1)


class Shrink17(nn.Module):
    """From 35x35 to 17x17: (B, 288, 35, 35) to (B, 768, 17, 17)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = Conv(288, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(288, 64), Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The three branches, one after the other."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], dim=1)


class Mixed17(nn.Module):
    """A block on 17x17 maps with convolutions along one axis, `inner` channels wide: (B, 768, 17, 17) to the same."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Conv(768, 192)
        self.branch7x7_1, self.branch7x7_2 = Conv(768, inner), _along(inner, inner)
        self.branch7x7_3 = _down(inner, 192)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(768, inner), _down(inner, inner)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = _along(inner, inner), _down(inner, inner)
        self.branch7x7dbl_5 = _along(inner, 192)
        self.branch_pool = Conv(768, 192)

    def forward(self, x: Tensor) -> Tensor:
        """The four branches, one after the other; the first 192 channels are TensorFlow's "conv"."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], dim=1)


class Shrink8(nn.Module):
    """From 17x17 to 8x8: (B, 768, 17, 17) to (B, 1280, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Conv(768, 192), Conv(192, 320, 3, 2)
        self.branch7x7x3_1, self.branch7x7x3_2 = Conv(768, 192), _along(192, 192)
        self.branch7x7x3_3, self.branch7x7x3_4 = _down(192, 192), Conv(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The three branches, one after the other."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], dim=1)


class Mixed8(nn.Module):
    """A block on 8x8 maps: (B, channels, 8, 8) to (B, 2048, 8, 8).

    Args:
        channels: The number of channels that come in.
        pool_by_maximum: Whether its pool takes the maximum, as that of the last block does.
    """

    def __init__(self, channels: int, pool_by_maximum: bool) -> None:
        super().__init__()
        self.pool_by_maximum = pool_by_maximum
        self.branch1x1 = Conv(channels, 320)
        self.branch3x3_1 = Conv(channels, 384)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(channels, 448), Conv(448, 384, 3, padding=1)
        self.branch3x3_2a, self.branch3x3_2b = _along(384, 384, 3), _down(384, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = _along(384, 384, 3), _down(384, 384, 3)
        self.branch_pool = Conv(channels, 192)

    def forward(self, x: Tensor) -> Tensor:
        """The branches, one after the other; two of them end in two."""
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        ends = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        ends += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        pooled = F.max_pool2d(x, 3, 1, 1) if self.pool_by_maximum else _average(x)
        return torch.cat([self.branch1x1(x), *ends, self.branch_pool(pooled)], dim=1)


class Inception2015(nn.Module):
    """The network of FID.

    Its parameters have the names of the published weights, such as `Mixed_5b.branch1x1.conv.weight`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = Conv(64, 80), Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = Mixed35(192, 32), Mixed35(256, 64), Mixed35(288, 64)
        self.Mixed_6a = Shrink17()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = map(Mixed17, (128, 160, 160, 192))
        self.Mixed_7a = Shrink8()
        self.Mixed_7b, self.Mixed_7c = Mixed8(1280, pool_by_maximum=False), Mixed8(2048, pool_by_maximum=True)
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features of images (B, 3, 299, 299) in [-1, 1).

        Returns:
            `pool` (B, 2048); `logits` (B, 1008), without the bias, of which the Inception score is made; `spatial`
            (B, 2023), the first seven channels of "mixed_6/conv", of which sFID is made.
        """
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        # Channels last, as TensorFlow has them: files of its moments have this order.
        spatial = x[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        pool = x.mean(dim=(2, 3))
        return {"pool": pool, "logits": pool @ self.fc.weight.T, "spatial": spatial}


class InceptionFeatures(FeatureExtractor):
    """Features of FID, sFID, KID and the Inception score.

    Args:
        network: The network.
        identity: The SHA-256 of its weights.
    """

    name, resize, is_fid = "inception-2015", "tf-resize", True
    dims = DIMS

    def __init__(self, network: Inception2015, identity: str) -> None:
        super().__init__(identity)
        self.network = network

    @classmethod
    def load(cls, file: str | None = None) -> InceptionFeatures:
        """Load the published weights.

        Args:
            file: The file; None looks in torch's hub cache, and downloads it if it isn't there. Any other file than the
                published one, of the same network, gives numbers that aren't called FID.

        Raises:
            CheckpointError: If it is missing, damaged, or not of this network.
        """
        path, digest = find_weights("inception", WEIGHTS, file)
        source = open_tensors(path)
        with torch.device("meta"):
            network = Inception2015()
        own = network.state_dict()
        # A count of training steps, which files may leave out, matters to nobody.
        state = {name: source.read(name) for name in source.keys() if name in own}  # noqa: SIM118
        counts = {name: torch.tensor(0) for name in own if name.endswith("num_batches_tracked")}
        state = {**counts, **state}
        wrong = [name for name in own if name not in state or state[name].shape != own[name].shape]
        if wrong:
            raise CheckpointError(f"{path} lacks {wrong[0]} of FID's Inception network, or has it in another shape")
        # Channels last are 1.4 times as fast on CPUs.
        last = {name: t.contiguous(memory_format=torch.channels_last) for name, t in state.items() if t.ndim == 4}
        network.load_state_dict({**state, **last}, assign=True)
        features = cls(network, digest)
        if not digest.startswith(WEIGHTS.sha256):
            features.name, features.is_fid = f"inception-{digest[:8]}", False
        return features

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The network's features of images uint8 (B, 3, H, W)."""
        pixels = (tf_resize(images, SIDE, SIDE) - 128) / 128
        found: dict[str, Tensor] = self.network(pixels.contiguous(memory_format=torch.channels_last))
        return found
