"""Calls of networks as tensors alone, which is what a compiled program takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from latentdiff.models.unet import UNetOutput
from latentdiff.nn.context import ContextCache, RowOfMany


class Program(nn.Module):
    """The `forward` of a network's class on tensors.

    The network itself can't be called: the compiled program stands in the place of its `forward`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def kind(self) -> str:
        """What tells it from others of the same tensors."""
        return "one tensor"

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The network's result for its only input."""
        out: Tensor = type(self.network).forward(self.network, *tensors)
        return (out,)


@dataclass(frozen=True)
class FlatCall:
    """A call of a network.

    Attributes:
        tensors: All that its result depends on, beside the weights.
        program: A module of these tensors, whose result is tensors, too.
        result: Makes what the network's own `forward` returns of these.
    """

    tensors: tuple[Tensor, ...]
    program: Program
    result: Callable[[Sequence[Tensor]], object]

    @property
    def signature(self) -> tuple[object, ...]:
        """What two calls have in common that one program serves: the way in, shapes, strides, data types, threads."""
        return (self.program.kind, torch.get_num_threads(), *map(_layout, self.tensors))


def _layout(tensor: Tensor) -> tuple[object, ...]:
    """Shape, strides and data type of a tensor; the stride along a side of one element says nothing."""
    shape = tuple(tensor.shape)
    strides = tuple(0 if side == 1 else stride for side, stride in zip(shape, tensor.stride(), strict=True))
    return shape, strides, str(tensor.dtype)


Flatten = Callable[..., FlatCall | None]
"""Makes a `FlatCall` of a network and its arguments; None for a call that it doesn't know, which is not compiled."""


class UNetProgram(Program):
    """A UNet's prediction of latents, timestep, context and cached features, and the features if they are asked for.

    Args:
        network: The UNet.
        context: "no context", "context", or "keys and values": all keys, then all values, of a `ContextCache`.
        branch: The branch for feature caching; None for none.
        cached: Whether the last tensor is cached features.
    """

    def __init__(self, network: nn.Module, context: str, branch: int | None, cached: bool) -> None:
        super().__init__(network)
        self.context, self.branch, self.cached = context, branch, cached

    @property
    def kind(self) -> str:
        """What tells it from others of the same tensors."""
        return f"UNet with {self.context}, branch {self.branch}, cached {self.cached}"

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The prediction, and features if there is a branch and none are given."""
        sample, timestep, *states = tensors
        features = states.pop() if self.cached else None
        half = len(states) // 2
        context: Tensor | ContextCache | None = states[0] if self.context == "context" else None
        if self.context == "keys and values":
            context = ContextCache(tuple(states[:half]), tuple(states[half:]))
        options = {"cache_branch": self.branch, "cached_features": features, "return_dict": False}
        out: tuple[Tensor, ...] = type(self.network).forward(self.network, sample, timestep, context, **options)
        return out[:1] if self.cached else out


def flatten_unet(
    network: nn.Module,
    /,
    sample: object = None,
    timestep: object = None,
    encoder_hidden_states: object = None,
    return_dict: bool = True,
    cache_branch: int | None = None,
    cached_features: Tensor | None = None,
    **others: object,
) -> FlatCall | None:
    """A call of this package's UNet; None with adapters' scales or inputs of other networks."""
    if isinstance(timestep, RowOfMany):
        timestep = timestep.take()
    numeric = isinstance(timestep, (int, float, Tensor)) and not isinstance(timestep, bool)
    if not isinstance(sample, Tensor) or not numeric or any(value is not None for value in others.values()):
        return None
    # The embedding is computed in float32 whatever the number is, so that one program serves every scheduler.
    tensors = [sample.contiguous(), torch.as_tensor(timestep, dtype=torch.float32)]
    context = "no context"
    if isinstance(encoder_hidden_states, ContextCache):
        context = "keys and values"
        tensors += [*encoder_hidden_states.keys, *encoder_hidden_states.values]
    elif isinstance(encoder_hidden_states, Tensor):
        context = "context"
        tensors.append(encoder_hidden_states.contiguous())
    elif encoder_hidden_states is not None:
        return None
    if cached_features is not None:
        tensors.append(cached_features.contiguous())

    def result(out: Sequence[Tensor]) -> object:
        features = cached_features if len(out) == 1 else out[1]
        if return_dict:
            return UNetOutput(sample=out[0], features=features)
        return (out[0],) if features is None else (out[0], features)

    program = UNetProgram(network, context, cache_branch, cached_features is not None)
    return FlatCall(tuple(tensors), program, result)


def flatten_simple(network: nn.Module, /, *args: object, **kwargs: object) -> FlatCall | None:
    """A call of a network from one tensor to one, such as a decoder; None where anything else is given."""
    first, *rest = (*args, *kwargs.values()) or (None,)
    if not args or not isinstance(first, Tensor) or any(value is not None for value in rest):
        return None
    return FlatCall((first.contiguous(),), Program(network), lambda out: out[0])
