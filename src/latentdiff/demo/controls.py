"""What each task is asked by: the table of the page's controls, and how they become the command that makes the image.

The page makes its images by the commands' own code, so that a file from here is the one that the command writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from latentdiff.cli.batch.command import ImageCommand
from latentdiff.cli.commands.class_ import Classes
from latentdiff.cli.commands.generate import Generate
from latentdiff.cli.commands.inpaint import Inpaint
from latentdiff.cli.commands.layout import Layouts
from latentdiff.cli.commands.sample import Sample
from latentdiff.cli.commands.semantic import Semantic
from latentdiff.cli.commands.upscale import Upscale
from latentdiff.cli.options import FirstSeedOptions, GuidanceOptions, ModelOptions, OutputOptions, TextGuidanceOptions
from latentdiff.demo.settings import Settings

PHOTO, MASK, LAYOUT, LABEL_MAP = "photo.png", "mask.png", "layout.json", "label-map.png"


@dataclass(frozen=True)
class Controls:
    """The controls of a task.

    Attributes:
        command: The command that makes its images.
        arguments: Its arguments, of the settings and of the folder with the files of what was drawn.
        canvas: What is drawn: "image", "mask", "boxes" or "labels"; None if nothing is.
        prompt: Whether its models may take a prompt.
        guidance: Makes its options of guidance; None for a command without.
    """

    command: Callable[..., ImageCommand]
    arguments: Callable[[Settings, Path], Mapping[str, object]]
    canvas: str | None = None
    prompt: bool = False
    guidance: Callable[..., GuidanceOptions] | None = None


CONTROLS: Mapping[str, Controls] = {
    "text-to-image": Controls(
        Generate, lambda settings, _: {"prompt": (settings.prompt,)}, prompt=True, guidance=TextGuidanceOptions
    ),
    "unconditional": Controls(Sample, lambda *_: {}),
    "class-to-image": Controls(Classes, lambda settings, _: {"label": [settings.label]}, guidance=GuidanceOptions),
    "layout-to-image": Controls(
        Layouts, lambda _, folder: {"layout": [str(folder / LAYOUT)]}, "boxes", guidance=GuidanceOptions
    ),
    "semantic-to-image": Controls(Semantic, lambda _, folder: {"label_map": [str(folder / LABEL_MAP)]}, "labels"),
    "super-resolution": Controls(
        Upscale,
        lambda settings, folder: {"image": [str(folder / PHOTO)], "prompt": settings.prompt},
        "image",
        prompt=True,
        guidance=TextGuidanceOptions,
    ),
    "inpaint": Controls(
        Inpaint,
        lambda settings, folder: {
            "image": [str(folder / PHOTO)],
            "mask": str(folder / MASK),
            "prompt": settings.prompt,
        },
        "mask",
        prompt=True,
        guidance=TextGuidanceOptions,
    ),
}


def command_of(
    controls: Controls, settings: Settings, model: ModelOptions, takes_prompt: bool, folder: Path, output: str
) -> ImageCommand:
    """The command that makes an image.

    Args:
        controls: Those of the model's task.
        settings: What was asked for.
        model: The model's options.
        takes_prompt: Whether the model takes a prompt.
        folder: Has the files of what was drawn.
        output: The file to write.

    Raises:
        InputError: If settings contradict each other.
    """
    arguments = dict(controls.arguments(settings, folder))
    if not takes_prompt:
        arguments.pop("prompt", None)
    if controls.guidance is not None and settings.guidance_scale is not None:
        lead = {"negative_prompt": settings.negative_prompt or None} if takes_prompt else {}
        arguments["guidance"] = controls.guidance(guidance_scale=settings.guidance_scale, **lead)
    sampling = FirstSeedOptions(
        seed=str(settings.seed),
        steps=settings.steps,
        scheduler=settings.scheduler or None,
        cache_interval=settings.cache_interval,
    )
    return controls.command(model=model, sampling=sampling, output=OutputOptions(output=output), **arguments)
