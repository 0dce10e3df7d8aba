"""Trains the built-in models of all tasks but text in turns: ``python recipes/emoji/train_tasks.py --rounds 10``.

In each round every recipe comes as far as that share of its ``max_train_steps``, so all models can be used after the
first. What is done is not done again: an interrupted training goes on where it was.
"""

import argparse
from pathlib import Path

from latentdiff.config import load_recipe
from latentdiff.training.chain import state_of
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.recipes import DiffusionRecipe

HERE = Path(__file__).resolve().parent
TASKS = ("semantic", "upscale", "class", "inpaint", "unconditional", "layout")
SAME_LATENTS = {"layout": "semantic", "inpaint": "class", "unconditional": "class"}  # their images are encoded once

STEPS = "steps.txt"  # in a run's folder: those that its pipeline has seen


def recipe_of(name: str, share: float) -> DiffusionRecipe:
    """The recipe of a task up to a share of its steps."""
    steps = load_recipe(DiffusionRecipe, HERE / f"{name}.yaml").max_train_steps
    given: dict[str, object] = {"max_train_steps": max(1, round(share * steps)), "resume_from_checkpoint": "auto"}
    maker = SAME_LATENTS.get(name)
    latents = Path(f"runs/emoji-{maker}/latents")
    if maker and latents.exists():
        given["latents_dir"] = str(latents)
    return load_recipe(DiffusionRecipe, HERE / f"{name}.yaml", given)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="default: all")
    options = parser.parse_args()
    for number in range(1, options.rounds + 1):
        for name in options.tasks:
            recipe = recipe_of(name, number / options.rounds)
            if state_of(name, recipe) != "finished":
                print(f"round {number} of {options.rounds}: {name}, to step {recipe.max_train_steps:,}", flush=True)
                folder = train_diffusion(recipe)
                (folder / STEPS).write_text(f"{recipe.max_train_steps}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
