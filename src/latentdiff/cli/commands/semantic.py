"""`latentdiff semantic`: images of label maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentdiff.cli.batch.files import FileCommand, read_json
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.parser import Parser


class Semantic(FileCommand):
    """Label maps, with a model of semantic maps."""

    name = "semantic"
    help = "make images of label maps"
    description = """Make images with a class at every pixel. A grey value or the index of an indexed image is a class
    number; coloured maps are read by the model's palette or by --palette."""
    tasks = ("semantic-to-image",)
    sized = True
    argument = "label_map"
    what = "PNG label maps, or folders of them"
    suffixes = (".png",)

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """Label maps, and how to read them."""
        super().add_inputs(parser)
        parser.add_argument(
            "--palette", metavar="FILE.json", help='colours of classes: {"grass": "#00ff00"} or [[0, 255, 0], ...]'
        )
        parser.add_argument("--ignore-index", type=int, metavar="N", help="the number of pixels of no class, e.g. 255")

    def items(self) -> Sequence[Item]:
        """The maps; the palette is read, too."""
        given = self.args.palette
        self.palette = given and read_json(given, lambda value: isinstance(value, (dict, list)), "a map of colours")
        return super().items()

    def fit(self, pipe: Any, job: Job, inputs: dict[str, Any]) -> dict[str, Any]:
        """The map's class numbers (H, W)."""
        from latentdiff.io.label_maps import read_label_map

        config = pipe.segmentation_encoder.config
        numbers = read_label_map(
            job.item.source,
            config.in_channels,
            palette=self.palette or config.palette,
            class_names=config.class_names,
            ignore_index=self.args.ignore_index,
        )
        return {"label_map": numbers.numpy()}

    def options(self) -> dict[str, Any]:
        """The number of pixels to ignore."""
        return {"ignore_index": self.args.ignore_index}
