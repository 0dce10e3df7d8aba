"""Training of an adapter alone (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from diffusers.utils import convert_state_dict_to_diffusers, is_peft_available
from torch import Tensor, nn

from latentdiff.errors import ConfigError
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.lora import MISSING, LoraMixin
from latentdiff.training.diffusion.options import LoraOptions
from latentdiff.training.engine.export import export_folder
from latentdiff.types import JSON


def add_adapter(unet: nn.Module, lora: LoraOptions) -> None:
    """Give the network a new adapter, which changes nothing yet, and freeze all else of it.

    Raises:
        ConfigError: If peft is not installed, or there are no such layers.
    """
    if not is_peft_available():
        raise ConfigError(MISSING)
    from peft import LoraConfig

    unet.requires_grad_(False)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.rank if lora.alpha is None else lora.alpha,  # type: ignore[arg-type]
        target_modules=lora.target_modules,
        init_lora_weights="gaussian",
    )
    try:
        unet.add_adapter(config)  # type: ignore[operator]
    except ValueError:
        targets = lora.target_modules
        raise ConfigError(f"lora.target_modules is {targets}, which this UNet has no layer for") from None


def export_adapter(unet: nn.Module, folder: Path) -> None:
    """Write the adapter as `folder/lora/pytorch_lora_weights.safetensors`, as diffusers' scripts do."""
    from peft import LoraConfig, get_peft_model_state_dict

    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    configs: dict[str, LoraConfig] = unet.peft_config  # type: ignore[assignment]
    config = configs["default"].to_dict()  # type: ignore[no-untyped-call]
    metadata = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}

    def write(aside: Path) -> None:
        LoraMixin.save_lora_weights(aside, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)

    export_folder(folder / "lora", write)


def with_merged_adapter(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The same pipeline around a UNet without adapter, whose weights are those of layers and adapter together."""
    from peft.tuners.lora import Conv2d, Linear

    unet: nn.Module = pipeline.components["unet"]
    weights: dict[str, Tensor] = {
        name.replace(".base_layer.", "."): tensor for name, tensor in unet.state_dict().items() if ".lora_" not in name
    }
    for name, layer in unet.named_modules():
        if isinstance(layer, (Conv2d, Linear)):
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + layer.get_delta_weight("default")
    whole = type(unet).from_config(pipeline.unet.config)  # type: ignore[attr-defined]
    whole.load_state_dict(weights)
    return type(pipeline)(**{**pipeline.components, "unet": whole})


class LoadedKeys(Protocol):
    """What torch tells the hooks of `load_state_dict`."""

    missing_keys: list[str]


def keep_frozen_out(module: nn.Module) -> None:
    """Leave what isn't trained out of the module's state, to which a checkpoint needs to add nothing."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}

    def drop(module: nn.Module, state: JSON, prefix: str, metadata: object) -> None:
        for name in frozen:
            state.pop(prefix + name, None)

    def ignore(module: nn.Module, keys: LoadedKeys) -> None:
        keys.missing_keys[:] = [name for name in keys.missing_keys if name not in frozen]

    module.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_post_hook(ignore)  # type: ignore[no-untyped-call]
