"""Images that say how they were made: PNG files with the parameters of their generation as text chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from latentdiff.errors import InputError
from latentdiff.io.files import atomic_file

CHUNK = "latentdiff"
READABLE_CHUNK = "parameters"
READABLE_NAMES = {
    "steps": "Steps",
    "scheduler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
}


def write_png(image: Image.Image, path: str | Path, parameters: Mapping[str, Any]) -> None:
    """Write an image and how it was made, whole or not at all.

    The chunk `latentdiff` holds the parameters as JSON, the chunk `parameters` the lines that image viewers look for.

    Args:
        image: The image.
        path: Where it goes; its folder is made, an existing file is replaced.
        parameters: Names to JSON values; `prompt`, `negative_prompt` and those of READABLE_NAMES are shown to viewers.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(CHUNK, json.dumps(dict(parameters)))
    chunks.add_itxt(READABLE_CHUNK, readable(parameters).encode("utf-8", "replace").decode("utf-8"))
    with atomic_file(path) as aside:
        image.save(aside, "PNG", pnginfo=chunks)


def readable(parameters: Mapping[str, Any]) -> str:
    """The prompt, and a line such as "Steps: 25, Sampler: ddim, CFG scale: 5.0, Seed: 0, Size: 64x64"."""
    prompt = parameters.get("prompt") or ""
    lines = [prompt] if isinstance(prompt, str) else list(prompt)
    if parameters.get("negative_prompt"):
        lines.append(f"Negative prompt: {parameters['negative_prompt']}")
    known = {label: parameters[name] for name, label in READABLE_NAMES.items() if parameters.get(name) is not None}
    return "\n".join([*lines, ", ".join(f"{label}: {value}" for label, value in known.items())])


def read_parameters(path: str | Path) -> dict[str, Any] | None:
    """What `write_png` was given, or None for a PNG without it.

    Raises:
        InputError: If the file can't be read as a PNG, or what it says is damaged.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # text may also follow the pixels
            text = image.info.get(CHUNK)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a PNG ({error}); give another file") from None
    if text is None:
        return None
    try:
        parameters = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        parameters = None
    if not isinstance(parameters, dict):
        raise InputError(f"{path} has damaged generation parameters; give another copy of the image")
    return parameters
