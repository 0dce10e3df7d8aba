"""A trained pipeline to the hub, with a card that says how it was made."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from PIL import Image

from latentdiff.hub.card import GALLERY, PicturedCard, model_card
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.tasks import task_of_pipeline
from latentdiff.training.engine.belongings import PICTURES
from latentdiff.training.recipes import DiffusionRecipe
from latentdiff.types import JSON

HERE_ALONE = ("output_dir", "resume_from_checkpoint", "overwrite_output_dir", "push_to_hub")  # no part of a recipe
POINTS = 10  # of the loss's course
SHOWN = ("unconditional", "class-to-image")  # tasks whose sheets of samples show nothing of the data


def publish(recipe: DiffusionRecipe, folder: Path) -> None:
    """Upload `folder/pipeline` to where the recipe's `push_to_hub` says.

    Raises:
        HubError: If the upload fails; the folder stays.
    """
    assert recipe.push_to_hub is not None
    pipeline = DiffusionPipeline.from_pretrained(folder / "pipeline")
    pipeline.push_to_hub(recipe.push_to_hub, card=training_card(pipeline, recipe, folder))


def training_card(pipeline: DiffusionPipeline, recipe: DiffusionRecipe, folder: Path) -> PicturedCard:
    """The pipeline's card with data, steps, metrics, the last samples, the course of the loss and the recipe.

    It names no absolute path.

    Args:
        pipeline: What was trained.
        recipe: How it was trained.
        folder: The run's folder, with its `log.jsonl` and the pictures of its validations.
    """
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    losses = [line for line in lines if "loss" in line]
    validated = [line for line in lines if "validation/loss" in line]
    metrics = {"training loss": losses[-1]["loss"]} if losses else {}
    if validated:
        metrics["lowest loss of held-out images"] = min(line["validation/loss"] for line in validated)
    folders = [recipe.data.train_data_dir or "", *(one.dir for one in recipe.data.train_data)]
    data = recipe.data.dataset_name or ", ".join(filter(None, (Path(folder).name for folder in folders)))
    card = model_card(pipeline, repo_id=recipe.push_to_hub, dataset=data, metrics=metrics)
    chosen = sorted({round(place * (len(losses) - 1) / (POINTS - 1)) for place in range(POINTS)}) if losses else []
    rows = [f"| {losses[i]['step']:.0f} | {losses[i]['images']:.0f} | {losses[i]['loss']:.4g} |" for i in chosen]
    course = "\n".join(["| step | images | loss |", "| --- | --- | --- |", *rows])
    options = yaml.safe_dump(_given(recipe), sort_keys=False)
    body = f"## Training\n\n{recipe.max_train_steps} steps with this recipe:\n\n```yaml\n{options}```\n\n{course}\n"
    if (sheet := _sheet(pipeline, recipe, folder)) is None:
        return card.with_section(body)
    place, step = f"{GALLERY}/{sheet.name}", sheet.stem.rpartition("-")[2]
    with Image.open(sheet) as picture:
        picture.load()
    return card.with_section(f"{body}\n![Samples at step {step}]({place})\n", {place: picture})


def _sheet(pipeline: DiffusionPipeline, recipe: DiffusionRecipe, folder: Path) -> Path | None:
    """The last sheet of samples; None if there is none, or it shows images or captions of the data: they stay here."""
    spec = task_of_pipeline(type(pipeline).__name__)
    task = spec.name if spec else ""
    if task not in SHOWN and not (task == "text-to-image" and recipe.validation.prompts):
        return None
    sheets = (folder / PICTURES).glob("samples-*.png")
    return max(sheets, key=lambda path: int(path.stem.rpartition("-")[2]), default=None)


def _given(recipe: DiffusionRecipe) -> JSON:
    """The options that were given, without where things were on this machine."""
    given = recipe.model_dump(exclude_unset=True, exclude={*HERE_ALONE})
    return {name: _local(value) for name, value in given.items()}


def _local(value: object) -> object:
    """The value with the last part of absolute paths in place of them."""
    if isinstance(value, dict):
        return {name: _local(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_local(part) for part in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
