"""`latentdiff inpaint`: images whose holes are filled."""

from __future__ import annotations

from dataclasses import dataclass, field

from latentdiff.cli.batch.make import image_command
from latentdiff.cli.batch.masks import MaskedCommand, MaskPath
from latentdiff.cli.commands.prompted import PromptedCommand


@dataclass(eq=False, kw_only=True)
class Inpaint(PromptedCommand, MaskedCommand):
    """Fill holes in images.

    Every pixel outside of them stays as it is.
    """

    mask: MaskPath = field()  # it has to be given
    task = "inpaint"


inpaint = image_command(Inpaint)
