"""How a generated image was made."""

from __future__ import annotations

from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.generated import read_parameters
from latentdiff.io.stored import WRITTEN_KINDS
from latentdiff.types import JSON


def is_picture(target: str) -> bool:
    """Whether it is no folder and its name is that of a kind of images that latentdiff writes."""
    path = Path(target)
    return path.suffix.lower() in WRITTEN_KINDS and path.exists() and not path.is_dir()


def describe_picture(target: str) -> JSON:
    """The parameters that made an image.

    Raises:
        InputError: If the file is damaged or was not made by latentdiff.
    """
    parameters = read_parameters(target)
    if parameters is None:
        raise InputError(f"{target} holds no generation parameters; give an image as latentdiff wrote it")
    return {"parameters": parameters}
