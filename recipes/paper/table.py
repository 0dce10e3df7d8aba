"""The table of README.md, from the recipes themselves: `python recipes/paper/table.py`."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from latentdiff.config import load_recipe
from latentdiff.data.images import ImageFolder
from latentdiff.training.diffusion.build import new_pipeline
from latentdiff.training.first_stage.autoencoder import make_first_stage
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

HERE = Path(__file__).parent
HEADER = "| recipe | data | makes | batch | learning rate | steps | parameters |\n|---|---|---|---|---|---|---|"
# All that a recipe may want to know of its images; ImageNet's classes are a thousand.
IMAGE = {"text": "", "label": 999, "objects": [{"class": 0, "box": [0, 0, 2, 2]}], "label_map": "0.png"}


def names() -> list[str]:
    """The recipes, first stages first."""
    return sorted((path.stem for path in HERE.glob("*.yaml")), key=lambda name: (not is_first_stage(name), name))


def is_first_stage(name: str) -> bool:
    """Whether the recipe makes a first stage; the others are diffusion models."""
    return name.startswith(("kl-", "vq-"))


def load(name: str) -> FirstStageRecipe | DiffusionRecipe:
    """The recipe of a name."""
    path = HERE / f"{name}.yaml"
    if is_first_stage(name):
        return load_recipe(FirstStageRecipe, path)
    return load_recipe(DiffusionRecipe, path)


def networks(
    recipe: FirstStageRecipe | DiffusionRecipe, vae: torch.nn.Module | None = None
) -> dict[str, torch.nn.Module]:
    """A recipe's networks at full size, on the meta device, made by the code that trains them.

    Args:
        recipe: Of either stage.
        vae: The first stage of a diffusion model; by default that of the recipe which the recipe names.
    """
    with torch.device("meta"), tempfile.TemporaryDirectory() as folder:
        if isinstance(recipe, FirstStageRecipe):
            return {"vae": make_first_stage(recipe.model, 3, recipe.data.resolution)}
        vae = vae or networks_of(first_stage_of(recipe))["vae"]
        Image.new("L", (8, 8)).save(Path(folder, "0.png"))
        Path(folder, "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", **IMAGE}), encoding="utf-8")
        assert recipe.conditioning is not None
        parts = new_pipeline(recipe, recipe.conditioning, ImageFolder(folder, 8), vae).components
    return {part: network for part, network in parts.items() if isinstance(network, torch.nn.Module)}


@cache
def networks_of(name: str) -> dict[str, torch.nn.Module]:
    """The networks of a recipe by its name."""
    return networks(load(name))


def first_stage_of(recipe: DiffusionRecipe) -> str:
    """The name in `vae: runs/NAME/vae`."""
    return Path(str(recipe.vae)).parent.name


def rate_of(recipe: FirstStageRecipe | DiffusionRecipe) -> float:
    """The highest learning rate, where no schedule lowers it."""
    return recipe.optimizer.learning_rate * (recipe.train_batch_size if recipe.optimizer.scale_lr else 1)


def row(name: str) -> str:
    """The recipe's line of the table; counted is what the recipe trains."""
    recipe = load(name)
    made, kept = "first stage", ""
    if isinstance(recipe, DiffusionRecipe) and recipe.conditioning is not None:
        made, kept = f"{recipe.conditioning.type} on {first_stage_of(recipe)}", "vae"
    parts = networks_of(name).items()
    trained = sum(p.numel() for part, network in parts if part != kept for p in network.parameters())
    data, batch = Path(str(recipe.data.train_data_dir)).parts[1], recipe.train_batch_size
    cells = [f"[{name}]({name}.yaml)", data, made, batch, f"{rate_of(recipe):.3g}"]
    return "| " + " | ".join(map(str, [*cells, f"{recipe.max_train_steps:,}", f"{trained:,}"])) + " |"


def table() -> str:
    """All of it."""
    return "\n".join([HEADER, *map(row, names())])


if __name__ == "__main__":
    print(table())
