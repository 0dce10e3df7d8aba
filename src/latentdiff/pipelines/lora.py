"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685) in pipelines, through peft."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils import is_peft_available
from safetensors import SafetensorError
from transformers import PreTrainedModel

from latentdiff.errors import CheckpointError, ConfigError

MISSING = "adapters need the package peft; pip install 'latentdiff[training]'"


class LoraMixin(StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """Adds diffusers' ways with adapters: `set_adapters`, `fuse_lora`, `unload_lora_weights`, `disable_lora`."""

    @property
    def _lora_loadable_modules(self) -> list[str]:
        encoder = isinstance(getattr(self, "text_encoder", None), PreTrainedModel)
        return ["unet", "text_encoder"] if encoder else ["unet"]

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
        """
        if not is_peft_available():
            raise ConfigError(MISSING)
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
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{name} is no adapter for this {type(self).__name__}: {reason}") from None
