"""`latentdiff inpaint`: images whose holes are filled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentdiff.cli.batch.files import FileCommand, find_partner
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.commands.upscale import read_pixels
from latentdiff.cli.parser import Parser
from latentdiff.errors import InputError


class MaskedCommand(FileCommand):
    """Base of the commands that take a mask for each image."""

    mask_required = False

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """Images and masks."""
        super().add_inputs(parser)
        parser.add_argument(
            "--mask",
            required=cls.mask_required,
            metavar="PATH",
            help="white where pixels are made anew: a file for all images, or a folder of files of their names",
        )

    def other_folders(self) -> Sequence[Path]:
        """That of the masks."""
        return () if self.args.mask is None else (Path(self.args.mask),)

    def items(self) -> Sequence[Item]:
        """Images, each with its mask as source, if there are masks."""
        items = super().items()
        if self.args.mask is None:
            return items
        found = [Item(item.name, find_partner(item, self.args.mask, "--mask"), item.path) for item in items]
        if all(isinstance(item.source, InputError) for item in found):
            raise found[0].source
        return found

    def read(self, job: Job) -> dict[str, Any]:
        """The image and its mask."""
        from latentdiff.io.inputs import read_mask

        pixels = read_pixels(job)
        if self.args.mask is None:
            return {"image": pixels}
        holes = read_mask(job.item.source, size=pixels.shape[:2])[0].numpy()
        if not holes.any():
            raise InputError(f"mask {job.item.source} is black everywhere; paint white what is to be made anew")
        return {"image": pixels, "mask_image": holes}

    def record(self, job: Job) -> dict[str, Any]:
        """The files' names."""
        mask = {} if self.args.mask is None else {"mask": job.item.source.name}
        return {**super().record(job), **mask}


class Inpaint(MaskedCommand):
    """Images and masks, with an inpainting model."""

    name = "inpaint"
    help = "fill holes in images"
    description = "Fill the holes of images; every pixel outside of them stays as it is."
    tasks = ("inpaint",)
    mask_required = True
