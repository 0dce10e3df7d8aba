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

    import numpy as np
    import torch
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor

JSON = dict[str, Any]
"""A JSON object, as configurations and indices are."""

# These are text at run time, so that this module imports neither numpy nor torch.
Array: TypeAlias = "NDArray[Any]"
"""A numpy array of any type of number."""

Float32Array: TypeAlias = "NDArray[np.float32]"
Float64Array: TypeAlias = "NDArray[np.float64]"

Components = dict[str, Any]
"""The components of a model by their names in a pipeline: networks, the scheduler, a tokenizer."""

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


class Config(Protocol):
    """A component's configuration: its entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        """The entry `name`."""
        ...


class HasSample(Protocol):
    """The output of a network that makes latents or images."""

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
        """The data type of the weights."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The weights."""
        ...

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """The component itself, on another device or of another data type."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """The weights and buffers by their names."""
        ...


@runtime_checkable
class FirstStage(Component, Protocol):
    """An autoencoder, KL or VQ, between images (B, C, H, W) in [-1, 1] and latents (B, c, h, w)."""

    def encode(self, x: Tensor) -> Any:
        """An output with `latent_dist`, the posterior (KL), or with `latents` before quantisation (VQ)."""
        ...

    def decode(self, latents: Any, /) -> Any:
        """An output whose `sample` holds the images of latents."""
        ...

    def register_to_config(self, **entries: object) -> None:
        """Change entries of the configuration, such as `scaling_factor`."""
        ...


@runtime_checkable
class DenoisingNetwork(Component, Protocol):
    """A network that predicts the noise, the velocity or x0 from noisy latents."""

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
    """A tokenizer of texts, as those of transformers."""

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
        """The number of special tokens that are added to every text."""
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


class Degradation(Protocol):
    """Makes a low-resolution image; all randomness comes from `rng`, so equal generators give equal images."""

    def __call__(self, image: Array, rng: np.random.Generator, sf: int = 4) -> Array:
        """Degrade one image.

        Args:
            image: RGB, uint8 (H, W, 3), with H and W multiples of `sf`.
            rng: Source of every draw; `latentdiff.seeding.array_generator(seed, index)` makes one.
            sf: Scale factor.

        Returns:
            uint8 (H / sf, W / sf, 3).

        Raises:
            InputError: If the image or the scale factor is not one that this degradation takes.
        """
        ...


class MaskGenerator(Protocol):
    """Draws inpainting masks; all randomness comes from `rng`, so equal generators give equal masks."""

    def __call__(
        self, canvas: tuple[int, int] | Array, rng: np.random.Generator, coverage: tuple[float, float] = (0.0, 0.5)
    ) -> Array:
        """Draw one mask.

        Args:
            canvas: Height and width of the mask, or a map (H, W) of integers that number the segments of an image.
            rng: Source of every draw.
            coverage: Least and greatest share of the image that may be hole.

        Returns:
            bool (H, W), True where the image is to be filled.

        Raises:
            InputError: If the canvas or the bounds are not valid, or no mask falls within the bounds.
        """
        ...
