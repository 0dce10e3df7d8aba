"""What samples are compared with: images, features or their moments that others have published, or several of these."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from latentdiff.errors import InputError, UnsafeCheckpointError, one_line
from latentdiff.evaluation.array_pickles import read_arrays
from latentdiff.evaluation.image_sets import ImageSet, map_array, open_images
from latentdiff.evaluation.moments import Moments
from latentdiff.io.pickles import load_pickle
from latentdiff.io.tensor_files import ZipFile, check_finite
from latentdiff.types import Array

MOMENT_NAMES = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""Outputs of Inception, and the arrays that ADM's and EDM's files have of them."""

FORMATS = (
    "ADM's .npz (arr_0, mu, sigma, mu_s, sigma_s), EDM's .npz or .pkl (mu, sigma), or torch-fidelity's .pt (mu, sigma; "
    "or features)"
)


@dataclass(frozen=True)
class Reference:
    """What samples are compared with.

    Attributes:
        name: What numbers call it.
        images: The images; None if only moments are known.
        moments: Moments of Inception's features, by its outputs; where they are given, those of images aren't computed.
        features: Features (N, D) of Inception, likewise.
    """

    name: str
    images: ImageSet | None
    moments: Mapping[str, Moments] = field(default_factory=dict)
    features: Mapping[str, Array] = field(default_factory=dict)


def open_reference(source: str | Path, resolution: int | None = None, name: str | None = None) -> Reference:
    """Open a reference.

    Args:
        source: Images, as `open_images` takes them; or a file of moments: ADM's `.npz`, which may have images too,
            EDM's `.npz` or `.pkl`, torch-fidelity's `.pt` of statistics or of pooled features. Pickles are read without
            running what they bring.
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
        try:
            arrays, images = read_arrays(path), None
        except UnsafeCheckpointError:  # it may be a tensor, which our reader of checkpoints reads, or refuses too
            return Reference(name, None, features={"pool": _features_in(path)})
    moments = _moments(path, arrays)
    if images is None and not moments:
        raise InputError(f"{path} holds neither images nor moments; give {FORMATS}")
    return Reference(name, images, moments)


def _features_in(path: Path) -> Array:
    """The features in a file of torch-fidelity's cache, which is one tensor (N, D)."""
    content = load_pickle(path)
    if not isinstance(content, torch.Tensor) or content.ndim != 2 or content.dtype != torch.float32:
        found = f"{content.dtype} {tuple(content.shape)}" if isinstance(content, torch.Tensor) else "no tensor"
        raise InputError(f"{path} holds {found}; features are float32 (N, D), and moments arrays mu and sigma")
    if content.device.type == "meta":  # its data is still in the file
        content = ZipFile(path, {"features": content}, {}).read("features")
    features: Array = check_finite(str(path), content).numpy()
    return features


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
