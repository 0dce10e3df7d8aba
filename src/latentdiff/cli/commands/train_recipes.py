"""`latentdiff train RECIPE...`: the runs of several recipes, one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Unpack

from cyclopts import Parameter

from latentdiff.bulk import processes
from latentdiff.cli import console
from latentdiff.cli.commands.train import kind_of, stage_of
from latentdiff.cli.options import Flag
from latentdiff.cli.recipes import recipe_flags
from latentdiff.config import load_recipe, options_of
from latentdiff.errors import InputError
from latentdiff.training.recipes import Recipe

SHARED = (  # options that mean the same to every stage, and aren't a run's own
    "max_train_steps",
    "train_batch_size",
    "gradient_accumulation_steps",
    "mixed_precision",
    "logging_steps",
    "report_to",
    "checkpoint.steps",
    "validation.steps",
    "data.num_workers",
    "seed",
)
OTHERS = [option.name for option in options_of(Recipe) if option.name not in SHARED]


def train_recipes(
    *recipes: Annotated[str, Parameter(name="RECIPE.yaml", negative=())],
    quiet: Flag = False,
    **options: str,
) -> None:
    """Train what several recipes say, one after another, each when what it starts from is there.

    A run that has ended is left as it is, and one that was interrupted goes on from its last checkpoint, so the same
    command does for both. All recipes are checked before the first step. At the end there is a table of what the last
    validations found. For all options of a stage, see latentdiff train STAGE --help.

    Args:
        quiet: Show no progress and print nothing but errors.
    """
    console.announce("reading the recipes, and loading what trains them", quiet)
    with console.quiet_libraries(quiet):
        made = read_recipes(recipes, options)
        from latentdiff.training.chain import make_chain, table

        chain = make_chain(made)
        left = [run for run in chain if run.state != "finished"]
        if processes.count() > 1 and len(left) > 1:  # the launcher's store serves one process group
            raise InputError(
                f"several processes train one recipe at a time, and {len(left)} are left; give {left[0].name} first"
            )
        for run in chain:
            if processes.rank() == 0 and not quiet:
                console.say(f"{run.name}: {SAID[run.state]} {run.recipe.output_dir}")
            if run.state != "finished":
                stage_of(run.recipe).trainer()(run.recipe)
    if processes.rank() == 0 and not quiet:
        console.say("\n".join(table([run.recipe for run in chain])))


SAID = {"finished": "has ended, in", "begun": "goes on in", "new": "begins in"}
train_recipes.__annotations__["options"] = Unpack[recipe_flags(Recipe, leave_out=OTHERS)]


def read_recipes(paths: tuple[str, ...], flags: dict[str, str]) -> dict[str, Recipe]:
    """The recipes by the names of their files; flags win over each of them.

    Raises:
        ConfigError: If one is no recipe.
        InputError: If one is given twice, or none.
    """
    if not paths:
        raise InputError("required: RECIPE.yaml; give the recipes of what is to be trained")
    made: dict[str, Recipe] = {}
    for path in paths:
        if any(Path(path).resolve() == Path(other).resolve() for other in made):
            raise InputError(f"{path} is given twice; give each recipe once")
        made[path] = load_recipe(kind_of(path), path, flags)
    return made
