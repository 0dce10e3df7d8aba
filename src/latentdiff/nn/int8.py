"""Weights of 8 bits: linear layers and convolutions that hold integers, and a scale for each output channel.

A weight w of output channel c becomes round(w / s_c), where s_c is the largest magnitude in that channel, divided by
127 (symmetric quantisation, Jacob et al. 2018, arXiv 1712.05877, section 2.1, with a scale for each channel). A layer
multiplies the two for the time of a call, so activations and arithmetic stay in floating-point numbers, and what is in
memory beside the integers is the weight of one layer.
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentdiff.errors import ConfigError

LARGEST = 127  # so that levels are symmetric about 0
BLOCK = 2**18  # weights that are rounded at once, whose float32 numbers are in memory beside the rest


class Room(threading.local):
    """Memory for the weight of one layer, in which the next layer of this thread makes its own.

    A system clears all memory that it hands out, which for a weight anew in each call took a fifth of a step.
    """

    def __init__(self) -> None:
        self.taken: dict[torch.dtype, Tensor] = {}

    def of(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """A tensor of the CPU, whose values are lost when another one is asked for."""
        if dtype not in self.taken or self.taken[dtype].numel() < shape.numel():
            with torch.inference_mode(False):  # no tensor that was made inside may be written to outside
                self.taken[dtype] = torch.empty(shape.numel(), dtype=dtype)
        return self.taken[dtype][: shape.numel()].view(shape)


ROOM = Room()


class Int8Weight(nn.Module):
    """Mixin of a layer whose weight is made anew, of integers and scales, whenever it is asked for.

    `quantize_layer` makes such layers. One that is made by calling the class, as peft makes the convolutions of an
    adapter, has a weight as other layers have.

    Attributes:
        levels: The integers, of the weight's shape (out, ...).
        scale: What they are multiplied with (out, 1, ...), in the data type that the layer computes in.
    """

    levels: Tensor
    scale: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight (out, ...), a tensor of its own: what is changed in it has no effect."""
        if hasattr(self, "levels"):
            return self.levels.to(self.scale.dtype).mul_(self.scale)
        given = nn.Module.__getattr__(self, "weight")  # the parameter that this property stands before
        assert isinstance(given, Tensor)
        return given

    def weight_of_call(self) -> Tensor:
        """The weight, until the next layer is called; where gradients are recorded, which keep it, a tensor of its own.

        Accelerators keep memory for reuse themselves, and compiled code plans its own.
        """
        quantised = hasattr(self, "levels")
        if not quantised or torch.is_grad_enabled() or torch.compiler.is_compiling() or not self.levels.is_cpu:
            return self.weight
        return ROOM.of(self.levels.shape, self.scale.dtype).copy_(self.levels).mul_(self.scale)


class Int8Linear(Int8Weight, nn.Linear):  # type: ignore[override]  # its weight is made of levels and scales
    """A linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(input, self.weight_of_call(), self.bias)


class Int8Conv2d(Int8Weight, nn.Conv2d):  # type: ignore[override]
    """A convolution."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H', W')."""
        weight = self.weight_of_call()
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


KINDS: dict[type[nn.Module], type[Int8Weight]] = {nn.Linear: Int8Linear, nn.Conv2d: Int8Conv2d}


def quantized(weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The levels (out, ...), int8, and the scales (out, 1, ...) of a weight (out, ...).

    Args:
        weight: The weight, of any floating-point type.
        dtype: The data type of the scales; the levels are the nearest by the scales as they are rounded to it.
    """
    levels = torch.empty_like(weight, dtype=torch.int8, requires_grad=False)
    scales = []
    channels = max(1, BLOCK * len(weight) // weight.numel())
    for part, rounded in zip(torch.split(weight.detach(), channels), torch.split(levels, channels), strict=True):
        exact = part.float()
        scale = (exact.abs().amax(dim=tuple(range(1, exact.ndim)), keepdim=True) / LARGEST).to(dtype)
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)  # of a channel of zeros
        rounded.copy_((exact / scale.float()).round_().clamp_(-LARGEST, LARGEST))
        scales.append(scale)
    return levels, torch.cat(scales)


def quantize_layer(layer: nn.Module, dtype: torch.dtype) -> None:
    """Turn an `nn.Linear` or `nn.Conv2d` into the layer of 8 bits, in place; its weight is let go.

    Args:
        layer: The layer.
        dtype: The data type that it computes in from now on.
    """
    levels, scale = quantized(layer.get_parameter("weight"), dtype)
    del layer.weight
    layer.__class__ = KINDS[type(layer)]
    layer.levels = nn.Parameter(levels, requires_grad=False)
    layer.scale = nn.Parameter(scale, requires_grad=False)


def has_int8(network: nn.Module) -> bool:
    """Whether a network has layers of 8 bits."""
    return any(isinstance(module, Int8Weight) for module in network.modules())


def check_whole(name: str, component: object, why: str) -> None:
    """Raise ConfigError, which calls a component `name` and says `why`, if it has layers of 8 bits."""
    if isinstance(component, nn.Module) and has_int8(component):
        raise ConfigError(f"the {name}'s weights are int8, {why}")


def quantize_network(network: nn.Module, dtype: torch.dtype, kept: frozenset[str] = frozenset()) -> None:
    """Turn the linear layers and convolutions of a network into those of 8 bits, in place, one after the other.

    Only these very classes are turned, for a subclass may use its weight in another way, and convolutions that pad with
    zeros.

    Args:
        network: The network.
        dtype: The data type that it computes in from now on, and of all its other weights.
        kept: Names of the network's parts that stay as they are.
    """
    for name, part in network.named_children():
        if name not in kept:
            for layer in list(part.modules()):
                if type(layer) in KINDS and getattr(layer, "padding_mode", "zeros") == "zeros":
                    quantize_layer(layer, dtype)
    for parameter in network.parameters():
        if parameter.is_floating_point():  # one tensor of a mapped file would keep all of the file in memory
            parameter.data = parameter.data.to(dtype, copy=True)
    nn.Module.to(network, dtype)  # buffers
