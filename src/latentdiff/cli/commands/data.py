"""`latentdiff data check`: reads all of a recipe's data once, before a run does."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from json import dumps
from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.commands.info import render
from latentdiff.cli.commands.train import STAGES
from latentdiff.cli.options import Count, Flag
from latentdiff.cli.recipes import recipe_flags
from latentdiff.config import load_recipe
from latentdiff.data.options import DataOptions
from latentdiff.errors import InputError
from latentdiff.reading import parse_yaml, read_text
from latentdiff.training.recipes import Recipe
from latentdiff.types import JSON

EXIT_BAD_FILES = 1
SHOWN_LINES = 20  # lines of a kind
# Options of the data that aren't flags here.
UNUSED = ("train_data_dir", "random_flip", "random_rotate", "min_crop", "max_crop", "crops_per_image", "colour_jitter",
          "num_workers")  # fmt: skip


def check(
    source: Annotated[str, Parameter(name="RECIPE_OR_FOLDER")],
    /,
    *,
    output: Annotated[str, Parameter(alias="-o", metavar="PATH.png")] = "data-check.png",
    workers: Annotated[Count | None, Parameter(show_default="one a core")] = None,
    json: Flag = False,
    quiet: Flag = False,
    **options: str,
) -> int:
    """Read every image, label map and box of a recipe's data, or of a folder, once.

    It says which files can't be used and why, what is left out and what would end a run, counts what there is, and
    draws some of it. The exit code is 1 if there are files that can't be used, or a run would end.

    Args:
        source: A recipe, or what train_data_dir would be.
        output: The picture.
        workers: Threads.
        json: Print JSON, with all files and counts.
        quiet: Show no progress.
    """
    console.announce(f"reading {source}", quiet)
    from latentdiff.data.check import check_data
    from latentdiff.data.preview import preview
    from latentdiff.io.files import atomic_file, check_writable
    from latentdiff.training.data import check_condition, check_views, meaning_of, open_to_check

    with console.quiet_libraries(quiet):
        if Path(output).suffix.lower() != ".png":
            raise InputError(f"--output is {output}; give the name of a .png file")
        check_writable(output)
        data, recipe = read_options(source, options)
        images = open_to_check(data, recipe)
        meant, class_names = meaning_of(images, data, recipe)
        report = check_data(images, meant, workers or os.cpu_count() or 1)
        errors, notes = check_condition(images, recipe)
        report["errors"] += errors + check_views(images, data)
        report["notes"] += notes
        if len(report["bad_files"]) < len(images):
            with atomic_file(output) as aside:
                preview(images, meant, class_names).save(aside)
            report["preview"] = output
    for line in [dumps(report, indent=2)] if json else _lines(report):
        console.say(line)
    return EXIT_BAD_FILES if report["bad_files"] or report["errors"] else 0


check.__annotations__["options"] = Unpack[recipe_flags(DataOptions, leave_out=UNUSED)]


def read_options(source: str, flags: Mapping[str, str]) -> tuple[DataOptions, Recipe | None]:
    """The options of the data, and the recipe that has them where one is named; flags take precedence."""
    path = Path(source)
    if path.suffix not in (".yaml", ".yml"):
        return load_recipe(DataOptions, None, {"train_data_dir": source, **flags}), None
    try:
        values = parse_yaml(read_text(path))
        given = set(values) if isinstance(values, dict) else set()
    except (OSError, ValueError):
        given = set()  # what is wrong with it is said below
    kind = min((stage.recipe for stage in STAGES.values()), key=lambda recipe: len(given - set(recipe.model_fields)))
    recipe = load_recipe(kind, path, {f"data.{name}": value for name, value in flags.items()})
    return recipe.data, recipe


def _lines(report: JSON) -> Iterator[str]:
    """The report to read; long lists are cut."""
    bad, facts = report["bad_files"], dict(report)
    for name in ("bad_files", "notes", "ignored", "errors", "duplicates", "preview"):
        facts.pop(name, None)
    for section in (facts, facts.get("objects", {})):
        if len(section.get("classes", {})) > SHOWN_LINES:
            section["classes"] = _cut(section["classes"])
    yield from render(_short(facts))
    for note in report["notes"]:
        yield f"note: {note}"
    for line in report["ignored"]:
        yield f"ignored: {line}"
    for group in report["duplicates"][:SHOWN_LINES]:
        yield f"the same bytes: {', '.join(group)}"
    for found in bad[:SHOWN_LINES]:
        yield (
            f"bad: {found['reason']}"
            if found["file"] in found["reason"]
            else f"bad: {found['file']}: {found['reason']}"
        )
    hidden = max(0, len(report["duplicates"]) - SHOWN_LINES) + max(0, len(bad) - SHOWN_LINES)
    if hidden:
        yield f"and {hidden} more; --json has all"
    if "preview" in report:
        yield f"picture: {report['preview']}"
    for error in report["errors"]:
        yield f"error: {error}"
    yield f"{len(bad)} bad files" if bad else "no bad files"


def _cut(classes: Mapping[str, int]) -> JSON:
    first = dict(list(classes.items())[:SHOWN_LINES])
    return {**first, f"{len(classes) - SHOWN_LINES} more": sum(classes.values()) - sum(first.values())}


def _short(facts: Mapping[str, object]) -> JSON:
    """The same with numbers from least to most in one line."""
    short: JSON = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and "least" in value:
            (middle,) = set(value) - {"least", "most"}
            short[name] = f"{value['least']} to {value['most']}, {middle} {value[middle]:g}"
        else:
            short[name] = _short(value) if isinstance(value, Mapping) else value
    return short
