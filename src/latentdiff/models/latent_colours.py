"""A linear map from latents to colours: what latents show, without the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.types import FirstStage

FACTORS, BIAS = ENTRIES = "_latent_rgb_factors", "_latent_rgb_factors_bias"
"""Where the map stands in a first stage's configuration. Of names that begin like this diffusers warns nobody, it loads
and saves them with the others, and they are no arguments of its classes."""
DIGITS = 6  # of the numbers in a configuration


@dataclass(frozen=True)
class LatentColours:
    """The colour of each latent pixel as a linear function of its channels.

    The latents are the first stage's own, before they are scaled for a diffusion model, so that the map stays true when
    the scale is measured anew.

    Attributes:
        factors: (C, k) for latents of C channels and images of k channels, 1 or 3.
        bias: (k,).
    """

    factors: Tensor
    bias: Tensor

    @classmethod
    def fit(cls, latents: Tensor, images: Tensor) -> Self:
        """The least-squares fit of images (B, k, h, w) in [-1, 1] by latents (B, C, h, w)."""
        inputs, colours = _rows(latents), _rows(images)
        solution = torch.linalg.lstsq(torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1), colours).solution
        return cls(*(part.float() for part in (solution[:-1], solution[-1])))

    @classmethod
    def of(cls, vae: FirstStage) -> Self | None:
        """The map that a first stage's configuration holds; None if it holds none.

        Raises:
            ConfigError: If what it holds is no map of these latents.
        """
        entries = [getattr(vae.config, name, None) for name in ENTRIES]
        if entries == [None, None]:
            return None
        try:
            factors, bias = (torch.tensor(entry, dtype=torch.float32) for entry in entries)
        except (TypeError, ValueError, RuntimeError):
            factors = bias = torch.empty(0)
        channels = vae.config.latent_channels
        if bias.shape not in ((1,), (3,)) or factors.shape != (channels, len(bias)):
            raise ConfigError(
                f"{FACTORS} and {BIAS} of the first stage are no map of {channels} channels to 1 or 3; call "
                "fit_preview() of a pipeline to fit it anew"
            )
        return cls(factors, bias)

    def store(self, vae: FirstStage) -> None:
        """Put the map into a first stage's configuration, which is saved with its weights."""
        factors = [[_rounded(value) for value in row] for row in self.factors.tolist()]
        vae.register_to_config(**{FACTORS: factors, BIAS: [_rounded(value) for value in self.bias.tolist()]})

    def explained(self, latents: Tensor, images: Tensor) -> float:
        """The share of the variance of images (B, k, h, w) that the map explains (R^2), at most 1.

        Args:
            latents: (B, C, h, w).
            images: In [-1, 1].
        """
        colours = _rows(images)
        errors = _rows(latents) @ self.factors.double() + self.bias.double() - colours
        spread = (colours - colours.mean(dim=0)).square().sum().clamp(min=torch.finfo(torch.float64).tiny)
        return float(1 - errors.square().sum() / spread)

    def pixels(self, latents: Tensor, scale: float = 1.0, shift: float = 0.0) -> NDArray[np.uint8]:
        """The pixels (B, h, w, k) of latents (B, C, h, w) on any device, which is read once.

        It is numpy's work: between two steps a call of torch costs more than these few numbers.

        Args:
            latents: Scaled ones.
            scale: The factor by which they were multiplied.
            shift: What was subtracted before.
        """
        factors, bias = self.factors.numpy(), self.bias.numpy()
        columns = latents.detach().float().cpu().numpy().reshape(*latents.shape[:2], -1)
        colours = (factors * (127.5 / scale)).T @ columns
        colours += ((bias + shift * factors.sum(axis=0) + 1) * 127.5 + 0.5)[:, None]  # a half rounds to the nearest
        pixels = colours.clip(0, 255, out=colours).astype(np.uint8).transpose(0, 2, 1)
        return np.ascontiguousarray(pixels).reshape(len(latents), *latents.shape[2:], -1)


def _rows(values: Tensor) -> Tensor:
    """A row for each pixel (B, C, h, w) to (B h w, C), in float64 on the CPU."""
    return values.detach().cpu().double().movedim(1, -1).flatten(0, -2)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
