"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) in pipelines, through peft."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import delete_adapter_layers, get_adapter_name, is_peft_available
from torch import Tensor, nn

from latentdiff.compat import is_transformers_model
from latentdiff.errors import CheckpointError, ConfigError, InputError, LatentDiffError, one_line
from latentdiff.guidance.common import finite_number
from latentdiff.hub.adapter_files import check_adapter, read_adapter
from latentdiff.hub.find import find_adapter
from latentdiff.nn.int8 import check_whole
from latentdiff.registry import nearest
from latentdiff.types import JSON

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

MISSING = "adapters need the package peft; pip install 'latentdiff[training]'"
UNET, TEXT_ENCODER = "unet", "text_encoder"


class AdapterOptions(TypedDict, total=False):
    """Options of `load_lora_weights`, which describes them."""

    weight_name: str | None
    subfolder: str | None
    revision: str | None
    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool
    force_download: bool


class _LoadableModules:
    """The names of the components that take adapters, a list of a class and of an instance, as in diffusers.

    The class can't know of which kind the text encoder will be; diffusers' functions handle those of transformers only.
    """

    def __get__(self, pipe: object, owner: type) -> list[str]:
        if pipe is None:
            names = inspect.signature(owner).parameters
            return [name for name in (UNET, TEXT_ENCODER) if name in names]
        return [UNET, TEXT_ENCODER] if is_transformers_model(getattr(pipe, TEXT_ENCODER, None)) else [UNET]


class LoraMixin(StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """Adds diffusers' ways with adapters: `set_adapters`, `fuse_lora`, `unload_lora_weights`, `disable_lora`."""

    _lora_loadable_modules = _LoadableModules()

    def load_lora_weights(
        self,
        source: str | Path | Mapping[str, Tensor],
        adapter_name: str | None = None,
        **options: Unpack[AdapterOptions],
    ) -> None:
        """Add an adapter, as `latentdiff train` and diffusers' scripts write them, to the network.

        `set_adapters([name], [0.5])` gives it a strength; 0 is the model without it.

        Args:
            source: A folder with `pytorch_lora_weights.safetensors`, such a file, a hub id, or the tensors themselves.
            adapter_name: What to call it; "default_0", "default_1" and so on by default.
            **options: `weight_name` and `subfolder`, the file's name and place in the folder or repository; `revision`,
                `token`, `cache_dir`, `local_files_only` and `force_download`, for the hub as in `from_pretrained`.

        Raises:
            ConfigError: If peft is not installed.
            CheckpointError: If the file is missing or damaged, or is an adapter for another network; the pipeline is
                left as it was.
            HubError: If the hub doesn't know the adapter, refuses the token or can't be reached.
            InputError: If the source or the name is not of the right kind, or there is no such option.
        """
        if not is_peft_available():
            raise ConfigError(MISSING)
        if not isinstance(source, (str, Path, Mapping)):
            raise InputError(f"an adapter is a file, folder, hub id or tensors by name, not a {type(source).__name__}")
        if adapter_name is not None and (not isinstance(adapter_name, str) or not adapter_name or "." in adapter_name):
            raise InputError(f"adapter_name is {adapter_name!r}; give a text without dots")
        known = AdapterOptions.__annotations__
        for option in options:
            if option not in known:
                raise InputError(f"load_lora_weights takes no {option}; {nearest(option, known)}")
        name = "the adapter" if isinstance(source, Mapping) else str(source)
        networks = {part: getattr(self, part) for part in self._lora_loadable_modules}
        adapter = adapter_name or get_adapter_name(self.unet)
        if any(adapter in getattr(network, "peft_config", {}) for network in networks.values()):
            raise InputError(f"the pipeline has an adapter {adapter!r} already; choose another adapter_name")
        try:
            tensors, metadata = (dict(source), None) if isinstance(source, Mapping) else _read(source, options)
            metadata = check_adapter(
                name, tensors, metadata, sum(len(list(part.modules())) for part in networks.values())
            )
            try:
                self._load_adapter(networks, tensors, metadata, adapter)
            except BaseException:
                self._drop_adapter(networks, adapter)
                raise
        except CheckpointError as error:
            raise type(error)(f"{name} is no adapter for this {type(self).__name__}: {error}") from None
        except LatentDiffError:
            raise
        except Exception as error:
            raise CheckpointError(f"{name} is no adapter for this {type(self).__name__}: {one_line(error)}") from None

    def set_adapters(
        self,
        adapter_names: str | Sequence[str],
        adapter_weights: float | JSON | Sequence[float | JSON] | None = None,
    ) -> None:
        """Choose which adapters are at work, and how strongly.

        Args:
            adapter_names: One name or several, as `load_lora_weights` was given them.
            adapter_weights: A strength for all, or one for each, 1 by default; a mapping gives strengths by component
                and block, as in diffusers.

        Raises:
            InputError: If there is no adapter of a name, or a strength is no finite number.
        """
        names = self._known_adapters(adapter_names)
        one = adapter_weights is None or isinstance(adapter_weights, (int, float, Mapping))
        strengths = [adapter_weights] if one else list(adapter_weights)  # type: ignore[arg-type]
        if not one and len(strengths) != len(names):
            raise InputError(f"{len(strengths)} adapter_weights are given for {len(names)} adapters; give one for each")
        for strength in strengths:
            if isinstance(strength, Mapping):
                self._components_with_adapters(list(strength))
            elif strength is not None:
                finite_number("adapter_weights", strength)
        super().set_adapters(names, adapter_weights)

    def delete_adapters(self, adapter_names: str | Sequence[str]) -> None:
        """Remove adapters.

        Args:
            adapter_names: One name or several.

        Raises:
            InputError: If there is no adapter of a name.
        """
        super().delete_adapters(self._known_adapters(adapter_names))

    def fuse_lora(
        self,
        components: Sequence[str] | None = None,
        lora_scale: float = 1.0,
        safe_fusing: bool = False,
        adapter_names: Sequence[str] | None = None,
    ) -> None:
        """Add adapters to the weights themselves, which makes calls faster.

        Args:
            components: The names of the components whose adapters are meant; all that have some by default.
            lora_scale: A factor on their strength.
            safe_fusing: Whether to look for values that aren't finite before.
            adapter_names: The names of the adapters; those at work by default.

        Raises:
            ConfigError: If a component's weights are int8.
            InputError: If there is no such component or adapter, or the factor is no finite number.
        """
        names = None if adapter_names is None else self._known_adapters(adapter_names)
        scale = finite_number("lora_scale", lora_scale)
        fused = self._components_with_adapters(components)
        for name in fused:
            check_whole(name, getattr(self, name), "to which adapters can't be added; leave them as they are")
        super().fuse_lora(fused, scale, safe_fusing, names)

    def unfuse_lora(self, components: Sequence[str] | None = None) -> None:
        """Take the adapters out of the weights again.

        Args:
            components: The names of the components; all that take adapters by default.

        Raises:
            InputError: If there is no such component.
        """
        super().unfuse_lora(self._components_with_adapters(components))

    def _known_adapters(self, names: str | Sequence[str]) -> list[str]:
        """Return the names as a list; InputError if there is no adapter of one."""
        asked = [names] if isinstance(names, str) else list(names)
        known = {
            name for part in self._lora_loadable_modules for name in getattr(getattr(self, part), "peft_config", {})
        }
        for name in asked:
            if name not in known:
                hint = nearest(name, known) if known else "none is loaded, call load_lora_weights"
                raise InputError(f"there is no adapter {name!r}; {hint}")
        return asked

    def _components_with_adapters(self, components: Sequence[str] | None) -> list[str]:
        """Return the components, all that take adapters by default; InputError if one of them takes none."""
        known = self._lora_loadable_modules
        for name in components or ():
            if name not in known:
                raise InputError(f"the component {name!r} takes no adapters; {nearest(name, known)}")
        return list(known if components is None else components)

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
        if scale is not None:
            scale = finite_number("cross_attention_kwargs['scale']", scale)
        networks = [getattr(self, name) for name in self._lora_loadable_modules]
        if scale is not None and not any(map(_adapter_layers, networks)):
            raise InputError("cross_attention_kwargs has a scale, but no adapter is loaded; call load_lora_weights")
        with scaled_adapters(networks, scale):
            yield

    def _load_adapter(
        self, networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor], metadata: JSON | None, adapter: str
    ) -> None:
        """Load an adapter's tensors, all of them, and no others.

        Raises:
            ValueError: If the adapter is for other networks, or some tensors would be left out, or layers stay without.
        """
        state, alphas = self.lora_state_dict(dict(tensors))
        parts = {key.partition(".")[0] for key in state}
        if UNET not in parts or not parts <= {UNET, TEXT_ENCODER}:
            raise ValueError(f"it is for {', '.join(sorted(parts)) or 'nothing'}, not for the unet")
        if not parts <= networks.keys():
            raise ValueError("it is for a text encoder too, which this pipeline hasn't got or is of another kind")
        for part, load in ((UNET, self.load_lora_into_unet), (TEXT_ENCODER, self._load_into_text_encoder)):
            if part not in parts:
                continue
            told = {name: value for name, value in (metadata or {}).items() if name.startswith(f"{part}.")}
            options = {"adapter_name": adapter, "metadata": told or None, "_pipeline": self}
            load(state, alphas, networks[part], **options)
            given = [tensor for name, tensor in state.items() if name.startswith(f"{part}.")]
            _check_loaded(part, networks[part], adapter, given)

    def _load_into_text_encoder(
        self, state: Mapping[str, Tensor], alphas: Mapping[str, float] | None, network: nn.Module, **options: object
    ) -> None:
        self.load_lora_into_text_encoder(state, alphas, network, lora_scale=self.lora_scale, **options)

    def _drop_adapter(self, networks: Mapping[str, nn.Module], adapter: str) -> None:
        """Take an adapter out of the networks that have got it."""
        for network in networks.values():
            configs = getattr(network, "peft_config", {})
            if adapter in configs:
                delete_adapter_layers(network, adapter)
                configs.pop(adapter, None)
        if not any(getattr(network, "peft_config", None) for network in networks.values()):
            self.unload_lora_weights()


_scale_of_call: ContextVar[float] = ContextVar("scale_of_call", default=1.0)


class CallScaling(dict[str, float]):
    """The strengths of a layer's adapters, times the factor of the call that asks for them.

    Threads share the layer, and each call has a factor of its own.
    """

    def __getitem__(self, adapter: str) -> float:
        return super().__getitem__(adapter) * _scale_of_call.get()


@contextmanager
def scaled_adapters(networks: Sequence[object], scale: float | None) -> Iterator[None]:
    """While the context lasts, the strength of the adapters in `networks` is multiplied by `scale`, None for 1.

    That holds in this thread alone, and until another call begins in one of this call's callbacks.
    """
    if scale is not None:
        for layer in (layer for network in networks for layer in _adapter_layers(network)):
            if not isinstance(layer.scaling, CallScaling):
                layer.scaling = CallScaling(layer.scaling)
    token = _scale_of_call.set(1.0 if scale is None else scale)
    try:
        yield
    finally:
        _scale_of_call.reset(token)


def _adapter_layers(network: object) -> list[LoraLayer]:
    """The layers of a network that have adapters of peft."""
    if not isinstance(network, torch.nn.Module) or not is_peft_available():
        return []
    from peft.tuners.lora import LoraLayer

    return [module for module in network.modules() if isinstance(module, LoraLayer)]


def _read(source: str | Path, options: AdapterOptions) -> tuple[dict[str, Tensor], JSON | None]:
    """The tensors of an adapter's file and what it says of them; see `find_adapter`."""
    return read_adapter(find_adapter(source, **options))


def _check_loaded(part: str, network: nn.Module, adapter: str, given: Iterable[Tensor]) -> None:
    """Check that the layers of an adapter hold the tensors of its file, whatever their names have become.

    Raises:
        ValueError: If a tensor isn't in the network, or the network has more of them.
    """
    kinds = (f".{adapter}.", f".{adapter}")
    layers = {name: tensor for name, tensor in network.state_dict().items() if "lora_" in name or "lokr_" in name}
    found = [tensor for name, tensor in layers.items() if kinds[0] in name or name.endswith(kinds[1])]
    dtypes = {tensor.dtype for tensor in found}
    left = Counter(map(_digest, found))
    for tensor in given:
        digest = next((digest for dtype in dtypes if left[digest := _digest(tensor.to(dtype))] > 0), None)
        if digest is None:
            raise ValueError(f"a tensor {tuple(tensor.shape)} of it belongs to no layer of the {part}")
        left[digest] -= 1
    if left.total():
        raise ValueError(f"{left.total()} tensors of the layers that it names in the {part} are missing")


def _digest(tensor: Tensor) -> tuple[torch.Size, int]:
    """The shape and a number for the values of a tensor."""
    return tensor.shape, hash(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
