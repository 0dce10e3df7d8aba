"""Floating-point operations of a model's components, and the most that the machine does in a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from latentdiff.bench.inputs import Arguments, example_inputs, solver_of
from latentdiff.bench.timing import seconds_of
from latentdiff.pipelines.base import DiffusionPipeline

SIDES = (512, 1024, 2048, 4096, 8192)  # of square matrices
CHANNELS = (64, 128, 256, 512, 1024)  # of a 3x3 convolution of CONVOLVED images of MAP x MAP
CONVOLVED, MAP = 8, 32
LONG_ENOUGH = 0.05  # seconds of one operation, after which larger ones aren't tried
REPEATS = 5


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one image, a multiplication and an addition being two.

    Matrix products and convolutions count, those of attention included; what is done element by element doesn't.

    Attributes:
        condition: Once a call: the text encoder, or whatever makes the condition, and the keys and values that
            cross-attention makes of it.
        step: One call of the denoising network; under classifier-free guidance, with both of its predictions.
        decode: The decoder of the first stage.
    """

    condition: int
    step: int
    decode: int


def count_flops(pipe: DiffusionPipeline, options: Arguments) -> Flops:
    """Count a model's operations by `torch.utils.flop_counter`, for one image of the model's own size.

    DDIM makes an image in one step and in two: the difference is a step, what else the first has is the condition.

    Args:
        pipe: The model.
        options: Further arguments of its call, such as the guidance scale.
    """
    inputs = example_inputs(pipe, 1)

    def counted(steps: int, output_type: str) -> int:
        # torch counts attention on accelerators alone; the plain formula is matrix products, which count everywhere.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            pipe(**inputs, **options, num_inference_steps=steps, seed=0, output_type=output_type)
        total: int = counter.get_total_flops()
        return total

    with solver_of(pipe, "ddim"):
        one, two, decoded = counted(1, "latent"), counted(2, "latent"), counted(1, "pt")
    return Flops(condition=2 * one - two, step=two - one, decode=decoded - one)


@dataclass(frozen=True)
class Peak:
    """The most floating-point operations a second that were measured.

    Attributes:
        matmul: Of a product of square matrices.
        convolution: Of a 3x3 convolution.
        dtype: The data type, such as "float32".
    """

    matmul: float
    convolution: float
    dtype: str

    @property
    def best(self) -> float:
        """The larger one, which shares are of."""
        return max(self.matmul, self.convolution)


@torch.no_grad()
def measure_peak(device: torch.device, dtype: torch.dtype) -> Peak:
    """Measure the machine: the best rate over sizes, each the best of REPEATS runs after one that warms up.

    Sizes double until one operation takes LONG_ENOUGH seconds. Matrices are SIDES x SIDES; convolutions are of
    CONVOLVED images of MAP x MAP with CHANNELS channels in and out.

    Args:
        device: Where.
        dtype: At which data type.
    """

    def matmul(side: int) -> tuple[Callable[[], object], int]:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        return (lambda: left @ right), 2 * side**3

    def convolution(channels: int) -> tuple[Callable[[], object], int]:
        images = torch.randn(CONVOLVED, channels, MAP, MAP, device=device).to(dtype)
        weight = torch.randn(channels, channels, 3, 3, device=device).to(dtype)
        return (lambda: F.conv2d(images, weight, padding=1)), 2 * CONVOLVED * MAP**2 * 9 * channels**2

    def best(make: Callable[[int], tuple[Callable[[], object], int]], sizes: tuple[int, ...]) -> float:
        rate = 0.0
        for size in sizes:
            operation, flops = make(size)
            seconds_of(device, operation)
            seconds = min(seconds_of(device, operation) for _ in range(REPEATS))
            rate = max(rate, flops / seconds)
            if seconds >= LONG_ENOUGH:
                break
        return rate

    return Peak(best(matmul, SIDES), best(convolution, CHANNELS), str(dtype).removeprefix("torch."))
