"""The folder that a run ends as."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from latentdiff.hub.index import CARD
from latentdiff.hub.save import write_folder


def export_folder(path: Path, write: Callable[[Path], None], components: Collection[str] = (".",)) -> None:
    """Write a model's folder whole, in place of an earlier one, whose other files and whose model card stay.

    Args:
        path: The folder. If it is a link, what it leads to is replaced.
        write: A function that fills an empty folder.
        components: The folders in it that get new weights, of which none of the old ones stay.
    """
    target = path.resolve()

    def write_anew(folder: Path) -> None:
        write(folder)
        if (target / CARD).exists():
            (folder / CARD).unlink(missing_ok=True)

    write_folder(target, components, None, write_anew)
