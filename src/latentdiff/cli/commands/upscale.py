"""`latentdiff upscale`: larger images of small ones."""

from __future__ import annotations

from typing import Any

from latentdiff.cli.batch.files import FileCommand
from latentdiff.cli.batch.plan import Job


class Upscale(FileCommand):
    """Images, with a super-resolution model."""

    name = "upscale"
    help = "enlarge images by what the model says"
    description = "Enlarge images with a super-resolution model."
    tasks = ("super-resolution",)

    def read(self, job: Job) -> dict[str, Any]:
        """The image."""
        return {"image": read_pixels(job)}


def read_pixels(job: Job) -> Any:
    """The pixels (H, W, 3) of a job's image file."""
    import numpy as np

    from latentdiff.io.images import load_image

    assert job.item.path is not None
    return np.asarray(load_image(job.item.path))
