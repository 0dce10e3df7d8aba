"""What components have to be able to do, and what a user may give: types that the whole package shares.

The protocols are fulfilled by the package's own classes, the stock ones of diffusers and transformers, and a user's.
Pipelines, the loop and training name a protocol, and no class, where any component of a kind will do. Where the stock
classes are annotated more loosely than they behave (a configuration is a dict, an output is this or a tuple), so are
the protocols, as they would otherwise refuse those classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

JSON = dict[str, Any]
"""A JSON object, as configurations and indices are."""

ImageLike: TypeAlias = "str | Path | Image.Image | NDArray[np.generic] | Tensor"
"""An image, mask or label map: a file, a Pillow image, an array (H, W, C) or (H, W), a tensor (C, H, W) or (H, W)."""

ImageInput: TypeAlias = "ImageLike | Sequence[ImageLike]"
"""One image or several of one size: a sequence, an array (B, H, W, C) or a tensor (B, C, H, W)."""

Labels: TypeAlias = "int | str | Sequence[int | str] | Tensor"
"""One class or several, by number or by name."""

Layout: TypeAlias = "Sequence[Mapping[str, object]]"
"""Objects in an image, each with a "class" and a "box"."""

Timestep: TypeAlias = Any
"""A tensor, 0-d or (B,); stock schedulers are annotated with int, float or IntTensor, though they take any of them."""


class HasSample(Protocol):
    """The output of a network."""

    sample: Tensor


class HasLastHiddenState(Protocol):
    """The output of a text encoder."""

    last_hidden_state: Tensor


@runtime_checkable
class Configured(Protocol):
    """A part of a pipeline that was made of a configuration."""

    @property
    def config(self) -> Any:
        """The configuration, whose entries are attributes; that of a class of diffusers is a mapping, too."""
        ...


@runtime_checkable
class Component(Configured, Protocol):
    """A network with a configuration, as diffusers' `ModelMixin` and transformers' `PreTrainedModel` are."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The weights."""
        ...

    def to(self, device: torch.device, /) -> Self:
        """The component itself, on another device."""
        ...


@runtime_checkable
class FirstStage(Component, Protocol):
    """The autoencoder, KL or VQ, between images (B, C, H, W) in [-1, 1] and latents (B, c, h, w)."""

    def encode(self, x: Tensor) -> Any:
        """An output with `latent_dist`, a posterior (KL), or `latents`, those before quantisation (VQ)."""
        ...

    def decode(self, latents: Any, /) -> Any:
        """An output whose `sample` holds the images of latents."""
        ...

    def register_to_config(self, **entries: object) -> None:
        """Change entries of the configuration, such as `scaling_factor`."""
        ...


@runtime_checkable
class DenoisingNetwork(Component, Protocol):
    """The network that predicts noise, velocity or x0 of noised latents."""

    def __call__(self, sample: Tensor, timestep: Tensor, **inputs: object) -> HasSample:
        """The prediction (B, C, H, W); `inputs` has `encoder_hidden_states` (B, M, d) where there is a context."""
        ...


@runtime_checkable
class TextEncoder(Component, Protocol):
    """The network that makes a context of token ids."""

    def __call__(self, input_ids: Tensor) -> HasLastHiddenState:
        """The states (B, L, d) of ids (B, L)."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """What makes token ids of texts, as transformers' tokenizers do."""

    @property
    def all_special_ids(self) -> Sequence[int]:
        """The ids that stand for no text, such as padding."""
        ...

    def __call__(self, text: str | list[str], **options: Any) -> Mapping[str, Any]:
        """A mapping with `input_ids`, one list of ids a text."""
        ...

    def decode(self, token_ids: list[int]) -> object:
        """The text of ids."""
        ...

    def num_special_tokens_to_add(self) -> int:
        """How many ids a text gets beside its own."""
        ...


@runtime_checkable
class Scheduler(Configured, Protocol):
    """A solver, own or one of diffusers'."""

    @property
    def timesteps(self) -> Tensor:
        """The timesteps of the run (N,), falling."""
        ...

    @property
    def order(self) -> int:
        """How often the network is called in a step."""
        ...

    @property
    def init_noise_sigma(self) -> float | Tensor:
        """The standard deviation of the noise that a run starts from."""
        ...

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str = ...) -> None:
        """Choose the timesteps of a run."""
        ...

    def scale_model_input(self, sample: Tensor, timestep: Timestep) -> Tensor:
        """The latents as the network takes them."""
        ...

    def step(self, model_output: Tensor, timestep: Timestep, sample: Tensor) -> Any:
        """The latents of the next timestep, as an output with `prev_sample` or a tuple."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Timestep) -> Tensor:
        """Latents noised to the levels of timesteps (B,)."""
        ...
