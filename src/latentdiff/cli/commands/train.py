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
from latentdiff.config import json_schema, load_recipe, options_of, stacked
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


def stage_command(stage: TrainingStage) -> Callable[..., None]:
    """The command of a stage, whose flags are the options of its recipes."""

    def train(
        recipe: Annotated[str | None, Parameter(name="RECIPE.yaml")] = None,
        /,
        *,
        base: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
        dry_run: Flag = False,
        schema: Flag = False,
        quiet: Flag = False,
        **options: str,
    ) -> None:
        """Train on your own images.

        Args:
            recipe: YAML file of the options below.
            base: YAML files below it, of which later ones win over earlier ones.
            dry_run: Make three steps, say what the run needs, and write nothing.
            schema: Print the JSON schema of recipes, by which editors complete and check them.
            quiet: Show no progress and print nothing but errors.
        """
        if schema:
            print_schema(stage.recipe)
            return
        console.announce("reading the recipe, and loading what trains it", quiet)
        with console.quiet_libraries(quiet):
            files = [*(base or []), *([] if recipe is None else [recipe])]
            made = load_recipe(stage.recipe, files, options)
            lines = [*stacked(files, options), *_needs(stage, made)] if dry_run else [str(stage.trainer()(made))]
        if processes.rank() == 0 and not quiet:
            console.say("\n".join(lines))

    train.__annotations__["options"] = Unpack[recipe_flags(stage.recipe)]
    return train


def with_values(words: Sequence[str]) -> list[str]:
    """The words of a command line `train STAGE ...`, in which an option of true or false may stand alone for true."""
    found: list[str] = []
    switches = {option.name for option in options_of(STAGES[words[1]].recipe) if option.field.annotation is bool}
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
