"""`latentdiff upscale`: larger images of small ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.files import FileCommand, ImagePaths, pixels_of
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Job


@dataclass(eq=False, kw_only=True)
class Upscale(FileCommand):
    """Enlarge images with a super-resolution model."""

    image: ImagePaths = field(kw_only=False)
    task = "super-resolution"

    def read(self, job: Job) -> Arguments:
        """The image."""
        return {"image": pixels_of(job)}


upscale = image_command(Upscale)
