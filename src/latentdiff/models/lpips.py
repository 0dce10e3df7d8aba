"""Perceptual distances between images, from the features of a VGG16 (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.errors import CheckpointError, ConfigError, InputError
from latentdiff.io.tensor_files import open_tensors

# The convolutions of each stage (Simonyan & Zisserman 2014, configuration D): torchvision's number of the layer, and
# its input and output channels.
VGG_STAGES: tuple[dict[int, tuple[int, int]], ...] = (
    {0: (3, 64), 2: (64, 64)},
    {5: (64, 128), 7: (128, 128)},
    {10: (128, 256), 12: (256, 256), 14: (256, 256)},
    {17: (256, 512), 19: (512, 512), 21: (512, 512)},
    {24: (512, 512), 26: (512, 512), 28: (512, 512)},
)
WIDTHS = (64, 128, 256, 512, 512)
SMALLEST = 2 ** (len(VGG_STAGES) - 1)

# The (shift, scale) of RGB in [-1, 1]. Caffe's networks take BGR from 0 to 255 minus the mean, which is 123.68, 116.779
# and 103.939 for red, green and blue.
PREPROCESSING = {
    "torchvision": ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)),
    "caffe": (tuple(mean / 127.5 - 1 for mean in (123.68, 116.779, 103.939)), (1 / 127.5,) * 3),
}


class TensorGroup(NamedTuple):
    """A group of tensors in a file of weights.

    Attributes:
        pattern: The pattern that their names in the file match.
        name: Our name for them, with a place for each group of the pattern.
        number: The number of such tensors.
        kind: The word for them in messages.
    """

    pattern: str
    name: str
    number: int
    kind: str


TRUNK = TensorGroup(
    r"(?:.*\.)?(?:features|net\.slice\d)\.(\d+)\.(weight|bias)", "features.{}.{}", 26, "VGG16's convolutions"
)
HEADS = TensorGroup(r"(?:.*\.)?lin(\d)\.model\.1\.weight", "lin{}", len(VGG_STAGES), "LPIPS's heads")


class PerceptualDistance(nn.Module):
    """The sum over five stages of the mean squared distance between features of unit length, without learned weights.

    Args:
        preprocessing: The input that the trunk was trained on: "torchvision" (normalised RGB) or "caffe" (BGR minus its
            mean).

    Attributes:
        title: The name of its values in logs.
    """

    title = "perceptual"

    def __init__(self, preprocessing: str = "torchvision") -> None:
        super().__init__()
        if preprocessing not in PREPROCESSING:
            raise ConfigError(f"preprocessing is {preprocessing!r}; choose {' or '.join(PREPROCESSING)}")
        self.preprocessing = preprocessing
        self.shift: Tensor
        self.scale: Tensor
        for name, values in zip(("shift", "scale"), PREPROCESSING[preprocessing], strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None])
        convolutions = {number: shape for stage in VGG_STAGES for number, shape in stage.items()}
        self.features = nn.ModuleDict(
            {str(number): nn.Conv2d(*shape, 3, padding=1) for number, shape in convolutions.items()}
        )

    @classmethod
    def from_file(cls, vgg16: str | Path, preprocessing: str = "torchvision") -> PerceptualDistance:
        """Load the weights of a VGG16 trunk.

        Args:
            vgg16: A state dict (.pth, .safetensors) with torchvision's names, `features.0.weight` and so on.
            preprocessing: The input that the trunk was trained on, as in the constructor. The weights of a Caffe
                network are given unchanged, for BGR.

        Raises:
            CheckpointError: If the file can't be read, is damaged, or holds no VGG16.
        """
        distance = cls(preprocessing)
        return distance._load(_read(vgg16, TRUNK))

    def _load(self, state: dict[str, Tensor]) -> PerceptualDistance:
        """Take the weights, without gradients and in eval mode; buffers that `state` lacks keep their values."""
        if self.preprocessing == "caffe":
            state["features.0.weight"] = state["features.0.weight"].flip(1)  # BGR to RGB
        own = self.state_dict()
        wrong = [name for name, tensor in state.items() if name not in own or tensor.shape != own[name].shape]
        if wrong:
            differs = f"{wrong[0]} does not have the shape that it has in VGG16"
            raise CheckpointError(f"{differs}; give the file of one without batch norm")
        self.load_state_dict({**own, **state})
        return self.requires_grad_(False).eval()

    def _stages(self, images: Tensor) -> list[Tensor]:
        """The features after the last ReLU of every stage n, (B, C, H / 2^n, W / 2^n), scaled to unit length."""
        hidden = (images.to(self.shift.dtype) - self.shift) / self.scale  # grey images become three channels here
        stages = []
        for number, stage in enumerate(VGG_STAGES):
            hidden = F.max_pool2d(hidden, 2) if number else hidden
            for name in stage:
                hidden = F.relu(self.features[str(name)](hidden))
            stages.append(hidden / (torch.linalg.vector_norm(hidden, dim=1, keepdim=True) + 1e-10))
        return stages

    def _weigh(self, stage: int, squares: Tensor) -> Tensor:
        """The sum of squared differences over the channels: (B, C, H, W) to (B, 1, H, W)."""
        return squares.sum(dim=1, keepdim=True)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The distance of each image to its target, (B,).

        Args:
            images: Images (B, 3, H, W) in [-1, 1] of at least 16x16 pixels; images of one channel count as grey.
            targets: The targets, of the same shape.

        Raises:
            InputError: If a shape is not as above.
        """
        _check(images, targets)
        squares = [(a - b).square() for a, b in zip(self._stages(images), self._stages(targets), strict=True)]
        return torch.stack([self._weigh(i, square).mean(dim=(1, 2, 3)) for i, square in enumerate(squares)]).sum(dim=0)

    def pooled(self, images: Tensor) -> Tensor:
        """The mean over the pixels of the last stage's features: (B, 512) for images as in `forward`."""
        _check(images, images)
        return self._stages(images)[-1].mean(dim=(2, 3))


class LPIPS(PerceptualDistance):
    """The learned perceptual distance LPIPS, version 0.1 with VGG16: channel weights are fitted to human judgements.

    The channel weights ("heads") belong to torchvision's VGG16 (IMAGENET1K_V1). With another trunk they are
    meaningless, so they can't be combined with one here. Neither file ships with the package.
    """

    title = "lpips"

    def __init__(self) -> None:
        super().__init__("torchvision")
        for stage, width in enumerate(WIDTHS):
            self.register_buffer(f"lin{stage}", torch.ones(1, width, 1, 1))

    @classmethod
    def from_files(cls, vgg16: str | Path, heads: str | Path | None = None) -> LPIPS:
        """Load torchvision's trunk and the heads that were trained on it.

        Args:
            vgg16: torchvision's `vgg16-397923af.pth`, or a training checkpoint of an original first stage, which holds
                all of LPIPS as `loss.perceptual_loss.*`.
            heads: The file `weights/v0.1/vgg.pth` of the `lpips` package; None if the heads are in the first file.

        Raises:
            CheckpointError: If a file can't be read, is damaged, or doesn't hold what it should.
            UnsafeCheckpointError: If a file can't be read without running code that it brings.
        """
        state = _read(vgg16, TRUNK) | _read(heads or vgg16, HEADS)
        lpips = cls()
        lpips._load(state)
        return lpips

    def _weigh(self, stage: int, squares: Tensor) -> Tensor:
        return F.conv2d(squares, self.get_buffer(f"lin{stage}"))


def _check(images: Tensor, targets: Tensor) -> None:
    fits = images.shape == targets.shape and images.ndim == 4
    if not fits or images.shape[1] not in (1, 3) or min(images.shape[2:]) < SMALLEST:
        raise InputError(
            f"images are {tuple(images.shape)} and targets {tuple(targets.shape)}; both must be (B, 3, H, W) or "
            f"(B, 1, H, W) of one shape, with sides of at least {SMALLEST}"
        )


def _read(path: str | Path, wanted: TensorGroup) -> dict[str, Tensor]:
    """One group of a file's tensors, under our names."""
    file = open_tensors(path)
    matches = [match for key in file.keys() if (match := re.fullmatch(wanted.pattern, key))]  # noqa: SIM118
    if len(matches) != wanted.number:
        found = f"{path} has {len(matches)} tensors of {wanted.kind}, not {wanted.number}"
        raise CheckpointError(f"{found}; give the file that has them")
    return {wanted.name.format(*match.groups()): file.read(match.string).float() for match in matches}
