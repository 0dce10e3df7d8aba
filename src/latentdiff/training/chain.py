"""Several recipes as one training: which of them needs what another makes, and how far each has come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentdiff.config import check
from latentdiff.errors import CheckpointError, InputError
from latentdiff.hub.find import is_hub_id
from latentdiff.training.data import check_condition, open_to_check
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.belongings import LOG, PICTURES, REPORT, check_start, results
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.resume_check import check_options
from latentdiff.training.first_stage.options import PRETRAINED
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe

State = Literal["finished", "begun", "new"]
FOUND = "validation/"  # what the names of validation's values begin with in the log
FACTS = ("best_step", "without_gain")  # of the run, not of its images
SHOW = {  # how to see more of a model, by its task
    "unconditional": "sample --model {model} -n 16 -o samples",
    "text-to-image": 'generate "a caption" --model {model} -o image.png',
    "class-to-image": "class 0-3 --model {model} -o images",
    "layout-to-image": "layout boxes.json --model {model} -o images",
    "semantic-to-image": "semantic maps --model {model} -o images",
    "super-resolution": "upscale photos --model {model} -o enlarged",
    "hybrid": "info {model}",  # it is called in Python
    "inpaint": "inpaint photos --mask masks --model {model} -o filled",
}


@dataclass(frozen=True)
class Run:
    """A run of a chain.

    Attributes:
        name: That of its recipe's file.
        recipe: Its recipe, by which it goes on from its last checkpoint where it has begun.
        state: How far it has come.
    """

    name: str
    recipe: Recipe
    state: State


def make_chain(recipes: Mapping[str, Recipe]) -> list[Run]:
    """The runs of recipes, each after what it starts from, with all checked that can be before the first step.

    Raises:
        LatentDiffError: If recipes don't belong together, or a run would end for its folder, its recipe or its data.
    """
    order = in_order(recipes)
    chain: dict[str, Run] = {}
    for name, makers in order.items():
        recipe, state = recipes[name], state_of(name, recipes[name])
        unfinished = [maker for maker in makers if chain[maker].state != "finished"]
        check(
            state == "new" or not unfinished,
            f"{recipe.output_dir} has begun with what {' and '.join(unfinished)} made before, which is to be trained "
            f"further; set overwrite_output_dir in {name}, or give it another output_dir",
        )
        if state == "begun" and recipe.resume_from_checkpoint is None:
            recipe = recipe.replace(resume_from_checkpoint="latest")
        if state != "finished":
            _check_ahead(recipe)
        chain[name] = Run(name, recipe, state)
    return list(chain.values())


def in_order(recipes: Mapping[str, Recipe]) -> dict[str, list[str]]:
    """The names of recipes, each after those that make what it starts from, and else as given; with the names of these.

    Args:
        recipes: The recipes by the names of their files.

    Raises:
        ConfigError: If two write to one folder, need each other, or don't belong together.
        InputError: If one starts from what isn't there and none of the others makes.
    """
    makers: dict[Path, str] = {}
    for name, recipe in recipes.items():
        folder = Path(recipe.output_dir).resolve()
        check(
            folder not in makers,
            f"{makers.get(folder)} and {name} both have the output_dir {recipe.output_dir}; give each one of its own",
        )
        makers[folder] = name
    needs = {name: _makers(name, recipe, recipes, makers) for name, recipe in recipes.items()}
    order: dict[str, list[str]] = {}
    while len(order) < len(recipes):
        ready = [name for name in recipes if name not in order and set(needs[name]) <= order.keys()]
        left = [name for name in recipes if name not in order]
        check(bool(ready), f"{' and '.join(left)} need each other's results; one has to come first")
        order[ready[0]] = needs[ready[0]]
    return order


def _makers(name: str, recipe: Recipe, recipes: Mapping[str, Recipe], makers: Mapping[Path, str]) -> list[str]:
    """The names of the recipes that make what another starts from."""
    found = (_maker(name, option, start, recipes, makers) for option, start in _starts(recipe).items())
    return list(dict.fromkeys(maker for maker in found if maker is not None))


def _maker(name: str, option: str, start: str, recipes: Mapping[str, Recipe], makers: Mapping[Path, str]) -> str | None:
    """The name of the recipe that makes what an option of another names, if one of them does."""
    path = Path(start).resolve()
    maker = next((makers[place] for place in (path, *path.parents) if place in makers), None)
    first_stages = [other for other, given in recipes.items() if isinstance(given, FirstStageRecipe)]
    if option == "vae" and maker is None and first_stages:
        first = recipes[first_stages[0]]
        check(
            False,
            f"{name} is for the first stage {start}, and {first_stages[0]} makes {Path(first.output_dir, 'vae')}; give "
            "recipes of one first stage, or train them apart",
        )
    if maker is None:
        if not path.exists() and not is_hub_id(start) and not start.startswith("builtin:"):
            raise InputError(f"{name}: {option} is {start}, which isn't there; give the recipe that makes it, too")
        return None
    made = recipes[maker]
    check(
        not (isinstance(made, DiffusionRecipe) and made.lora is not None and not made.lora.merge),
        f"{name}: {option} is {start}, but {maker} makes an adapter and no model; set lora.merge there",
    )
    ours, theirs = recipes[name].data.value_range, made.data.value_range
    check(
        ours == theirs,
        f"data.value_range is {ours} in {name}, and {theirs} in {maker}, whose first stage would see other values; "
        "give both the same",
    )
    return maker


def _starts(recipe: Recipe) -> dict[str, str]:
    """The options that name what a recipe starts from, with their values."""
    places: dict[str, str | None] = {}
    if isinstance(recipe, FirstStageRecipe):
        places = {f"model.{PRETRAINED}": recipe.model.get(PRETRAINED)}
    if isinstance(recipe, (DiffusionRecipe, ClassifierRecipe)):
        places = {PRETRAINED: recipe.pretrained_model_name_or_path}
    if isinstance(recipe, DiffusionRecipe):
        places |= {"vae": recipe.vae, "distill.teacher": None if recipe.distill is None else recipe.distill.teacher}
    return {option: start for option, start in places.items() if start is not None}


def state_of(name: str, recipe: Recipe) -> State:
    """How far a recipe's run has come: to its end, to a checkpoint, or nowhere.

    A run is finished when its result is there and no step is left, also where its checkpoints have been deleted.

    Raises:
        ConfigError: If a finished run was of another recipe.
        CheckpointError: If there is a result without the steps that the recipe asks for, and no checkpoint.
    """
    if recipe.overwrite_output_dir:
        return "new"
    made, points = results(recipe), checkpoint.existing(Path(recipe.output_dir))
    if made and (not points or checkpoint.step_of(points[-1]) >= recipe.max_train_steps):
        if points:
            check_options(points[-1], recipe)
        return "finished"
    return "begun" if points else "new"


def _check_ahead(recipe: Recipe) -> None:
    """Check what would end a run of a chain hours later: its folder, its data and what its condition is made of.

    Raises:
        LatentDiffError: If something would.
    """
    check_start(recipe)
    errors, _ = check_condition(open_to_check(recipe.data, recipe), recipe)
    if errors:
        raise InputError(errors[0])


def found(recipe: Recipe) -> tuple[int, dict[str, float], list[Path]]:
    """The step of a run's last validation, the values that it found, and its pictures; 0 and nothing without one."""
    log = Path(recipe.output_dir, LOG)
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except ValueError as error:
            raise CheckpointError(f"{log} has a line that is no JSON ({error}); remove it") from None
        named = {name.removeprefix(FOUND): value for name, value in values.items() if name.startswith(FOUND)}
        measured = {name: value for name, value in named.items() if name not in FACTS}
        if measured:
            step = int(values["step"])
            return step, measured, sorted(Path(recipe.output_dir, PICTURES).glob(f"*-{step}.png"))
    last = max(Path(recipe.output_dir, PICTURES).glob("*.png"), key=lambda path: path.stat().st_mtime, default=None)
    return 0, {}, [] if last is None else [last]


def table(recipes: Sequence[Recipe]) -> Iterator[str]:
    """What validation found last of each run, as a table in Markdown, its pictures, and how to see more."""
    pictures: list[Path] = []
    yield "| run | step | measured | value |"
    yield "|---|---|---|---|"
    for recipe in recipes:
        step, values, drawn = found(recipe)
        pictures += drawn
        for name, value in values.items():
            yield f"| {recipe.output_dir} | {step:,} | {name} | {value:.4g} |"
    for picture in pictures:
        yield f"picture: {picture}"
    for recipe in recipes:
        if (report := Path(recipe.output_dir, f"{REPORT}.md")).is_file():
            yield f"report: {report}"
    last = recipes[-1]
    if isinstance(last, DiffusionRecipe) and last.lora is None:
        task = "unconditional" if last.conditioning is None else last.conditioning.type
        show = SHOW.get(task, "info {model}").format(model=last.output_dir)
        yield f"next: latentdiff {show}"
