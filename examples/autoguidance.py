"""A model guided by itself at an earlier step: ``python examples/autoguidance.py`` (Karras et al. 2024).

Whatever was trained, sampled or measured before is used again, so an interrupted run goes on.
"""

from typing import Any

from choosing import measured
from class_to_image import data
from common import HERE, arguments, builtin_vae, overrides, report
from emoji import MANY, sprites_of

from latentdiff import AutoGuidance, DiffusionPipeline
from latentdiff.config import load_recipe
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.recipes import DiffusionRecipe

EARLY = (0.0625, 0.125, 0.25, 0.5)  # of all steps
SCALES = (1.5, 2.0, 3.0)


def main() -> None:
    """Train the model of unconditional.py and keep early steps; print distances from images that were held out."""
    options = arguments(__doc__)
    train, held_out = data(options, sprites_of(MANY, options.work))
    steps = options.max_train_steps or load_recipe(DiffusionRecipe, HERE / "unconditional.yaml", {}).max_train_steps
    early = [max(1, round(share * steps)) for share in EARLY]
    run = options.work / "runs" / "autoguidance"
    if not (run / "pipeline").exists():
        given = {"data.train_data_dir": str(train), "vae": str(builtin_vae(options.work)), **overrides(run, options)}
        given |= {"checkpoint.export_steps": early, "validation": {}}
        train_diffusion(load_recipe(DiffusionRecipe, HERE / "unconditional.yaml", given))
    folder = options.work / "autoguidance"
    folder.mkdir(parents=True, exist_ok=True)

    def distance(name: str, **guided: Any) -> float:
        return measured(run / "pipeline", folder / name, held_out, options.samples, **guided)

    unguided = distance("unguided")
    table = {}
    for step in early:
        weak = DiffusionPipeline.from_pretrained(run / "steps" / str(step))
        row = [distance(f"{step}-{scale}", guidance=[AutoGuidance(weak, scale)]) for scale in SCALES]
        table[f"guided by step {step}"] = [unguided, *row]
        report("autoguidance", ["unguided", *(f"scale {scale}" for scale in SCALES)], table, options.work)


if __name__ == "__main__":
    main()
