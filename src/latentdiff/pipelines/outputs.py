"""From decoded images to what the user asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypeVar

from latentdiff.errors import InputError, NonFiniteError
from latentdiff.registry import nearest

OutputType = Literal["pil", "np", "pt", "latent"]
OUTPUT_TYPES: tuple[OutputType, ...] = get_args(OutputType)

Floats = NDArray[np.float32]
OutputT = TypeVar("OutputT", bound=OutputType, default=Literal["pil"])
OutputT_co = TypeVar("OutputT_co", bound=OutputType, default=Literal["pil"], covariant=True)

if TYPE_CHECKING:

    class _StockOutput:
        """What type checkers see of diffusers' output: that has no types, and as a base would fit every overload."""

        def __init__(self, images: object) -> None: ...
        def __getitem__(self, key: int | str) -> Any: ...
        def to_tuple(self) -> tuple[Any, ...]: ...
else:
    from diffusers.pipelines.pipeline_utils import ImagePipelineOutput as _StockOutput


class ImagePipelineOutput(_StockOutput, Generic[OutputT_co]):
    """What a pipeline's call returns: diffusers' output of the same name, whose `images` are typed.

    `output[0]` is `output.images`, so code that expects the tuple of `return_dict=False` reads it as well.

    Attributes:
        images: By `output_type`: a list of Pillow images ("pil"), an array (B, H, W, C) of float32 in [0, 1] ("np"), a
            tensor (B, C, H, W) of float32 in [0, 1] ("pt"), or the scaled latents (B, c, h, w) ("latent").
    """

    if TYPE_CHECKING:
        images: _Images


class _Images:
    """The type of `ImagePipelineOutput.images`, which follows from the call's `output_type`; there is no instance."""

    @overload
    def __get__(self, output: ImagePipelineOutput[Literal["pil"]], owner: object) -> list[Image.Image]: ...
    @overload
    def __get__(self, output: ImagePipelineOutput[Literal["np"]], owner: object) -> Floats: ...
    @overload
    def __get__(self, output: ImagePipelineOutput[Literal["pt", "latent"]], owner: object) -> torch.Tensor: ...
    @overload
    def __get__(
        self, output: ImagePipelineOutput[OutputType], owner: object
    ) -> list[Image.Image] | Floats | torch.Tensor: ...
    def __get__(self, output: object, owner: object) -> object:
        raise NotImplementedError


def check_output_type(output_type: str) -> None:
    """Raise InputError unless the name is known."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(f"output_type is {output_type!r}; {nearest(output_type, OUTPUT_TYPES)}")


def check_channels(output_type: str, channels: int) -> None:
    """Raise InputError if Pillow images are asked for and there are none of as many channels."""
    if output_type == "pil" and channels not in (1, 3):
        raise InputError(f"images have {channels} channels, which PIL can't show; use output_type 'np' or 'pt'")


def check_latents(latents: torch.Tensor, dtype: torch.dtype) -> None:
    """Raise NonFiniteError, with the likely cause, unless all latents (B, c, h, w) are finite; one read of the device.

    Args:
        latents: The latents at the end of a run.
        dtype: That of the network which made them.
    """
    if latents.is_meta or latents.isfinite().all():  # meta tensors hold no numbers
        return
    bad, cause = int((~latents.isfinite()).flatten(1).any(1).sum()), "a lower guidance scale"
    if dtype == torch.float16:
        cause = f"the network in dtype=torch.bfloat16 or torch.float32, as float16 overflows above 65504, or {cause}"
    raise NonFiniteError(
        f"the latents of {bad} of {len(latents)} images are not finite; take {cause}, and check the inputs and weights"
    )


@overload
def convert(images: torch.Tensor, output_type: Literal["pil"]) -> list[Image.Image]: ...
@overload
def convert(images: torch.Tensor, output_type: OutputType) -> list[Image.Image] | Floats | torch.Tensor: ...
def convert(images: torch.Tensor, output_type: OutputType) -> list[Image.Image] | Floats | torch.Tensor:
    """Convert images (B, C, H, W) in [0, 1] to "pt" (as they are), "np" (B, H, W, C) or a list of "pil" images.

    Raises:
        InputError: If Pillow images are asked for and there are none of as many channels.
    """
    if output_type == "pt":
        return images
    array: Floats = images.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return array
    check_channels(output_type, array.shape[-1])
    return [Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels) for pixels in to_bytes(array)]


def to_bytes(array: Floats) -> NDArray[np.uint8]:
    """Map values in [0, 1] to uint8 values, rounded to the nearest."""
    return np.round(array * 255).astype(np.uint8)
