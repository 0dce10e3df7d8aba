"""How a generated image was made, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentdiff.errors import InputError
from latentdiff.io.png import read_parameters
from latentdiff.registry import SCHEDULERS

OPTIONS = (
    "model",
    "revision",
    "dtype",
    "seed",
    "steps",
    "scheduler",
    "eta",
    "guidance_scale",
    "guidance_interval",
    "guidance_rescale",
    "negative_prompt",
    "size",
)


def is_png(target: str) -> bool:
    """Whether it is a file whose name ends in .png."""
    return Path(target).suffix.lower() == ".png" and Path(target).is_file()


def describe_png(target: str) -> dict[str, Any]:
    """The parameters of an image and its command.

    Raises:
        InputError: If the file is damaged or was not made by `latentdiff generate`.
    """
    parameters = read_parameters(target)
    if parameters is None:
        raise InputError(f"{target} holds no generation parameters; give a PNG that latentdiff generate wrote")
    return {"parameters": parameters, "command": command(parameters)}


def command(parameters: Mapping[str, Any]) -> str:
    """The shell command that makes an image of `parameters` again."""
    given = {name: parameters[name] for name in OPTIONS if parameters.get(name) not in (None, [])}
    if str(given.get("scheduler")) not in SCHEDULERS:
        given.pop("scheduler", None)  # the model's own, of another library
    if given.get("guidance_scale") == 1:
        given.pop("guidance_interval", None)
        given.pop("guidance_rescale", None)
    prompt = parameters.get("prompt")
    prompts = prompt if isinstance(prompt, list) else [] if prompt is None else [prompt]
    words = ["latentdiff", "generate", *(["--grid"] if parameters.get("grid") else [])]
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        # A text that begins with a dash would be taken for an option.
        values = [str(item) for item in (value if isinstance(value, list) else [value])]
        words += [f"{option}={values[0]}"] if values[0].startswith("-") else [option, *values]
    return shlex.join([*words, *(["--"] if prompts else []), *map(str, prompts)])
