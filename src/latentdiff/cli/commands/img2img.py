"""`latentdiff img2img`: images like given ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.commands.generate import DEFAULT_MODEL
from latentdiff.cli.commands.inpaint import MaskedCommand
from latentdiff.cli.commands.labels import check_labels, parse_label
from latentdiff.cli.options import add_guidance_options
from latentdiff.cli.parser import Parser, number
from latentdiff.errors import InputError


class ImageToImage(MaskedCommand):
    """Images and maybe masks, with a text, class-conditional or unconditional model."""

    name = "img2img"
    help = "change images, all of each or under a mask"
    description = "Change images: noise is added to them and removed again, with what the model is told to show."
    tasks = ("text-to-image", "class-to-image", "unconditional", "image-to-image")
    model = DEFAULT_MODEL

    @classmethod
    def add_inputs(cls, parser: Parser) -> None:
        """Images, masks, and what to show."""
        super().add_inputs(parser)
        parser.add_argument("--prompt", metavar="TEXT", help="what to show, for a text model")
        parser.add_argument(
            "--label",
            type=parse_label,
            metavar="CLASS",
            help="the name or number of the class to show, for a class-conditional model",
        )

    @classmethod
    def add_own_options(cls, parser: Parser, sampling: Any) -> None:
        """Strength and guidance."""
        sampling.add_argument(
            "--strength",
            type=number(0.001, 1),
            default=0.8,
            metavar="SHARE",
            help="how far results may go from the images, up to 1 (default: %(default)s)",
        )
        add_guidance_options(parser, "5 for prompts, 3 for classes if the model has a null class", negative_prompt=True)

    def items(self) -> Sequence[Item]:
        """Images; the prompt is checked, too."""
        if self.args.prompt is not None:
            from latentdiff.pipelines.prompts import as_list

            as_list(self.args.prompt)
        return super().items()

    def prepare(self, pipe: Any) -> Any:
        """The components of the model as the pipeline for images, if they fit what is given."""
        from latentdiff.pipelines.image_to_image import ImageToImagePipeline

        parts = {"prompt": "text_encoder", "label": "class_embedder"}
        for option, part in parts.items():
            needed, given = pipe.components.get(part) is not None, getattr(self.args, option) is not None
            if needed != given:
                text = f"needs --{option}; say what to show" if needed else f"has no use for --{option}; leave it out"
                raise InputError(f"{self.args.model} {text}")
        if self.args.negative_prompt is not None and pipe.components.get("text_encoder") is None:
            raise InputError(f"{self.args.model} has no use for --negative-prompt; leave it out")
        if self.args.label is not None:
            check_labels(pipe, [self.args.label])
        return pipe if isinstance(pipe, ImageToImagePipeline) else ImageToImagePipeline.from_pipe(pipe)

    def read(self, job: Job) -> dict[str, Any]:
        """The image, its mask, and what to show."""
        shown = {"prompt": self.args.prompt, "class_labels": self.args.label}
        return {**super().read(job), **{name: value for name, value in shown.items() if value is not None}}

    def options(self) -> dict[str, Any]:
        """The strength."""
        return {"strength": self.args.strength}

    def record(self, job: Job) -> dict[str, Any]:
        """The files' names, and what is shown."""
        return {**super().record(job), "prompt": self.args.prompt, "label": self.args.label}
