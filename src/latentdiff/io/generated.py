"""Image files that hold the parameters of their generation: PNG in text chunks, JPEG and WebP in EXIF."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, PngImagePlugin

from latentdiff.errors import InputError, one_line
from latentdiff.io.files import atomic_file
from latentdiff.io.png import find_text
from latentdiff.io.stored import WRITTEN_KINDS
from latentdiff.reading import open_file, parse_json
from latentdiff.types import JSON

LOSSY: dict[str, dict[str, object]] = {"JPEG": {"quality": 95, "subsampling": "4:4:4"}, "WEBP": {"quality": 95}}
LONGEST_SIDES = {"JPEG": 65_500, "WEBP": 16_383}  # pixels
CHUNK = "latentdiff"
NOTE = b"latentdiff\0"  # what our maker's notes begin with
UTF_16 = b"UNICODE\0"  # says how a user's comment is encoded
MAX_PARAMETERS = 2**26  # bytes
MAX_JPEG_EXIF = 2**16 - 3  # two bytes of a segment are its length
READABLE_CHUNK = "parameters"  # the chunk that image viewers look for
READABLE_NAMES = {
    "steps": "Steps",
    "scheduler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
}


def write_image(image: Image.Image, path: str | Path, parameters: Mapping[str, object]) -> None:
    """Write an image with the parameters of its generation, completely or not at all.

    A PNG has the parameters as JSON in the chunk `latentdiff`, and the lines that image viewers show in the chunk
    `parameters`. JPEG and WebP, which lose a little of the picture, have them in EXIF: the JSON as the maker's note,
    the lines as the user's comment.

    Args:
        image: The image.
        path: The file, whose suffix is one of WRITTEN_KINDS. Its folder is made, and an existing file is replaced.
        parameters: Names and JSON values. Viewers show `prompt`, `negative_prompt` and the names in READABLE_NAMES.

    Raises:
        InputError: If the parameters are too long for a JPEG, or the image is too large for a JPEG or WebP.
    """
    kind = WRITTEN_KINDS[Path(path).suffix.lower()]
    if kind in LONGEST_SIDES and max(image.size) > LONGEST_SIDES[kind]:
        given = f"{path} would have {image.width}x{image.height} pixels"
        raise InputError(f"{given}; a {kind} has at most {LONGEST_SIDES[kind]} a side, write a PNG")
    text = json.dumps(dict(parameters))
    shown = readable(parameters).encode("utf-8", "replace").decode("utf-8")
    options: dict[str, object] = {}
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(CHUNK, text)
        chunks.add_itxt(READABLE_CHUNK, shown)
        options["pnginfo"] = chunks
    else:
        exif, most = Image.Exif(), MAX_JPEG_EXIF if kind == "JPEG" else MAX_PARAMETERS
        entries = exif.get_ifd(ExifTags.IFD.Exif)
        entries[ExifTags.Base.MakerNote] = NOTE + text.encode("ascii")
        entries[ExifTags.Base.UserComment] = UTF_16 + shown.encode("utf-16-be")
        if len(exif.tobytes()) > most:
            del entries[ExifTags.Base.UserComment]  # says nothing that the other does not
        if len(exif.tobytes()) > most:
            raise InputError(f"the parameters of {path} are too long for a JPEG; write a PNG or WebP")
        options = {"exif": exif.tobytes(), **LOSSY[kind]}
    with atomic_file(path) as aside:
        image.save(aside, kind, **options)


def readable(parameters: Mapping[str, object]) -> str:
    """The text for viewers: the prompt or prompts, and a line such as "Steps: 25, Sampler: ddim, Seed: 0"."""
    prompt = parameters.get("prompt") or ""
    lines = [str(text) for text in prompt] if isinstance(prompt, (list, tuple)) else [str(prompt)]
    if parameters.get("negative_prompt"):
        lines.append(f"Negative prompt: {parameters['negative_prompt']}")
    known = {label: parameters[name] for name, label in READABLE_NAMES.items() if parameters.get(name) is not None}
    return "\n".join([*lines, ", ".join(f"{label}: {value}" for label, value in known.items())])


def read_parameters(path: str | Path) -> JSON | None:
    """The parameters that `write_image` wrote, or None for an image without them.

    Raises:
        InputError: If the file can't be read as an image, or its parameters are damaged.
    """
    try:
        with open_file(path) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of in damaged EXIF is no error of the picture
            text = find_text(stream, CHUNK, MAX_PARAMETERS)
            if text is None:
                text = _note(stream)
    except Exception as error:  # Pillow may raise anything for a damaged file
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path} cannot be read as a PNG, JPEG or WebP ({reason}); give another file") from None
    if text is None:
        return None
    try:
        parameters = parse_json(text)
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise InputError(f"{path} has damaged generation parameters; give another copy of the image")
    return parameters


def _note(stream: IO[bytes]) -> str | None:
    """The JSON in the EXIF of a JPEG or WebP; None if there is none, or of a PNG."""
    stream.seek(0)
    with Image.open(stream, formats=sorted(set(WRITTEN_KINDS.values()))) as image:
        if image.format == "PNG":
            return None
        note = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.MakerNote)
    if not isinstance(note, bytes) or not note.startswith(NOTE):
        return None
    return note.removeprefix(NOTE).decode("utf-8")
