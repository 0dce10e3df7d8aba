"""The files that a beginning leaves: two recipes, named so that they lie in the order in which they are trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from latentdiff.config import check
from latentdiff.errors import InputError
from latentdiff.io.files import check_writable

RUNS = Path("runs")
NAME = re.compile(r"[\w-][\w.-]*")


def name_of(source: str) -> str:
    """What the recipes of a folder, file or pattern of shards are called."""
    path = Path(source)
    stem = path.resolve().name if path.exists() else path.name
    stem = stem.partition("*")[0] or path.resolve().parent.name
    return re.sub(r"[^\w.-]+", "-", stem.removesuffix(".tar").removesuffix(".parquet")).strip("-.") or "data"


def free_places(name: str) -> tuple[Path, Path]:
    """Where the recipes of a name go, and nothing is yet.

    Raises:
        ConfigError: If it is no name.
        InputError: If there is a recipe, or a run, of that name, or none can be written.
    """
    check(bool(NAME.fullmatch(name)), f"name is {name!r}; give letters, digits, dots and dashes")
    places = Path(f"{name}-1-first-stage.yaml"), Path(f"{name}-2-diffusion.yaml")
    for place in (*places, RUNS / name):
        if place.exists() or place.is_symlink():
            raise InputError(f"{place} exists, and nothing is overwritten; give another --name, or move it away")
        check_writable(place)
    return places


def write_new(files: Sequence[tuple[Path, str]]) -> None:
    """Write texts to files that aren't there yet, all of them or none.

    Raises:
        InputError: If one can't be written, or has come to be there.
    """
    written: list[Path] = []
    try:
        for path, text in files:
            with path.open("x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for half in written:
            half.unlink()
        raise InputError(f"cannot write {path}: {error.strerror}; choose another --name") from None
