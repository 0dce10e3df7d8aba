"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) in pipelines, through peft."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import is_peft_available
from safetensors import SafetensorError
from transformers import PreTrainedModel

from latentdiff.errors import CheckpointError, ConfigError, InputError, one_line
from latentdiff.hub.errors import NETWORK_ERRORS

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

LIBRARY_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    SafetensorError,
    *NETWORK_ERRORS,
)
"""What diffusers, peft and the hub's client raise about an adapter that can't be had or doesn't fit."""

MISSING = "adapters need the package peft; pip install 'latentdiff[training]'"


class _LoadableModules:
    """The names of the components that take adapters, a list of a class and of an instance, as in diffusers.

    The class can't know of which kind the text encoder will be; diffusers' functions handle those of transformers only.
    """

    def __get__(self, pipe: object, owner: type) -> list[str]:
        if pipe is None:
            names = inspect.signature(owner).parameters
            return [name for name in ("unet", "text_encoder") if name in names]
        encoder = isinstance(getattr(pipe, "text_encoder", None), PreTrainedModel)
        return ["unet", "text_encoder"] if encoder else ["unet"]


class LoraMixin(StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """Adds diffusers' ways with adapters: `set_adapters`, `fuse_lora`, `unload_lora_weights`, `disable_lora`."""

    _lora_loadable_modules = _LoadableModules()

    def load_lora_weights(
        self, source: str | Path | Mapping[str, torch.Tensor], adapter_name: str | None = None, **kwargs: object
    ) -> None:
        """Add an adapter, as `latentdiff train` and diffusers' scripts write them, to the network.

        `set_adapters([name], [0.5])` gives it a strength; 0 is the model without it.

        Args:
            source: A folder with `pytorch_lora_weights.safetensors`, such a file, a hub id, or the tensors themselves.
            adapter_name: What to call it; "default_0", "default_1" and so on by default.
            **kwargs: As in diffusers: `weight_name`, `subfolder`, `revision`, `token`.

        Raises:
            ConfigError: If peft is not installed.
            CheckpointError: If the file is missing or damaged, or is an adapter for another network.
            InputError: If the source or the name is not of the right kind.
        """
        if not is_peft_available():
            raise ConfigError(MISSING)
        if not isinstance(source, (str, Path, Mapping)):
            raise InputError(f"an adapter is a file, folder, hub id or tensors by name, not a {type(source).__name__}")
        if adapter_name is not None and (not isinstance(adapter_name, str) or not adapter_name or "." in adapter_name):
            raise InputError(f"adapter_name is {adapter_name!r}; give a text without dots")
        if isinstance(source, Path) and not source.exists():
            raise CheckpointError(f"{source} is no file or folder; give an adapter's")
        given = dict(source) if isinstance(source, Mapping) else str(source)
        name = "the adapter" if isinstance(source, Mapping) else given
        try:
            options = {**kwargs, "use_safetensors": True, "return_lora_metadata": True}
            state, alphas, metadata = self.lora_state_dict(given, **options)
            parts = {key.partition(".")[0] for key in state}
            if "unet" not in parts or not parts <= {"unet", "text_encoder"}:
                raise ValueError(f"it is for {', '.join(sorted(parts)) or 'nothing'}, not for the unet")
            if not parts <= set(self._lora_loadable_modules):
                raise ValueError("it is for a text encoder too, which this pipeline hasn't got or is of another kind")
            shared = {"network_alphas": alphas, "adapter_name": adapter_name, "metadata": metadata, "_pipeline": self}
            self.load_lora_into_unet(state, unet=self.unet, **shared)
            if "text_encoder" in parts:
                scale = self.lora_scale
                self.load_lora_into_text_encoder(state, text_encoder=self.text_encoder, lora_scale=scale, **shared)
        except LIBRARY_ERRORS as error:
            raise CheckpointError(f"{name} is no adapter for this {type(self).__name__}: {one_line(error)}") from None

    @contextmanager
    def _scaled_adapters(self, attention: Mapping[str, float] | None) -> Iterator[None]:
        """While the context lasts, the adapters have the strength that a call's `cross_attention_kwargs` asks for.

        Raises:
            InputError: If they ask for anything else, or there is no adapter.
        """
        scale = None
        if attention is not None:
            if not isinstance(attention, Mapping) or not attention.keys() <= {"scale"}:
                raise InputError(
                    f"cross_attention_kwargs is {attention!r}; the one entry is {{'scale': s}}, for adapters"
                )
            scale = attention.get("scale")
        networks = [getattr(self, name) for name in self._lora_loadable_modules]
        if scale is not None and not any(map(_adapter_layers, networks)):
            raise InputError("cross_attention_kwargs has a scale, but no adapter is loaded; call load_lora_weights")
        with scaled_adapters(networks, scale):
            yield


@contextmanager
def scaled_adapters(networks: Sequence[object], scale: float | None) -> Iterator[None]:
    """While the context lasts, the strength of the adapters in `networks` is multiplied by `scale`, unless it is None.

    The factors themselves are put back afterwards: diffusers divides by the scale, which changes their last bits.
    """
    if scale is None:
        yield
        return
    layers = [layer for network in networks for layer in _adapter_layers(network)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            layer.scale_layer(scale)
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling = scaling


def _adapter_layers(network: object) -> list[LoraLayer]:
    """The layers of a network that have adapters of peft."""
    if not isinstance(network, torch.nn.Module) or not is_peft_available():
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in network.modules() if isinstance(module, LoraLayer)]
