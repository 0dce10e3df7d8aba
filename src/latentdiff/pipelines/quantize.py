"""`pipe.quantize()`: weights held in 8 bits, where memory is short."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from latentdiff.compat import OFFLOAD_HOOK
from latentdiff.compilation.forward import CompiledForward
from latentdiff.errors import ConfigError, InputError
from latentdiff.nn.int8 import quantize_network
from latentdiff.registry import nearest

INT8 = "int8"

QUANTIZED: Mapping[str, frozenset[str]] = {
    "unet": frozenset({"conv_in", "conv_out", "time_embedding", "crop_embedding", "class_embedding", "add_embedding"}),
    "text_encoder": frozenset(),
}
"""The components that are quantised, and their parts that aren't: few weights, through which all passes."""


class QuantizeMixin:
    """Mixin of all pipelines that holds weights in 8 bits."""

    def quantize(self, weights: str = INT8, *, dtype: torch.dtype | Mapping[str, torch.dtype] | None = None) -> None:
        """Hold the linear layers' and convolutions' weights of UNet and text encoder in 8 bits.

        Each is rounded to 255 levels, with a scale for each output channel, and made a number again while its layer is
        computed. So the two take about a quarter of the memory of float32, half of that of bfloat16, and each step
        takes somewhat longer. `from_pretrained(..., quantize="int8")` has never more in memory than that.

        Adapters may be loaded afterwards, but not fused. A quantised pipeline can't be saved, and its UNet is compiled
        without frozen weights only.

        Args:
            weights: "int8".
            dtype: The data type that they compute in from now on, or one for each component's name; theirs by default.

        Raises:
            ConfigError: If a component has adapters, is compiled or offloaded.
            InputError: If `weights` is not valid.
        """
        check_quantize(weights)
        parts = {name: getattr(self, name, None) for name in QUANTIZED}
        networks = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        for name, network in networks.items():
            _check_as_loaded(name, network)
        for name, network in networks.items():
            own: torch.dtype = network.dtype  # type: ignore[assignment]  # of every component
            asked = dtype.get(name) if isinstance(dtype, Mapping) else dtype
            quantize_network(network, asked or own, QUANTIZED[name])


def check_quantize(weights: object) -> None:
    """Raise InputError unless it is a way to hold weights, or None, for as they are."""
    if weights not in (INT8, None):
        raise InputError(f"quantize is {weights!r}; {nearest(weights, [INT8])}")


def _check_as_loaded(name: str, network: nn.Module) -> None:
    """Raise ConfigError if something has been made of the weights of a network, which would go on with those."""
    if getattr(network, "peft_config", None):
        raise ConfigError(f"the {name} has adapters; quantize() comes before load_lora_weights()")
    modules = list(network.modules())
    if any(isinstance(vars(module).get("forward"), CompiledForward) for module in modules):
        raise ConfigError(f"the {name} is compiled; call uncompile() before quantize()")
    if any(hasattr(module, OFFLOAD_HOOK) for module in modules):
        raise ConfigError(f"the {name} is offloaded; quantize() comes before offloading and without device_map")
