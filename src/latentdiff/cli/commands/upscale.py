"""`latentdiff upscale`: larger images of small ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.files import FileCommand, ImagePaths, pixels_of
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Job
from latentdiff.cli.commands.prompted import PromptedCommand


@dataclass(eq=False, kw_only=True)
class PictureCommand(FileCommand):
    """Base of the commands that take images."""

    image: ImagePaths = field(kw_only=False)

    def read(self, job: Job) -> Arguments:
        """The image."""
        return {"image": pixels_of(job)}


@dataclass(eq=False, kw_only=True)
class Upscale(PromptedCommand, PictureCommand):
    """Enlarge images with a super-resolution model."""

    task = "super-resolution"


upscale = image_command(Upscale)
