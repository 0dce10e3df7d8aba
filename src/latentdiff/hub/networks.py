"""Networks of this package and of diffusers, loaded from their folders.

A network is made without memory of its own and takes all tensors of its files, by their names: it has none from
elsewhere, none is left out, and nothing has to be compared afterwards. diffusers' loader serves what needs more:
devices to spread over, quantization, or names of 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import ModelMixin
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.hub.component_folder import ComponentFolder, library_errors
from latentdiff.hub.components import check_component, component_class
from latentdiff.hub.construction import bounded
from latentdiff.hub.index import IndexEntry
from latentdiff.hub.loaded import check_left_out, check_loaded
from latentdiff.hub.weight_files import check_variant

DTypes = torch.dtype | Mapping[str, torch.dtype] | None

STOCK_UNETS = ("UNet2DConditionModel", "UNet2DModel")


class SkipInitialization(TorchFunctionMode):
    """Leaves the functions of `torch.nn.init` out, whose values the weights of a file would replace at once."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Give the tensor back where it would be initialized; anything else is as without this mode."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def needs_own(name: str, entry: IndexEntry) -> bool:
    """Whether diffusers can't load a component: a UNet as our class, or what has another name in its index."""
    return entry.folder != name or (entry.library == "diffusers" and entry.class_name in STOCK_UNETS)


def component_dtype(name: str, dtype: DTypes) -> torch.dtype:
    """The data type of a component: the one that is asked for, or for it or by "default", else float32."""
    asked = dtype.get(name, dtype.get("default")) if isinstance(dtype, Mapping) else dtype
    return asked or torch.float32


def load_own(part: ComponentFolder, entry: IndexEntry, dtype: torch.dtype | None) -> nn.Module | None:
    """Load a network of this package or of diffusers; None for other components.

    A stock UNet becomes one of our class.

    Args:
        part: The component's folder.
        entry: What the index says of it.
        dtype: The data type of the weights; None keeps that in which they are stored.

    Raises:
        CheckpointError: If the weights aren't those of the configuration.
        ConfigError: If the configuration isn't valid.
    """
    found = component_class(part.path.parent, entry)
    if not issubclass(found, ModelMixin):
        return None
    if entry.library == "diffusers" and entry.class_name in STOCK_UNETS:
        return _own_unet(part, found, dtype)
    network: nn.Module = load_network(part, found, dtype)
    return network


def load_network(part: ComponentFolder, network_class: type[Any], dtype: torch.dtype | None) -> Any:
    """Load a network of this package or of diffusers, in evaluation mode.

    Args:
        part: The network's folder.
        network_class: Its class.
        dtype: The data type of the weights; None keeps that in which they are stored.

    Raises:
        CheckpointError: If the weights aren't those of the configuration.
        ConfigError: If the configuration isn't valid.
    """
    if part.has_old_attention:
        network = network_class.from_pretrained(part.path, use_safetensors=True, variant=part.variant)
        check_loaded(part, network)
        return _cast(network, dtype or network.dtype)
    # Models of 2022 mean latents as they are; diffusers' default has been another one since.
    defaults = {"scaling_factor": 1.0} if network_class.__name__ == "VQModel" else {}
    with torch.device("meta"), SkipInitialization():
        network = network_class.from_config({**defaults, **part.config})
    _assign(part, network, dtype)
    network.register_to_config(_name_or_path=str(part.path))
    return network.eval()


def _assign(part: ComponentFolder, network: nn.Module, dtype: torch.dtype | None) -> None:
    """Give a network its tensors, of which it has to need all that there are, and no others."""
    needed = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    part.check_tensors(needed)
    check_left_out(part, part.tensors.keys() - needed, needed.keys(), type(network))
    for name, shape in needed.items():
        stored = part.tensors[name]["shape"]
        if stored != shape:
            raise CheckpointError(
                f"{part.path}: {name} is {tuple(stored)} in the weights, and {tuple(shape)} by the configuration; "
                "fetch or save the model again"
            )
    state: dict[str, Tensor] = {}
    for path in part.weight_paths:
        state |= load_file(path)
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    with bounded(None):
        network.load_state_dict({name: state[name] for name in needed}, assign=True)


def load_alone(part: ComponentFolder, entry: IndexEntry, dtype: torch.dtype | None) -> Any:
    """Load a network that lies by itself.

    Args:
        part: The network's folder.
        entry: The library and the class.
        dtype: The data type of the weights; None keeps that in which they are stored.

    Raises:
        CheckpointError: If a file is missing or damaged, or stands for something outside of the folder.
        ConfigError: If the configuration isn't valid.
    """
    check_variant(part.path.parent, {part.path.name: part.names}, None)
    with library_errors(part.path), bounded([part]):
        check_component(part, entry)
        return load_network(part, component_class(part.path.parent, entry), dtype)


def _own_unet(part: ComponentFolder, stock: type[Any], dtype: torch.dtype | None) -> nn.Module | None:
    """The UNet as our class, which has its keys and is faster; None where the stock class has to serve it."""
    from latentdiff.models.unet import UNet2DConditionModel

    try:
        if not part.has_old_attention:
            own: nn.Module = load_network(part, UNet2DConditionModel, dtype)
            return own
        unet: nn.Module = UNet2DConditionModel.from_config(part.config)
    except ConfigError:
        return None  # outside our configuration space
    unet.load_state_dict(load_network(part, stock, torch.float32).state_dict())
    return _cast(unet, dtype or torch.float32)


def _cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    return nn.Module.to(network, dtype).eval()  # diffusers' own method warns of every cast
