"""diffusers' switches that save memory or time; one that has no effect here says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from latentdiff.errors import LatentDiffWarning
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.types import DenoisingNetwork, FirstStage

IN_PARTS = "images are decoded in parts of about a megapixel anyway"
IN_WINDOWS = "give windows to a call for large images"
NO_SLICES = "attention here never holds the matrix that would be sliced"
NO_XFORMERS = "torch's scaled_dot_product_attention computes the attention here"


class SwitchesMixin:
    """Mixin of all pipelines with the switches of diffusers' pipelines."""

    vae: FirstStage
    unet: DenoisingNetwork

    def enable_vae_slicing(self) -> None:
        """Decode images one at a time."""
        self._switch_vae("enable_slicing", IN_PARTS)

    def disable_vae_slicing(self) -> None:
        """Decode images together again."""
        self._switch_vae("disable_slicing", IN_PARTS)

    def enable_vae_tiling(self) -> None:
        """Encode and decode large images in tiles, as diffusers does; a call's `windows` is this package's own way."""
        self._switch_vae("enable_tiling", IN_WINDOWS)

    def disable_vae_tiling(self) -> None:
        """Encode and decode large images as a whole again."""
        self._switch_vae("disable_tiling", IN_WINDOWS)

    def _switch_vae(self, method: str, instead: str) -> None:
        """Call a method of the first stage, or warn that it has none, as the VQ model hasn't."""
        if hasattr(self.vae, method):
            getattr(self.vae, method)()
        else:
            warn_of_no_effect(f"{method} of a {type(self.vae).__name__}", instead)

    def enable_attention_slicing(self, slice_size: str | int | None = "auto") -> None:
        """Compute the attention of a stock UNet in slices; that of this package needs none."""
        if isinstance(self.unet, UNet2DConditionModel):
            warn_of_no_effect("enable_attention_slicing", NO_SLICES)
        else:
            super().enable_attention_slicing(slice_size)  # type: ignore[misc]

    def enable_xformers_memory_efficient_attention(self, attention_op: Callable[..., object] | None = None) -> None:
        """Let xformers compute the attention of stock components."""
        if isinstance(self.unet, UNet2DConditionModel):
            warn_of_no_effect("enable_xformers_memory_efficient_attention", NO_XFORMERS)
        else:
            super().enable_xformers_memory_efficient_attention(attention_op)  # type: ignore[misc]


def warn_of_no_effect(what: str, reason: str) -> None:
    """Warn that a switch does nothing here, and why."""
    warnings.warn(f"{what} has no effect: {reason}", LatentDiffWarning, stacklevel=3)
