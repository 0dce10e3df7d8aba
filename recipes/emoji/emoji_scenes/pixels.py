"""Images as arrays (B, H, W, 3) in [0, 1]: in batches, as pictures, and how near they are to others."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating[Any]]


def in_batches(make: Callable[[slice, int], Any], count: int, size: int = 32) -> Array:
    """Images (count, H, W, 3) that `make` makes of a slice of the conditions and the seed of its first."""
    return np.concatenate([make(slice(i, min(i + size, count)), i) for i in range(0, count, size)])


def shuffled(values: Sequence[Any]) -> list[Any]:
    """Every value at another place."""
    return [*values[7:], *values[:7]]


def pictures(images: Iterable[Array]) -> list[Image.Image]:
    """Arrays (H, W, 3) in [0, 1] as images."""
    return [Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8)) for image in images]


def psnr(images: Array, others: Array) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB, for a data range of 1."""
    errors = np.square(images - others).reshape(len(images), -1).mean(1)
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))


def sharpness(images: Array, truth: Array) -> float:
    """Mean absolute gradient along rows, as a share of the true images'."""
    return float(np.abs(np.diff(images, axis=2)).mean() / np.abs(np.diff(truth, axis=2)).mean())


def error_inside(images: Array, truth: Array, inside: NDArray[Any]) -> float:
    """Root of the mean squared error where `inside` (B, H, W) is true, in grey levels of 255."""
    return float(255 * np.sqrt(np.square(images - truth)[inside.astype(bool)].mean()))


def filled(images: Array, holes: Array) -> tuple[Array, Array]:
    """Holes (B, H, W, 1) filled with the mean of all known pixels, and with the solution of Laplace's equation."""
    known = 1 - holes
    mean = (images * known).sum((1, 2), keepdims=True) / known.sum((1, 2), keepdims=True)
    flat = images * known + mean * holes
    smooth = flat.copy()
    for _ in range(2000):
        padded = np.pad(smooth, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        around = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
        smooth = images * known + around / 4 * holes
    return flat, smooth


@torch.no_grad()
def reconstructed(vae: Any, images: Array) -> Array:
    """The images through the first stage (KL: the mean of the latent): the best that a model in it could do."""

    def one(part: slice, _seed: int) -> Array:
        pixels = torch.from_numpy(images[part]).permute(0, 3, 1, 2).to(vae.device, vae.dtype) * 2 - 1
        encoded = vae.encode(pixels)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        decoded: Array = vae.decode(latents).sample.permute(0, 2, 3, 1).float().cpu().numpy()
        return (decoded / 2 + 0.5).clip(0, 1)

    return in_batches(one, len(images))
