"""`latentdiff train`: the training stages, their options given by a recipe and by flags."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import os
import re
import types
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from latentdiff.cli import console
from latentdiff.cli.parser import Parser
from latentdiff.config import from_mapping
from latentdiff.data.options import DataOptions
from latentdiff.training.recipes.stages import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe, Recipe, load_recipe

DESCRIPTION = """RECIPE is a YAML file of options; a flag takes precedence over it, and flags alone will do. Under
`accelerate launch -m latentdiff train ...` several processes share the work."""


def _train_first_stage(recipe: FirstStageRecipe, **how: Any) -> Path:
    from latentdiff.training.first_stage.task import train_first_stage

    return train_first_stage(recipe, **how)


def _train_diffusion(recipe: DiffusionRecipe, **how: Any) -> Path:
    from latentdiff.training.diffusion.task import train_diffusion

    return train_diffusion(recipe, **how)


def _train_classifier(recipe: ClassifierRecipe, **how: Any) -> Path:
    from latentdiff.training.classifier import train_classifier

    return train_classifier(recipe, **how)


STAGES: dict[str, tuple[type[Recipe], Callable[..., Path], str]] = {
    "first-stage": (FirstStageRecipe, _train_first_stage, "the autoencoder that makes the latent space"),
    "diffusion": (DiffusionRecipe, _train_diffusion, "the diffusion model in the latent space"),
    "classifier": (ClassifierRecipe, _train_classifier, "the classifier of noisy latents that guides the model"),
}
# Types of options that flags give as JSON, with an example each.
JSON: dict[Any, str] = {dict: '{"name": 1}', list: '["one", "two"]', tuple: "[0, 1]"}


def add_parser(commands: Any) -> None:
    """Add the command, with a subcommand for each stage, to the subparsers."""
    parser = commands.add_parser(
        "train",
        help="train a first stage, diffusion model or classifier",
        description=f"Train on your own images. {DESCRIPTION}",
    )
    stages = parser.add_subparsers(title="stages", metavar="STAGE", required=True)
    for stage, (recipe, train, help_line) in STAGES.items():
        child: Parser = stages.add_parser(
            stage,
            help=help_line,
            description=f"Train {help_line}. {DESCRIPTION}",
            usage=f"latentdiff train {stage} [RECIPE.yaml] [--OPTION VALUE ...]",
        )
        child.set_defaults(run=run, parser=child, recipe_class=recipe, train=train)
        child.add_argument("recipe", metavar="RECIPE.yaml", nargs="?", help="YAML file of the options below")
        child.add_argument("--quiet", action="store_true", help="show no progress and print nothing but errors")
        child.add_argument(
            "--dry-run", action="store_true", help="make three steps, say what the run needs, and write nothing"
        )
        add_recipe_flags(child, recipe)


def add_recipe_flags(parser: Parser, recipe: type[DataOptions], leave_out: Collection[str] = ()) -> None:
    """Add a flag for each field; its text is converted and checked with the recipe's own values."""
    own = parser.add_argument_group("options of this stage")
    shared = parser.add_argument_group("options of every stage")
    hints, texts = typing.get_type_hints(recipe), attribute_help(recipe)
    common = {field.name for field in dataclasses.fields(Recipe)}
    for field in dataclasses.fields(recipe):
        if field.name in leave_out:
            continue
        several = any(typing.get_origin(part) is list for part in typing.get_args(hints[field.name]))
        hint = _one_of(hints[field.name])
        has_default = field.default not in (dataclasses.MISSING, None)
        default = f"(default: {field.default})" if has_default else ""
        (shared if field.name in common else own).add_argument(
            f"--{field.name}",
            type=_json(typing.get_origin(hint)) if typing.get_origin(hint) in JSON else _listed if several else str,
            default=argparse.SUPPRESS,
            metavar="VALUE|JSON" if several else _metavar(hint),
            help=f"{texts.get(field.name, '')} {default}".strip().replace("%", "%%"),
        )


def _listed(text: str) -> Any:
    """Of `str | list[str]`: text, or a list in JSON."""
    return _json(list)(text) if text.startswith("[") else text


def _one_of(hint: Any) -> Any:
    """The first type of a union that isn't None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _metavar(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "|".join(typing.get_args(hint))
    return "true|false" if hint is bool else "JSON" if origin in JSON else "VALUE"


def attribute_help(recipe: type[DataOptions]) -> dict[str, str]:
    """Field names to the texts in the "Attributes" sections of the docstrings of a class and its bases."""
    texts: dict[str, str] = {}
    for cls in reversed(recipe.__mro__):
        _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
        for match in re.finditer(r"^    (\w+): (.*(?:\n     +.*)*)", section, re.MULTILINE):
            texts[match[1]] = " ".join(match[2].split())
    return texts


def _json(kind: type) -> Callable[[str], Any]:
    """The type of flags that are JSON; what is in them is checked with the recipe."""

    def convert(text: str) -> Any:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, dict if kind is dict else list):
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is given; it must be JSON such as {JSON[kind]!r}")

    return convert


def run(args: argparse.Namespace) -> None:
    """Train, and print the folder of the results; or print what that would need."""
    names = {field.name for field in dataclasses.fields(args.recipe_class)}
    flags = {name: value for name, value in vars(args).items() if name in names}
    with console.quiet_libraries(args.quiet):
        if args.recipe is None:
            recipe = from_mapping(args.recipe_class, flags, "options")
        else:
            recipe = load_recipe(args.recipe_class, args.recipe, flags)
        lines = _dry_run(args.train, recipe) if args.dry_run else [str(args.train(recipe))]
    first_process = os.environ.get("RANK", "0") == "0"
    if first_process and not args.quiet:
        console.say("\n".join(lines))


def _dry_run(train: Callable[..., Path], recipe: Recipe) -> list[str]:
    from latentdiff.training.engine.dry_run import dry_run

    return dry_run(train, recipe)
