"""The types that modules share: JSON, arrays, and protocols of components.

Protocols say what a component has to be able to do. This package's classes, those of diffusers and transformers, and a
user's own fulfil them alike; where any component of a kind will do, it is annotated by its protocol and not by a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import Tensor

JSON = dict[str, Any]
"""A JSON object, as configurations and indices are."""

Components = dict[str, Any]
"""The components of a model by their names in a pipeline: networks, the scheduler, a tokenizer."""

# These are text at run time, so that this module imports neither numpy nor torch.
Array: TypeAlias = "npt.NDArray[Any]"
"""A numpy array of any type of number."""

Float32Array: TypeAlias = "npt.NDArray[np.float32]"
Float64Array: TypeAlias = "npt.NDArray[np.float64]"


class Config(Protocol):
    """A component's configuration: its entries are attributes."""

    def __getattr__(self, name: str) -> Any:
        """The entry `name`."""
        ...


class HasSample(Protocol):
    """The output of a network that makes latents or images."""

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
        """The data type of the weights."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The weights."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """The weights and buffers by their names."""
        ...


class FirstStage(Component, Protocol):
    """An autoencoder, KL or VQ, between images (B, C, H, W) in [-1, 1] and latents (B, c, h, w)."""

    def encode(self, x: Tensor) -> Any:
        """An output with `latent_dist`, the posterior (KL), or with `latents` before quantisation (VQ)."""
        ...

    def decode(self, z: Tensor) -> HasSample:
        """The images that latents stand for."""
        ...


class DenoisingNetwork(Component, Protocol):
    """A network that predicts the noise, the velocity or x0 from noisy latents."""

    def __call__(self, sample: Tensor, timestep: Tensor, **inputs: Any) -> HasSample:
        """The prediction (B, C, H, W); `inputs` has `encoder_hidden_states` (B, M, d) if there is a context."""
        ...


class TextEncoder(Component, Protocol):
    """A network that turns token ids into a context."""

    def __call__(self, input_ids: Tensor) -> HasLastHiddenState:
        """The hidden states (B, L, d) of token ids (B, L)."""
        ...


class Tokenizer(Protocol):
    """A tokenizer of texts, as those of transformers."""

    all_special_ids: Sequence[int]
    unk_token_id: int | None

    def __call__(self, text: Sequence[str] | str, **options: Any) -> Any:
        """The mapping with `input_ids` for one text or several."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text that token ids stand for."""
        ...

    def num_special_tokens_to_add(self) -> int:
        """The number of special tokens that are added to every text."""
        ...


@runtime_checkable
class Scheduler(Protocol):
    """A scheduler with diffusers' interface, of this package or of diffusers."""

    config: Any
    timesteps: Tensor
    order: int
    init_noise_sigma: Any

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Choose the timesteps that a run visits."""
        ...

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The latents in the scale that the network takes."""
        ...

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Any:
        """The latents at the next timestep, as an output with `prev_sample` or a tuple."""
        ...

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Latents with the noise of timesteps (B,) added."""
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
