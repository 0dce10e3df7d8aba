"""The commands that make images."""

from __future__ import annotations

import argparse
from typing import Any

from latentdiff.cli import console
from latentdiff.cli.commands.base import Command
from latentdiff.cli.commands.class_ import Classes
from latentdiff.cli.commands.generate import Generate
from latentdiff.cli.commands.img2img import ImageToImage
from latentdiff.cli.commands.inpaint import Inpaint
from latentdiff.cli.commands.layout import Layout
from latentdiff.cli.commands.sample import Sample
from latentdiff.cli.commands.semantic import Semantic
from latentdiff.cli.commands.upscale import Upscale

IMAGE_COMMANDS: dict[str, type[Command]] = {
    command.name: command for command in (Generate, Sample, Classes, Layout, Semantic, Upscale, Inpaint, ImageToImage)
}


def add_parsers(commands: Any) -> None:
    """Add all of them to the subparsers."""
    for command in IMAGE_COMMANDS.values():
        command.add_parser(commands)
        commands.choices[command.name].set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Make and write the images; everything that can be checked is checked before the model is loaded."""
    with console.quiet_libraries(args.quiet) as complain:
        command: Command = args.command(args)
        plan = command.plan()
        from latentdiff.cli.batch.runner import Runner

        for line in Runner(command, plan, complain).lines():
            if not args.quiet:
                console.say(line)
