"""`latentdiff train`: the training stages, their options given by a recipe and by flags."""

from __future__ import annotations

import argparse
import json
import os
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from latentdiff.cli import console
from latentdiff.cli.parser import Parser
from latentdiff.config import Option, Part, json_schema, load_recipe, options_of
from latentdiff.config.values import members
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe, Recipe

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


def add_parser(commands: Any) -> None:
    """Add the command, with a subcommand for each stage, to the subparsers."""
    parser = commands.add_parser(
        "train",
        help="train a first stage, diffusion model or classifier",
        description=f"Train on your own images. {DESCRIPTION}",
    )
    parser.add_argument("--schema", action=_Schema, recipes=[recipe for recipe, _, _ in STAGES.values()])
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
        child.add_argument("--schema", action=_Schema, recipes=[recipe])
        add_recipe_flags(child, recipe)


class _Schema(argparse.Action):
    """Prints the JSON schema of recipes, and ends as `--help` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, recipes: list[type[Recipe]]) -> None:
        text = "print the JSON schema of recipes, by which editors complete and check them"
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=text)
        self.recipes = recipes

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        console.say(json.dumps(json_schema(*self.recipes), indent=2))
        parser.exit()


def add_recipe_flags(parser: Parser, recipe: type[Part], leave_out: Collection[str] = ()) -> None:
    """Add a flag for each option, by its dotted name; the recipe converts and checks its text."""
    own = parser.add_argument_group("options of this stage")
    shared = parser.add_argument_group("options of every stage")
    common = {found.name for found in options_of(Recipe)}
    by_name: dict[str, list[Option]] = {}
    for found in options_of(recipe):
        by_name.setdefault(found.name, []).append(found)
    for name, options in by_name.items():
        if name in leave_out:
            continue
        default = options[0].field.default
        shown = f"(default: {default})" if isinstance(default, (str, int, float)) and len(options) == 1 else ""
        (shared if name in common else own).add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            metavar="|".join(dict.fromkeys(_metavar(found.field.annotation) for found in options)),
            help=f"{options[0].description} {shown}".strip().replace("%", "%%"),
        )


def _metavar(hint: object) -> str:
    kinds = [kind for kind in members(hint) if kind is not type(None)]
    if len(kinds) > 1:
        return "VALUE|JSON"
    if typing.get_origin(kinds[0]) is typing.Literal:
        return "|".join(typing.get_args(kinds[0]))
    return "true|false" if kinds[0] is bool else "VALUE" if kinds[0] in (int, float, str) else "JSON"


def run(args: argparse.Namespace) -> None:
    """Train, and print the folder of the results; or print what that would need."""
    names = {found.name for found in options_of(args.recipe_class)}
    flags = {name: value for name, value in vars(args).items() if name in names}
    with console.quiet_libraries(args.quiet):
        recipe = load_recipe(args.recipe_class, args.recipe, flags)
        lines = _dry_run(args.train, recipe) if args.dry_run else [str(args.train(recipe))]
    first_process = os.environ.get("RANK", "0") == "0"
    if first_process and not args.quiet:
        console.say("\n".join(lines))


def _dry_run(train: Callable[..., Path], recipe: Recipe) -> list[str]:
    from latentdiff.training.engine.dry_run import dry_run

    return dry_run(train, recipe)
