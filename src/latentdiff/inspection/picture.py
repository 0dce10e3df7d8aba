"""How a generated image was made."""

from __future__ import annotations

from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.generated import read_parameters
from latentdiff.types import JSON


def is_png(target: str) -> bool:
    """Whether it is a file whose name ends in .png."""
    return Path(target).suffix.lower() == ".png" and Path(target).is_file()


def describe_png(target: str) -> JSON:
    """The parameters that made an image.

    Raises:
        InputError: If the file is damaged or was not made by latentdiff.
    """
    parameters = read_parameters(target)
    if parameters is None:
        raise InputError(f"{target} holds no generation parameters; give a PNG that latentdiff wrote")
    return {"parameters": parameters}
