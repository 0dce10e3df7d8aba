"""`latentdiff train`: the training stages, their options given by a recipe and by flags."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from latentdiff.bulk import processes
from latentdiff.cli import console
from latentdiff.cli.options import Flag
from latentdiff.cli.recipes import recipe_flags
from latentdiff.config import json_schema, load_recipe, options_of
from latentdiff.reading import parse_yaml, read_text
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe, Recipe


@dataclass(frozen=True)
class TrainingStage:
    """A stage of training.

    Attributes:
        recipe: The class of its recipes.
        function: What trains, as "module:function".
    """

    recipe: type[Recipe]
    function: str

    def trainer(self) -> Callable[..., Path]:
        """The function; imports torch."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Path] = getattr(importlib.import_module(module), name)
        return function


STAGES = {
    "first-stage": TrainingStage(FirstStageRecipe, "latentdiff.training.first_stage.task:train_first_stage"),
    "diffusion": TrainingStage(DiffusionRecipe, "latentdiff.training.diffusion.task:train_diffusion"),
    "classifier": TrainingStage(ClassifierRecipe, "latentdiff.training.classifier:train_classifier"),
}


def stage_of(recipe: Recipe) -> TrainingStage:
    """The stage that a recipe is of."""
    return next(stage for stage in STAGES.values() if isinstance(recipe, stage.recipe))


def kind_of(path: str | Path) -> type[Recipe]:
    """The class of the recipe in a file: the one that knows most of its options; whether it is right is not checked."""
    try:
        values = parse_yaml(read_text(Path(path)))
        given = set(values) if isinstance(values, dict) else set()
    except (OSError, ValueError):
        given = set()  # what is wrong with it is said when it is read
    return min((stage.recipe for stage in STAGES.values()), key=lambda recipe: len(given - set(recipe.model_fields)))


def stage_command(stage: TrainingStage) -> Callable[..., None]:
    """The command of a stage, whose flags are the options of its recipes."""

    def train(
        recipe: Annotated[str | None, Parameter(name="RECIPE.yaml")] = None,
        /,
        *,
        dry_run: Flag = False,
        schema: Flag = False,
        quiet: Flag = False,
        **options: str,
    ) -> None:
        """Train on your own images.

        Args:
            recipe: YAML file of the options below.
            dry_run: Make three steps, say what the run needs, and write nothing.
            schema: Print the JSON schema of recipes, by which editors complete and check them.
            quiet: Show no progress and print nothing but errors.
        """
        if schema:
            print_schema(stage.recipe)
            return
        console.announce("reading the recipe, and loading what trains it", quiet)
        with console.quiet_libraries(quiet):
            made = load_recipe(stage.recipe, recipe, options)
            lines = _needs(stage, made) if dry_run else [str(stage.trainer()(made))]
        if processes.rank() == 0 and not quiet:
            console.say("\n".join(lines))

    train.__annotations__["options"] = Unpack[recipe_flags(stage.recipe)]
    return train


def with_values(words: Sequence[str]) -> list[str]:
    """The words of a command line `train ...`, in which an option of true or false may stand alone for true."""
    found: list[str] = []
    stage = STAGES.get(words[1])
    options = options_of(Recipe if stage is None else stage.recipe)
    switches = {option.name for option in options if option.field.annotation is bool}
    for place, word in enumerate(words):
        found.append(word)
        if (
            word.startswith("--")
            and word[2:].replace("-", "_") in switches
            and all(following.startswith("--") for following in words[place + 1 : place + 2])
        ):
            found.append("true")
    return found


first_stage, diffusion, classifier = map(stage_command, STAGES.values())


def print_schema(*recipes: type[Recipe]) -> None:
    """Print the JSON schema of recipes, by which editors complete and check them."""
    console.say(json.dumps(json_schema(*recipes), indent=2))


def schema() -> None:
    """Print the JSON schema of the recipes of all stages."""
    print_schema(*(stage.recipe for stage in STAGES.values()))


def _needs(stage: TrainingStage, recipe: Recipe) -> list[str]:
    from latentdiff.training.engine.dry_run import dry_run

    return dry_run(stage.trainer(), recipe)
