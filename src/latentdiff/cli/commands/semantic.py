"""`latentdiff semantic`: images of label maps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from latentdiff.cli.batch.command import Arguments
from latentdiff.cli.batch.files import FileCommand, read_json_file
from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.plan import Job
from latentdiff.cli.options import Size

if TYPE_CHECKING:
    from latentdiff.io.palettes import Palette
    from latentdiff.pipelines.base import DiffusionPipeline


@dataclass(eq=False, kw_only=True)
class Semantic(FileCommand):
    """Make images of label maps, which have a class at every pixel.

    A grey value or the index of an indexed image is a class number; coloured maps are read by the model's palette or
    by --palette.

    Attributes:
        label_map: PNG label maps, or folders of them.
        palette: Colours of classes: {"grass": "#00ff00"} or [[0, 255, 0], ...].
        ignore_index: The number of pixels of no class, such as 255.
    """

    label_map: Annotated[list[str], Parameter(name="PATH")] = field(kw_only=False)
    palette: Annotated[str | None, Parameter(metavar="FILE.json")] = None
    ignore_index: Annotated[int | None, Parameter(metavar="N")] = None
    size: Size = None
    task = "semantic-to-image"
    inputs = "label_map"
    suffixes = (".png",)

    def __post_init__(self) -> None:
        given = self.palette
        colours = None if given is None else read_json_file(given, (dict, list), "a map of colours")
        self.colours = cast("Palette | None", colours)  # what it holds is checked where it is used

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """The map's class numbers (H, W)."""
        from latentdiff.io.label_maps import read_label_map

        config = pipe.segmentation_encoder.config
        numbers = read_label_map(
            job.item.source,
            config.in_channels,
            palette=self.colours or config.palette,
            class_names=config.class_names,
            ignore_index=self.ignore_index,
        )
        return {"label_map": numbers.numpy()}

    def arguments(self) -> Arguments:
        """The number of pixels to ignore."""
        return {"ignore_index": self.ignore_index}


semantic = image_command(Semantic)
