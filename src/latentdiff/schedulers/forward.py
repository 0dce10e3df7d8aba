"""The forward process: noise, and samples with it at the levels of a scheduler's run and of training."""

from __future__ import annotations

from typing import ClassVar

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.seeding import Generators


def indices_of_view(timesteps: Tensor, run: Tensor) -> list[int] | None:
    """The indices in `run` (N,) of a view of it, 0-d or (B,), such as an element of it; None for any other tensor.

    An element of a run's timesteps, as `for t in scheduler.timesteps` gives it, is a view, so its storage offset is its
    index. That needs no read from the device, and tells levels apart that share a timestep.
    """
    if torch.compiler.is_compiling() or timesteps.ndim > 1 or run.device != timesteps.device:
        return None
    if timesteps.untyped_storage().data_ptr() != run.untyped_storage().data_ptr():
        return None
    first, stride = int(timesteps.storage_offset() - run.storage_offset()), run.stride(0)
    steps = timesteps.stride(0) if timesteps.ndim else 0
    return [(first + number * steps) // stride for number in range(timesteps.numel())]


def step_noise(like: Tensor, generator: Generators, given: Tensor | None) -> Tensor:
    """The noise that was given, or else noise drawn in the shape and type of `like`."""
    if isinstance(generator, list) and len(generator) != len(like):
        raise ConfigError(f"{len(generator)} generators were given for {len(like)} images; give one per image, or one")
    if given is None:
        drawn: Tensor = randn_tensor(like.shape, generator=generator, device=like.device, dtype=like.dtype)
        return drawn
    if generator is not None:
        raise ConfigError("both generator and variance_noise were given; give one")
    return given.to(like)


class ForwardProcess:
    """Mixin of schedulers, whose attributes it reads.

    Attributes:
        timesteps: The timesteps (N,) of the run.
        variance_exploding: Whether the sample is kept at unit image scale, x / alpha (Karras et al. 2022).
        _run_levels: alpha and sigma (2, N) at each of `timesteps`.
        _training_levels: alpha and sigma (2, T) at each training timestep.
        _begin_index: The index of the run's start, if it is set.
        _step_index: The index of the next step; None before the first.
    """

    timesteps: Tensor
    variance_exploding: ClassVar[bool]
    _run_levels: Tensor
    _training_levels: Tensor
    _begin_index: int | None
    _step_index: int | None

    @property
    def _next_index(self) -> int | None:
        """The index in `timesteps` of the next step, as far as it is known."""
        return self._begin_index if self._step_index is None else self._step_index

    def _level_at(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) of each timestep, (B, 1, ..., 1): the run's if the timestep is in the run, else training's.

        Karras levels may share a whole timestep. Of those, a view of `self.timesteps` has the level of its own index,
        and other tensors that of the next step.
        """
        device, indices = like.device, indices_of_view(timesteps, self.timesteps)
        if indices is not None:
            level = self._run_levels[:, indices].to(device)
        else:
            timesteps = timesteps.to(device).reshape(-1)
            run, training = self._run_levels.to(device), self._training_levels.to(device)
            same = timesteps[:, None] == self.timesteps.to(device)
            index, following = same.int().argmax(1), self._next_index
            if following is not None and following < same.shape[1]:
                index = torch.where(same[:, following], following, index)
            level = torch.where(same.any(1), run[:, index], training[:, timesteps.round().long()])
        alpha, sigma = level.reshape(2, -1, *[1] * (like.ndim - 1))
        return alpha, sigma

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Samples (B, C, H, W) with the noise of `timesteps` (B,) added, in this scheduler's scaling."""
        alpha, sigma = self._level_at(timesteps, original_samples)
        if self.variance_exploding:
            alpha, sigma = torch.ones_like(alpha), sigma / alpha
        return (alpha * original_samples + sigma * noise).to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction, alpha noise - sigma x0, at each of `timesteps` (B,)."""
        alpha, sigma = self._level_at(timesteps, sample)
        return (alpha * noise - sigma * sample).to(sample.dtype)
