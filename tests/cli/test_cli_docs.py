"""Every command line of the documentation is one that the parser takes."""

import shlex
from pathlib import Path

import pytest

from latentdiff.cli.main import make_parser
from latentdiff.cli.parser import parse

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("latentdiff ")]


@pytest.mark.parametrize("line", LINES)
def test_line(line):
    args = parse(make_parser(), shlex.split(line)[1:])
    assert args.output and callable(args.run)


def test_there_is_one_for_every_image_command():
    from latentdiff.cli.commands import IMAGE_COMMANDS

    assert {line.split()[1] for line in LINES} == set(IMAGE_COMMANDS)
