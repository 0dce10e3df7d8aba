"""`latentdiff data check`: reads all of a recipe's data once, before a run does."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from latentdiff.cli import console
from latentdiff.cli.commands.info import render
from latentdiff.cli.commands.train import STAGES, add_recipe_flags
from latentdiff.cli.parser import Parser, whole_number
from latentdiff.config import load_recipe
from latentdiff.data.options import DataOptions
from latentdiff.errors import InputError
from latentdiff.training.recipes import Recipe

DESCRIPTION = """Read every image, label map and box of a recipe's data, or of a folder, once: say which files can't be
used and why, count what there is, and draw some of it. The exit code is 1 if there are files that can't be used."""
EXIT_BAD_FILES = 1
SHOWN = 20  # lines of a kind
UNUSED = ("train_data_dir", "random_flip", "num_workers")  # options of the data that aren't flags here


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser: Parser = commands.add_parser("data", help="look at training data before training", description=DESCRIPTION)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    child: Parser = actions.add_parser("check", help="read all of it once", description=DESCRIPTION)
    child.set_defaults(run=run, parser=child)
    child.add_argument("source", metavar="RECIPE_OR_FOLDER", help="a recipe, or what train_data_dir would be")
    add = child.add_argument
    add("-o", "--output", default="data-check.png", metavar="PATH.png", help="the picture (default: %(default)s)")
    add(
        "--workers",
        type=whole_number(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="threads (default: one a core)",
    )
    add("--json", action="store_true", help="print JSON, with all files and counts")
    add("--quiet", action="store_true", help="show no progress")
    add_recipe_flags(child, DataOptions, leave_out=UNUSED)


def run(args: argparse.Namespace) -> None:
    """Print the report; end with exit code 1 if there are bad files."""
    from latentdiff.data.check import check_data
    from latentdiff.data.preview import preview
    from latentdiff.io.files import atomic_file, check_writable
    from latentdiff.training.data import meaning_of, open_to_check

    with console.quiet_libraries(args.quiet):
        if Path(args.output).suffix.lower() != ".png":
            raise InputError(f"--output is {args.output}; give the name of a .png file")
        check_writable(args.output)
        data, recipe = _options(args)
        images = open_to_check(data, recipe)
        meant, class_names = meaning_of(images, data, recipe)
        report = check_data(images, meant, args.workers)
        if len(report["bad_files"]) < len(images):
            with atomic_file(args.output) as aside:
                preview(images, meant, class_names).save(aside)
            report["preview"] = args.output
    for line in [json.dumps(report, indent=2)] if args.json else _lines(report):
        console.say(line)
    if report["bad_files"]:
        raise SystemExit(EXIT_BAD_FILES)


def _options(args: argparse.Namespace) -> tuple[DataOptions, Recipe | None]:
    """The options of the data, and the recipe that has them where one is named; flags take precedence."""
    flags = {name: value for name, value in vars(args).items() if name in DataOptions.model_fields}
    path = Path(args.source)
    if path.suffix not in (".yaml", ".yml"):
        data = load_recipe(DataOptions, None, {"train_data_dir": args.source, **flags})
        return data, None
    try:
        given = set(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError):
        given = set()  # what is wrong with it is said below
    recipes = [recipe for recipe, _, _ in STAGES.values()]
    kind = min(recipes, key=lambda recipe: len(given - set(recipe.model_fields)))
    recipe = load_recipe(kind, path, {f"data.{name}": value for name, value in flags.items()})
    return recipe.data, recipe


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    """The report to read; long lists are cut."""
    bad, facts = report["bad_files"], dict(report)
    for name in ("bad_files", "notes", "duplicates", "preview"):
        facts.pop(name, None)
    for section in (facts, facts.get("objects", {})):
        if len(section.get("classes", {})) > SHOWN:
            section["classes"] = _cut(section["classes"])
    yield from render(_short(facts))
    for note in report["notes"]:
        yield f"note: {note}"
    for group in report["duplicates"][:SHOWN]:
        yield f"the same bytes: {', '.join(group)}"
    for found in bad[:SHOWN]:
        yield (
            f"bad: {found['reason']}"
            if found["file"] in found["reason"]
            else f"bad: {found['file']}: {found['reason']}"
        )
    hidden = max(0, len(report["duplicates"]) - SHOWN) + max(0, len(bad) - SHOWN)
    if hidden:
        yield f"and {hidden} more; --json has all"
    if "preview" in report:
        yield f"picture: {report['preview']}"
    yield f"{len(bad)} bad files" if bad else "no bad files"


def _cut(classes: Mapping[str, int]) -> dict[str, Any]:
    first = dict(list(classes.items())[:SHOWN])
    return {**first, f"{len(classes) - SHOWN} more": sum(classes.values()) - sum(first.values())}


def _short(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same with numbers from least to most in one line."""
    short: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and "least" in value:
            (middle,) = set(value) - {"least", "most"}
            short[name] = f"{value['least']} to {value['most']}, {middle} {value[middle]:g}"
        else:
            short[name] = _short(value) if isinstance(value, Mapping) else value
    return short
