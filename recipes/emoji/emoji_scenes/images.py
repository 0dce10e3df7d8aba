"""Where the images that are judged come from: the model, the data's own renderer, and the first stage."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .grammar import Scene, jitter
from .render import Array, Sprites
from .scores import render


def generated(pipe: Any, prompts: Sequence[str], seed: int, batch_size: int, **settings: Any) -> list[Array]:
    """One image per prompt; image i is drawn with seed ``seed + i``, so the batch size changes nothing."""
    images: list[Array] = []
    for start in range(0, len(prompts), batch_size):
        chunk = list(prompts[start : start + batch_size])
        images += list(pipe(chunk, seed=seed + start, output_type="np", **settings).images)
    return images


def real(scenes: Sequence[Scene], sprites: Sprites, resolution: int, seed: int) -> list[Array]:
    """The scenes as the data would draw them: not centred to the pixel, nor of exactly the nominal size."""
    images = []
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng((seed, index))
        moved = tuple(jitter(scene.size, rng) for _ in scene.things)
        images.append(render(replace(scene, jitter=moved), sprites, resolution))
    return images


@torch.no_grad()
def reconstructed(vae: Any, images: Sequence[Array], batch_size: int) -> list[Array]:
    """The images encoded and decoded by the first stage (KL: the mean of the latent), clipped to [0, 1]."""
    results: list[Array] = []
    for start in range(0, len(images), batch_size):
        pixels = torch.from_numpy(np.stack(images[start : start + batch_size])).permute(0, 3, 1, 2)
        encoded = vae.encode(pixels.to(vae.device, vae.dtype) * 2 - 1)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        decoded = vae.decode(latents).sample.float().cpu() / 2 + 0.5
        results += list(decoded.clamp(0, 1).permute(0, 2, 3, 1).numpy())
    return results


def read_images(folder: Path, limit: int) -> list[Array]:
    """The first ``limit`` PNG images of a folder."""
    paths = sorted(folder.glob("*.png"))[:limit]
    return [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 for path in paths]


def psnr(images: Sequence[Array], others: Sequence[Array]) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB, for a data range of 1."""
    errors = [float(np.square(a - b).mean()) for a, b in zip(images, others, strict=True)]
    return float(np.mean([-10 * np.log10(max(error, 1e-10)) for error in errors]))
