"""What components have to be able to do: protocols that own, stock and a user's classes fulfil alike.

Pipelines, the loop and training name these, and never a class, where any component of a kind will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

JSON = dict[str, Any]
"""A JSON object, as configurations and indices are."""


class Config(Protocol):
    """A component's configuration: its entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        """The entry `name`."""
        ...


class HasSample(Protocol):
    """The output of a network."""

    sample: Tensor


class HasPrevSample(Protocol):
    """The output of a scheduler's step."""

    prev_sample: Tensor


class HasLastHiddenState(Protocol):
    """The output of a text encoder."""

    last_hidden_state: Tensor


class Component(Protocol):
    """A network with a configuration, as diffusers' `ModelMixin` and transformers' `PreTrainedModel` are."""

    config: Any

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        ...

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The weights."""
        ...


class FirstStage(Component, Protocol):
    """The autoencoder, KL or VQ, between images (B, C, H, W) in [-1, 1] and latents (B, c, h, w)."""

    def encode(self, x: Tensor) -> Any:
        """An output with `latent_dist`, a posterior (KL), or `latents`, those before quantisation (VQ)."""
        ...

    def decode(self, z: Tensor) -> HasSample:
        """Images of latents."""
        ...


class DenoisingNetwork(Component, Protocol):
    """The network that predicts noise, velocity or x0 of noised latents."""

    def __call__(self, sample: Tensor, timestep: Tensor, **inputs: Any) -> HasSample:
        """The prediction (B, C, H, W); `inputs` has `encoder_hidden_states` (B, M, d) where there is a context."""
        ...


class TextEncoder(Component, Protocol):
    """What makes a context of token ids."""

    def __call__(self, input_ids: Tensor) -> HasLastHiddenState:
        """States (B, L, d) of ids (B, L)."""
        ...


class Tokenizer(Protocol):
    """What makes token ids of texts, as transformers' tokenizers do."""

    all_special_ids: Sequence[int]
    unk_token_id: int | None

    def __call__(self, text: Sequence[str] | str, **options: Any) -> Any:
        """A mapping with `input_ids`."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids."""
        ...

    def num_special_tokens_to_add(self) -> int:
        """How many ids a text gets beside its own."""
        ...


@runtime_checkable
class Scheduler(Protocol):
    """Any own or stock scheduler of diffusers."""

    config: Any
    timesteps: Tensor
    order: int
    init_noise_sigma: Any

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps of a run."""
        ...

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The latents as the network takes them."""
        ...

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any:
        """The latents of the next timestep, as an output with `prev_sample` or a tuple."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents noised to the levels of timesteps (B,)."""
        ...
