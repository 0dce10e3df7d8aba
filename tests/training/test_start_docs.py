"""docs/start.md says of the sizes what their table says, and names options that are there."""

import re
from pathlib import Path

from latentdiff.cli.main import make_app
from latentdiff.config import options_of
from latentdiff.training.chain import SHOW
from latentdiff.training.diffusion.conditioners.options import BUILT_IN
from latentdiff.training.recipes import Recipe
from latentdiff.training.start.presets import PRESETS

TEXT = (Path(__file__).parents[2] / "docs" / "start.md").read_text(encoding="utf-8")


def row(preset):
    first, second = preset.first_stage, preset.diffusion
    needs = [
        f"{stage.needs.parameters:g} | {stage.needs.fixed:g} + {stage.needs.image:g} an image"
        for stage in (first, second)
    ]
    return f"| `{preset.name}` | {preset.images:,} | {preset.resolution} | {' | '.join(needs)} |"


def test_the_sizes_are_those_of_the_table():
    assert re.findall(r"^\| `(?:tiny|small|base|paper)`.*$", TEXT, re.MULTILINE) == [row(preset) for preset in PRESETS]


def test_flags_are_flags():
    known = {flag for argument in make_app()["init"].assemble_argument_collection() for flag in argument.names}
    known |= {f"--{option.name}" for option in options_of(Recipe)}
    told = TEXT.partition("## A transcript")[0]
    assert set(re.findall(r"--[a-z][a-z_.-]+", told)) <= known | {"--resume_from_checkpoint"}


def test_every_conditioning_can_be_shown():
    assert set(SHOW) == set(BUILT_IN)
