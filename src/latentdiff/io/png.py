"""PNG files that hold the parameters of their generation in text chunks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, PngImagePlugin

from latentdiff.errors import InputError
from latentdiff.io.files import atomic_file
from latentdiff.types import JSON

CHUNK = "latentdiff"
READABLE_CHUNK = "parameters"  # the chunk that image viewers look for
READABLE_NAMES = {
    "steps": "Steps",
    "scheduler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
}


def write_png(image: Image.Image, path: str | Path, parameters: Mapping[str, object]) -> None:
    """Write an image with the parameters of its generation, completely or not at all.

    The chunk `latentdiff` holds the parameters as JSON, the chunk `parameters` the lines that image viewers show.

    Args:
        image: The image.
        path: The file. Its folder is made, and an existing file is replaced.
        parameters: Names and JSON values. Viewers show `prompt`, `negative_prompt` and the names in READABLE_NAMES.
    """
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(CHUNK, json.dumps(dict(parameters)))
    chunks.add_itxt(READABLE_CHUNK, readable(parameters).encode("utf-8", "replace").decode("utf-8"))
    with atomic_file(path) as aside:
        image.save(aside, "PNG", pnginfo=chunks)


def readable(parameters: Mapping[str, object]) -> str:
    """The text for viewers: the prompt or prompts, and a line such as "Steps: 25, Sampler: ddim, Seed: 0"."""
    prompt = parameters.get("prompt") or ""
    lines = [str(text) for text in prompt] if isinstance(prompt, (list, tuple)) else [str(prompt)]
    if parameters.get("negative_prompt"):
        lines.append(f"Negative prompt: {parameters['negative_prompt']}")
    known = {label: parameters[name] for name, label in READABLE_NAMES.items() if parameters.get(name) is not None}
    return "\n".join([*lines, ", ".join(f"{label}: {value}" for label, value in known.items())])


def read_parameters(path: str | Path) -> JSON | None:
    """The parameters that `write_png` wrote, or None for a PNG without them.

    Raises:
        InputError: If the file can't be read as a PNG, or its parameters are damaged.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()  # the text may stand behind the pixels
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
