"""Calls of networks as tensors alone, which is what a compiled program takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from latentdiff.nn.context import ContextCache


@dataclass(frozen=True)
class FlatCall:
    """A call of a network.

    Attributes:
        tensors: All that its result depends on, beside the weights.
        program: A module of these tensors, whose result is one tensor.
        result: Makes what the network's own `forward` returns of that tensor.
    """

    tensors: tuple[Tensor, ...]
    program: nn.Module
    result: Callable[[Tensor], object]

    @property
    def signature(self) -> tuple[object, ...]:
        """What two calls have in common that one program serves: the way in, shapes, strides, data types, threads."""
        return (type(self.program).__name__, torch.get_num_threads(), *map(_layout, self.tensors))


def _layout(tensor: Tensor) -> tuple[object, ...]:
    """Shape, strides and data type of a tensor; the stride along a side of one element says nothing."""
    shape = tuple(tensor.shape)
    strides = tuple(0 if side == 1 else stride for side, stride in zip(shape, tensor.stride(), strict=True))
    return shape, strides, str(tensor.dtype)


Flatten = Callable[..., FlatCall | None]
"""Makes a `FlatCall` of a network and its arguments; None for a call that it doesn't know, which is not compiled."""


class Program(nn.Module):
    """The `forward` of a network's class on tensors.

    The network itself can't be called: the compiled program stands in the place of its `forward`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        """The network's result for its only input."""
        out: Tensor = type(self.network).forward(self.network, *tensors)
        return out


class UNetProgram(Program):
    """A UNet's prediction of latents, timestep and, where there is one, context."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """The prediction."""
        out: tuple[Tensor] = type(self.network).forward(self.network, *tensors, return_dict=False)
        return out[0]


class CachedUNetProgram(Program):
    """A UNet's prediction of latents, timestep, and all keys, then all values, of its context."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """The prediction."""
        sample, timestep, *states = tensors
        half = len(states) // 2
        context = ContextCache(tuple(states[:half]), tuple(states[half:]))
        out: tuple[Tensor] = type(self.network).forward(self.network, sample, timestep, context, return_dict=False)
        return out[0]


def flatten_unet(
    network: nn.Module,
    /,
    sample: object = None,
    timestep: object = None,
    encoder_hidden_states: object = None,
    return_dict: bool = True,
    **others: object,
) -> FlatCall | None:
    """A call of this package's UNet; None with adapters' scales or inputs of other networks."""
    numeric = isinstance(timestep, (int, float, Tensor)) and not isinstance(timestep, bool)
    if not isinstance(sample, Tensor) or not numeric or any(value is not None for value in others.values()):
        return None
    # The embedding is computed in float32 whatever the number is, so that one program serves every scheduler.
    when = torch.as_tensor(timestep, dtype=torch.float32)
    program: type[Program] = UNetProgram
    context: tuple[Tensor, ...] = ()
    if isinstance(encoder_hidden_states, ContextCache):
        # The number of layers is checked where it is known to be wrong, in the network itself.
        program, context = CachedUNetProgram, (*encoder_hidden_states.keys, *encoder_hidden_states.values)
    elif isinstance(encoder_hidden_states, Tensor):
        context = (encoder_hidden_states.contiguous(),)
    elif encoder_hidden_states is not None:
        return None

    def result(out: Tensor) -> object:
        return UNet2DConditionOutput(sample=out) if return_dict else (out,)

    return FlatCall((sample.contiguous(), when, *context), program(network), result)


def flatten_simple(network: nn.Module, /, *args: object, **kwargs: object) -> FlatCall | None:
    """A call of a network from one tensor to one, such as a decoder; None where anything else is given."""
    first, *rest = (*args, *kwargs.values()) or (None,)
    if not args or not isinstance(first, Tensor) or any(value is not None for value in rest):
        return None
    return FlatCall((first.contiguous(),), Program(network), lambda out: out)
