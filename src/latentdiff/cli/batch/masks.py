"""Images that come with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.files import FileCommand, ImagePaths, pixels_of
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.errors import InputError
from latentdiff.io.stored import IMAGE_SUFFIXES

MaskPath = Annotated[
    str,
    Parameter(
        metavar="PATH",
        help="White where pixels are made anew: a file for all images, or a folder of files of their names.",
    ),
]


@dataclass(eq=False, kw_only=True)
class MaskedCommand(FileCommand):
    """Base of the commands that take a mask for each image."""

    image: ImagePaths = field(kw_only=False)
    mask: MaskPath | None = None

    def other_folders(self) -> Sequence[Path]:
        """The folder of the masks."""
        return () if self.mask is None else (Path(self.mask),)

    def items(self) -> Sequence[Item]:
        """Images, each with its mask as source, if there are masks."""
        items = super().items()
        if self.mask is None:
            return items
        found = [Item(item.name, find_partner(item, self.mask, "--mask"), item.path) for item in items]
        errors = [item.source for item in found if isinstance(item.source, InputError)]
        if len(errors) == len(found):
            raise errors[0]
        return found

    def read(self, job: Job) -> Arguments:
        """The image and its mask."""
        from latentdiff.io.inputs import read_mask

        pixels = pixels_of(job)
        if self.mask is None:
            return {"image": pixels}
        holes = read_mask(job.item.source, size=(pixels.shape[0], pixels.shape[1]))[0].numpy()
        if not holes.any():
            raise InputError(f"mask {job.item.source} is black everywhere; paint white what is to be made anew")
        return {"image": pixels, "mask_image": holes}

    def record(self, job: Job) -> dict[str, object]:
        """The files' names."""
        mask = {"mask": job.item.source.name} if isinstance(job.item.source, Path) and self.mask else {}
        return {**super().record(job), **mask}


def find_partner(item: Item, given: str, option: str) -> Path | InputError:
    """The file that belongs to an item: `given` itself, or the file in that folder that bears the item's name."""
    path = Path(given)
    if not path.is_dir():
        return path if path.exists() else InputError(f"{option} is {given}, which doesn't exist; give another path")
    names = [item.file, *(f"{item.name}{suffix}" for suffix in IMAGE_SUFFIXES)]
    found = next((path / name for name in names if (path / name).is_file()), None)
    return found or InputError(f"{item.path}: {given} holds no {item.file} for it, nor one of another kind; add it")
