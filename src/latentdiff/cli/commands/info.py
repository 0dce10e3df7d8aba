"""`latentdiff info`: what a model or an image is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from latentdiff.cli import console
from latentdiff.cli.parser import Parser
from latentdiff.cli.replay import command

DESCRIPTION = """Show what a model consists of, or how a PNG file of `latentdiff generate` was made.
Weights are not loaded; a hub model is downloaded into the hub's cache first."""

Describe = Callable[[str], dict[str, Any]]


def targets() -> list[tuple[Callable[[str], bool], Describe]]:
    """The kinds of targets, as (recognise, describe); the first that recognises a target describes it."""
    from latentdiff.inspection import checkpoint as describe_checkpoint
    from latentdiff.inspection import model as describe_model
    from latentdiff.inspection import picture

    return [
        (picture.is_png, picture.describe_png),
        (describe_checkpoint.is_checkpoint, describe_checkpoint.describe_checkpoint),
        (describe_model.is_component, describe_model.describe_component),
        (lambda target: True, describe_model.describe_pipeline),
    ]


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser: Parser = commands.add_parser("info", help="show what a model or an image is", description=DESCRIPTION)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a model folder, a checkpoint file, builtin:NAME, a hub id, or a generated PNG file",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    """Print the description of the target."""
    with console.quiet_libraries(quiet=False):
        describe = next(describe for recognise, describe in targets() if recognise(args.target))
        facts = describe(args.target)
        if isinstance(facts.get("parameters"), Mapping):  # of a generated picture
            facts["command"] = command(facts["parameters"])
    lines = [json.dumps(facts, indent=2)] if args.json else render(facts)
    for line in lines:
        console.say(line)


def render(facts: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Lines of "name: value", mappings indented below their name; what is None is left out."""
    for name, value in facts.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            yield f"{indent}{label}:"
            yield from render(value, indent + "  ")
        elif value is not None:
            yield f"{indent}{label}: {_text(name, value)}"


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name == "bytes":
        return f"{value / 2**20:,.2f} MiB"
    return f"{value:,}" if name == "parameters" else str(value)
