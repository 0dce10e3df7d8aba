"""The way between images and latents, with either first stage, whole or in windows."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from latentdiff.compat import OFFLOAD_HOOK
from latentdiff.errors import ConfigError, LatentDiffWarning, NonFiniteError
from latentdiff.types import FirstStage
from latentdiff.windows import Windows

COMPUTED = (torch.float32, torch.bfloat16, torch.float16)
PIXELS_AT_ONCE = 2**20  # work is done in parts of this many pixels, so its memory doesn't grow with the batch


def factor(vae: FirstStage) -> int:
    """Tell how many pixels lie along a latent's side: f in the paper."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


@torch.no_grad()
def encode(vae: FirstStage, images: Tensor, *, scaled: bool, windows: Windows | None = None) -> Tensor:
    """Encode images (B, c, H, W) in [-1, 1] to latents (B, C, h, w): a KL posterior's mode, or unquantised latents.

    Images whose latents overflow in float16 are encoded in float32.

    Args:
        vae: First stage, KL or VQ.
        images: The images, on any device; the result is on the first stage's.
        scaled: Whether the latents are those that the diffusion model learns, or the first stage's own.
        windows: Overlapped windows, in latent pixels; None to encode images as a whole.
    """
    f = factor(vae)

    def run(stage: FirstStage, dtype: torch.dtype, images: Tensor) -> Tensor:
        device = stage.device

        def one(part: Tensor) -> Tensor:
            # Images from arrays lie channels last, for which torch's group norm is less exact on CPUs.
            output = stage.encode(part.to(device, dtype).contiguous())
            latents: Tensor = output.latent_dist.mode() if hasattr(output, "latent_dist") else output.latents
            return latents

        if windows is not None and not windows.covers(*(side // f for side in images.shape[-2:])):
            return torch.cat([windows.apply(one, image, zoom_in=f) for image in torch.split(images, 1)])
        return torch.cat([one(part) for part in torch.split(images, _at_once(*images.shape[-2:]))])

    latents = _in_float32_where_needed(run, vae, images)
    return (latents - shift(vae)) * vae.config.scaling_factor if scaled else latents


@torch.no_grad()
def decode(vae: FirstStage, latents: Tensor, *, windows: Windows | None = None, must_be_finite: bool = True) -> Tensor:
    """Decode scaled latents (B, C, h, w) to images (B, c, H, W) in [0, 1], in fp32 on the CPU.

    Images that overflow in float16 are decoded in float32.

    Args:
        vae: First stage, KL or VQ.
        latents: The latents, on the first stage's device.
        windows: Overlapped windows, in latent pixels; None to decode images as a whole.
        must_be_finite: Whether images that hold something else than finite numbers are an error.

    Raises:
        NonFiniteError: If they are, and there are such.
    """
    f = factor(vae)

    def run(stage: FirstStage, dtype: torch.dtype, latents: Tensor) -> Tensor:
        latents = unscaled(stage, latents.to(dtype))
        if (latents.device.type, dtype) == ("cpu", torch.bfloat16):  # 11 % faster at f = 8 and 256 pixels, as exact
            latents = latents.contiguous(memory_format=torch.channels_last)

        def one(part: Tensor) -> Tensor:
            images: Tensor = stage.decode(part).sample.float()
            return images

        if windows is not None and not windows.covers(*latents.shape[-2:]):
            cpu = torch.device("cpu")
            return torch.cat([windows.apply(one, part, zoom_out=f, device=cpu) for part in torch.split(latents, 1)])
        at_once = _at_once(*(f * side for side in latents.shape[-2:]))
        return torch.cat([one(part).cpu() for part in torch.split(latents, at_once)])

    images = _in_float32_where_needed(run, vae, latents)
    if must_be_finite and not _finite(images):
        raise NonFiniteError(
            "the decoded images are not finite, though the first stage was given finite latents; check its weights, "
            "its scaling_factor, and the latents if they are given"
        )
    return images.add_(1).div_(2).clamp_(0, 1)


def quantizer(vae: FirstStage, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Make the function that sets scaled latents (B, C, h, w) to their nearest codes.

    Args:
        vae: A VQ first stage.
        device: Where the latents are; the first stage itself may lie elsewhere until it decodes.
    """
    codes = copy.deepcopy(vae.quantize).to(device, torch.float32)  # type: ignore[attr-defined]  # that of a VQ model
    offset, scale = shift(vae), vae.config.scaling_factor

    def quantize(latents: Tensor) -> Tensor:
        nearest: Tensor = codes(unscaled(vae, latents.float()))[0]
        codes_of: Tensor = (nearest - offset) * scale
        return codes_of.to(latents.dtype)

    return quantize


def _in_float32_where_needed(
    run: Callable[[FirstStage, torch.dtype, Tensor], Tensor], vae: FirstStage, inputs: Tensor
) -> Tensor:
    """Run a first stage on inputs (B, ...), and in float32 on those with finite numbers that overflow in float16.

    Row by row, so that an image doesn't depend on its batch. The first stage itself stays as it is, as other calls may
    be using it.
    """
    dtype = _dtype(vae)
    results = run(vae, dtype, inputs)
    if dtype != torch.float16 or _finite(results):
        return results
    rows = [row for row in range(len(inputs)) if _finite(inputs[row]) and not _finite(results[row])]
    exact = _float32_copy(vae) if rows else None
    if exact is None:
        return results
    warnings.warn(
        LatentDiffWarning(
            f"the first stage overflowed in float16 on {len(rows)} of {len(inputs)} images, which are made in float32 "
            "instead; pipe.vae.to(torch.float32) spares the first attempt"
        ),
        stacklevel=3,
    )
    for row in rows:
        results[row] = run(exact, torch.float32, inputs[row : row + 1])[0].to(results.dtype)
    return results


def _dtype(vae: FirstStage) -> torch.dtype:
    """The data type that a first stage computes in.

    `vae.dtype` walks over all modules, for 1 % of a small decoder's work: weights may be stored in another data type
    than they are computed in, which then is one of 8 bits.
    """
    stored = next((parameter.dtype for parameter in vae.parameters()), None)
    return stored if stored in COMPUTED else vae.dtype


def _float32_copy(vae: FirstStage) -> FirstStage | None:
    """A copy of a first stage in float32; None if its weights are not at hand, as with sequential offload."""
    if any(parameter.is_meta for parameter in vae.parameters()):
        return None
    hook = getattr(vae, OFFLOAD_HOOK, None)  # that of offload refers to other components, which aren't to be copied
    made: torch.nn.Module = copy.deepcopy(vae, {id(hook): hook})  # type: ignore[assignment]
    return made.float()  # type: ignore[return-value]


def _finite(values: Tensor) -> bool:
    """Whether all numbers are finite; one pass and one read."""
    return bool(torch.stack(values.aminmax()).isfinite().all())


def _at_once(height: int, width: int) -> int:
    """Tell how many images of this size are worked on at once."""
    return max(1, PIXELS_AT_ONCE // (height * width))


def shift(vae: FirstStage) -> float:
    """Tell what is subtracted from latents before they are scaled."""
    return getattr(vae.config, "shift_factor", None) or 0.0


def unscaled(vae: FirstStage, latents: Tensor) -> Tensor:
    """The first stage's own latents (B, C, h, w) of scaled ones."""
    own: Tensor = latents / vae.config.scaling_factor + shift(vae)
    return own


def check_scaling(vae: FirstStage) -> None:
    """Check the numbers in a first stage's configuration by which latents are scaled and shifted.

    Raises:
        ConfigError: If one of them is no finite number, or the factor is 0.
    """
    values = {"scaling_factor": vae.config.scaling_factor, "shift_factor": shift(vae)}
    for name, value in values.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or (name == "scaling_factor" and value == 0):
            raise ConfigError(f"the first stage has {name} {value!r:.80}; give a finite number other than 0")
