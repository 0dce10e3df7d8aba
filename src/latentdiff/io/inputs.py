"""Reading the images and masks that users give: files, Pillow images, arrays and tensors.

The conventions are those of a pipeline's results, so that a result can be an input: arrays are (H, W, C), tensors
(C, H, W); uint8 goes from 0 to 255 and floats from 0 to 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.io.arrays import read_values, values_of
from latentdiff.io.images import LARGEST_VALUE, as_rgb, is_negative, load_image, read_pixels, to_tensor
from latentdiff.types import Array

HALF = 128  # of 8 bits, from which on there is a hole, or paint
NEARLY_WHITE, PURE_SHARE = (
    224,
    0.95,
)  # at least that share of a layer's paint is nearly white or black; the rest are edges
IMAGE_KINDS = "a path, a Pillow image, an array (H, W, 3) or a tensor (3, H, W)"


def read_image(image: object, *, channels: int = 3, name: str = "image") -> Tensor:
    """Read one image as a float32 tensor (channels, H, W) in [-1, 1] on the CPU.

    Args:
        image: A path; a Pillow image of any mode; an array (H, W) or (H, W, C); or a tensor (H, W) or (C, H, W). C is
            1 for grey, 3 for RGB, or 4 for RGB with transparency, which lies on white. The numbers are uint8 from 0 to
            255, uint16 from 0 to 65535, or floats in [0, 1].
        channels: The number of channels of the result. 3 is RGB and 1 is grey of any depth; the image must have any
            other number itself.
        name: The name of the argument in errors.

    Raises:
        InputError: If it is none of these or can't be read.
    """
    if channels != 3:
        return _read_channels(image, channels, name)
    if isinstance(image, (str, Path)):
        return to_tensor(load_image(image))
    if isinstance(image, Image.Image):
        return to_tensor(load_image(image, name))
    values = _channels_first(image, (1, 3, 4), name)
    if values.dtype == torch.uint8:  # by way of Pillow, so that the result is that of a file with these pixels
        pixels = values.permute(1, 2, 0).numpy()
        return to_tensor(load_image(Image.fromarray(pixels[..., 0] if len(values) == 1 else pixels), name))
    scaled = _zero_to_one(values, name).mul_(2).sub_(1)
    if len(scaled) == 4:
        alpha = (scaled[3:] + 1) / 2
        return scaled[:3] * alpha + (1 - alpha)
    return scaled if len(scaled) == 3 else scaled.expand(3, -1, -1).contiguous()


def read_mask(mask: object, *, size: tuple[int, int] | None = None, name: str = "mask") -> Tensor:
    """Read one mask as a bool tensor (1, H, W); it is True, a hole to fill, where the brightness is at least a half.

    Transparency counts as black, so that of a layer with white paint what is painted counts. A mask is read in that way
    if what can be seen of it is white, or white and black, and at most one of its corners is opaque. Any other mask
    that is transparent in part has more than one reading (of an opaque picture, people erase what is to be filled), and
    is refused.

    Args:
        mask: A path; a Pillow image; an array (H, W) or (H, W, 1); or a tensor (H, W) or (1, H, W). The numbers are
            bool, uint8 from 0 to 255, uint16 from 0 to 65535, or floats in [0, 1].
        size: Height and width that the mask must have; None for any.
        name: The name of the argument in errors.

    Raises:
        InputError: If it is none of these, can't be read, has another size, is painted but nowhere as bright as a half,
            or has a transparency of more than one reading.
    """
    if isinstance(mask, (str, Path)):
        name = f"{name} {mask}"
    if isinstance(mask, (str, Path, Image.Image)):
        values = torch.from_numpy(read_pixels(mask, lambda image: _brightness(image, name), name))[None]
    else:
        if isinstance(mask, np.ndarray) and mask.dtype == np.uint16 and mask.size:
            _check_painted(int(mask.max()), 65535, name)
        values = _channels_first(mask, (1,), name)
    if values.dtype != torch.bool:
        white = 255 if values.dtype == torch.uint8 else 1
        _check_painted(values.max().item(), white, name)
    if size is not None and tuple(values.shape[1:]) != tuple(size):
        given, needed = f"{values.shape[2]}x{values.shape[1]}", f"{size[1]}x{size[0]}"
        raise InputError(f"{name} is {given} pixels, the image {needed}; give a mask of the image's size")
    return values if values.dtype == torch.bool else _zero_to_one(values, name) >= 0.5


def _check_painted(most: float, white: int, name: str) -> None:
    """InputError for a mask that is painted in too dark a colour, such as red or the number 1, to have a hole."""
    if 0 < most < white / 2:
        raise InputError(
            f"{name} has no value above {most:g} where {white} is white, so it has no hole; make what is to be filled "
            "white"
        )


def _brightness(image: Image.Image, name: str) -> Array:
    """The brightness of a mask, uint8 (H, W), in which transparency is black; see `read_mask`."""
    if image.mode.startswith("I") and not is_negative(image):
        _check_painted(int(np.asarray(image).max()), image.info.get(LARGEST_VALUE, 65535), name)
    if not image.has_transparency_data:
        return np.array(as_rgb(image).convert("L"))
    if image.mode.startswith("I"):  # 16 bits of grey, of which one value stands for full transparency
        opaque = np.asarray(image) != image.info["transparency"]
        alpha, colours = opaque * np.uint8(255), np.asarray(as_rgb(image))
    else:
        layer = np.asarray(image.convert("RGBA"))
        colours, alpha = layer[..., :3], layer[..., 3]
        opaque = alpha >= HALF
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    if opaque.all() and alpha.min() == 255:
        return grey.copy()
    seen = colours[opaque].astype(int)
    white, black = seen.min(axis=-1) >= NEARLY_WHITE, seen.max(axis=-1) <= 255 - NEARLY_WHITE
    paint = bool(white.any()) and np.mean(white | black) >= PURE_SHARE
    if not paint or opaque[[0, 0, -1, -1], [0, -1, 0, -1]].sum() > 1:
        raise InputError(
            f"{name} is transparent in part, and it isn't clear what is to be filled; give it without transparency, "
            "white where to fill and black elsewhere"
        )
    painted: Array = np.round(grey * (alpha / 255)).astype(np.uint8)
    return painted


def read_images(images: object, *, channels: int = 3, name: str = "image") -> Tensor:
    """Read one or several images of one size as float32 (B, channels, H, W) in [-1, 1].

    Args:
        images: One image, as `read_image` takes it; a list of images; an array (B, H, W, C); or a tensor (B, C, H, W).
        channels: The number of channels of the result, as in `read_image`.
        name: The name of the argument in errors.

    Raises:
        InputError: If there are none, one is no image, or they differ in size.
    """
    return _stack([read_image(image, channels=channels, name=label) for image, label in _each(images, name)], name)


def read_masks(masks: object, *, size: tuple[int, int] | None = None, name: str = "mask") -> Tensor:
    """Read one or several masks of one size as bool (B, 1, H, W).

    Args:
        masks: One mask, as `read_mask` takes it; a list of masks; an array (B, H, W, 1); or a tensor (B, 1, H, W).
        size: Height and width that the masks must have; None for any.
        name: The name of the argument in errors.

    Raises:
        InputError: If there are none, one is no mask, or they differ in size.
    """
    return _stack([read_mask(mask, size=size, name=label) for mask, label in _each(masks, name)], name)


def _read_channels(image: object, channels: int, name: str) -> Tensor:
    """Read an image of another number of channels than three, at its full depth."""
    if isinstance(image, (str, Path)):
        values = read_values(Path(image), channels)
    elif isinstance(image, Image.Image):
        values = values_of(image, channels, name)
    else:
        return _zero_to_one(_channels_first(image, (channels,), name), name).mul_(2).sub_(1)
    return torch.from_numpy(values).permute(2, 0, 1).contiguous()


def _each(items: object, name: str) -> list[tuple[object, str]]:
    """The items of a batch, with the name of each in errors."""
    if isinstance(items, (list, tuple)) or (isinstance(items, (np.ndarray, Tensor)) and items.ndim == 4):
        if not len(items):
            raise InputError(f"{name} is empty; give at least one")
        return [(item, f"{name} {number}") for number, item in enumerate(items)]
    return [(items, name)]


def _stack(tensors: list[Tensor], name: str) -> Tensor:
    """Tensors (..., H, W) as one batch; InputError if they differ in size."""
    sizes = list(dict.fromkeys(f"{tensor.shape[2]}x{tensor.shape[1]}" for tensor in tensors))
    if len(sizes) > 1:
        raise InputError(f"{name}: one is {sizes[0]} pixels, another {sizes[1]}; give equal sizes, or one at a time")
    return torch.stack(tensors)


def _channels_first(values: object, channels: tuple[int, ...], name: str) -> Tensor:
    """An array or tensor of one image as a tensor (C, H, W) of its dtype, where C is one of `channels`."""
    layout = "({}, H, W)" if isinstance(values, Tensor) else "(H, W, {})"
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "f" or values.dtype == np.uint16:
            values = values.astype(np.float32) / np.float32(65535 if values.dtype == np.uint16 else 1)
        if values.dtype.kind not in "fb" and values.dtype != np.uint8:
            raise InputError(f"{name} is an array of {values.dtype}; give uint8, uint16 or floats (0 to 1)")
        pixels = torch.from_numpy(np.array(values))
        pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels
    elif isinstance(values, Tensor):
        pixels = values.detach().cpu()
    else:
        raise InputError(f"{name} is of the type {type(values).__name__}; give {IMAGE_KINDS}")
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or len(pixels) not in channels or not pixels.numel():
        allowed = " or ".join(layout.format(count) for count in channels)
        raise InputError(f"{name} has the shape {tuple(values.shape)}; allowed: (H, W) or {allowed}, none of them 0")
    return pixels


def _zero_to_one(values: Tensor, name: str) -> Tensor:
    """Numbers of uint8 or floats as float32 in [0, 1]; InputError if they are others or out of range."""
    if values.dtype == torch.uint8:
        return values.float().div_(255)
    if not values.is_floating_point():
        raise InputError(f"{name} is of {values.dtype}; give uint8 (0 to 255) or floats (0 to 1)")
    low, high = values.aminmax()
    if not (low >= 0 and high <= 1):  # also true for NaN
        hint = "; map [-1, 1] by (x + 1) / 2" if low >= -1 and high <= 1 else ""
        raise InputError(f"{name} has values from {low:.3g} to {high:.3g}; floats must be in [0, 1]{hint}")
    return values.to(torch.float32, copy=True)
