"""What samples are compared with: images, moments of features that others have published, or both."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from latentdiff.errors import InputError, one_line
from latentdiff.evaluation.array_pickles import read_arrays
from latentdiff.evaluation.image_sets import ImageSet, map_array, open_images
from latentdiff.evaluation.moments import Moments
from latentdiff.types import Array

MOMENT_NAMES = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""Outputs of Inception, and the arrays that ADM's and EDM's files have of them."""

FORMATS = (
    "ADM's .npz (arr_0, mu, sigma, mu_s, sigma_s), EDM's .npz or .pkl (mu, sigma), or torch-fidelity's .pt (mu, sigma)"
)


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    Attributes:
        name: What numbers call it.
        images: The images; None if only moments are known.
        moments: Moments of Inception's features, by its outputs; where they are given, those of images aren't computed.
    """

    name: str
    images: ImageSet | None
    moments: Mapping[str, Moments] = field(default_factory=dict)


def open_reference(source: str | Path, resolution: int | None = None, name: str | None = None) -> Reference:
    """Open a reference.

    Args:
        source: Images, as `open_images` takes them; or a file of moments: ADM's `.npz`, which may have images too,
            EDM's `.npz` or `.pkl`, torch-fidelity's `.pt`. Pickles are read without running what they bring.
        resolution: As for `open_images`.
        name: What numbers call it; by default the name of the file or folder.

    Raises:
        InputError: If it can't be read, or holds neither.
        UnsafeCheckpointError: If a pickle would run code.
    """
    path = Path(source)
    name = name or path.stem or path.resolve().name
    if path.suffix not in (".npz", ".pkl", ".pt", ".pth"):
        return Reference(name, open_images(source, resolution))
    if path.suffix == ".npz":
        known = _arrays_in(path)
        arrays: Mapping[str, Array] = {
            array: map_array(path, array) for names in MOMENT_NAMES.values() for array in names if array in known
        }
        images = open_images(path, resolution) if "arr_0" in known else None
    else:
        arrays, images = read_arrays(path), None
    moments = _moments(path, arrays)
    if images is None and not moments:
        raise InputError(f"{path} holds neither images nor moments; give {FORMATS}")
    return Reference(name, images, moments)


def _arrays_in(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an .npz ({one_line(error)}); give {FORMATS}") from None


def _moments(path: Path, arrays: Mapping[str, Array]) -> dict[str, Moments]:
    found = {}
    for output, names in MOMENT_NAMES.items():
        if all(name in arrays for name in names):
            try:
                mean, covariance = (np.array(arrays[name], np.float64) for name in names)
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: {' and '.join(names)} are no arrays of numbers ({error})") from None
            if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
                raise InputError(f"{path}: {' or '.join(names)} holds values that are not finite; replace the file")
            try:
                found[output] = Moments(mean, covariance, None)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
    return found
