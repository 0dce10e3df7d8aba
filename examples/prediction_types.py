"""Epsilon, v and a flow for equal steps on the data of class_to_image.py: ``python examples/prediction_types.py``.

Whatever was trained, sampled or measured before is used again, so an interrupted run goes on. A row is printed as soon
as it is known.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from class_to_image import data
from common import HERE, arguments, builtin_vae, overrides, report
from emoji import MANY, sprites_of
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import in_batches, pictures

from latentdiff import DiffusionPipeline
from latentdiff.config import load_recipe
from latentdiff.evaluation.samples import evaluate_samples
from latentdiff.io.files import atomic_folder
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.recipes import DiffusionRecipe

FEATURES = "efficientnet_lite0"
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195, "timestep_spacing": "trailing"}
FLOW = {"noise_schedule": {"prediction_type": "flow_prediction"}}
VARIANTS: dict[str, dict[str, Any]] = {
    "epsilon": {"noise_schedule": {**BETAS, "prediction_type": "epsilon"}},
    "v": {"noise_schedule": {**BETAS, "prediction_type": "v_prediction"}},
    "v, zero terminal SNR": {
        "noise_schedule": {**BETAS, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    },
    "flow": FLOW,
    "flow, logit-normal": {**FLOW, "timesteps.density": "logit_normal"},
}
SEEDS = (0, 1, 2)
SCALES = (1.0, 3.0)
STEPS = 25


def run_of(name: str, encoded: str, train: Path, vae: Path, options: Namespace, recipe: Mapping[str, Any]) -> Path:
    """The pipeline that the recipe of class_to_image.py, with options in place of its own, has trained as `name`.

    The latents of the run `encoded`, if it was there before, are used again.
    """
    output, latents = options.work / "runs" / name, options.work / "runs" / encoded / "latents"
    if not (output / "pipeline").exists():
        given = {"data.train_data_dir": str(train), "vae": str(vae), **overrides(output, options), **recipe}
        if name != encoded and latents.exists():
            given["latents_dir"] = str(latents)
        train_diffusion(load_recipe(DiffusionRecipe, HERE / "class-to-image.yaml", given))
    return output / "pipeline"


def distance(pipe: Any, samples: Path, held_out: Path, count: int, **settings: Any) -> float:
    """The Fréchet distance of samples, which are made unless they are there, from images that were held out.

    The samples' classes are those of these images, in turn.
    """
    if not samples.exists():
        rows, _ = read_images(held_out, count)
        labels = [rows[number % len(rows)]["label"] for number in range(count)]
        made = in_batches(
            lambda part, seed: pipe(labels[part], seed=10**6 + seed, output_type="np", **settings).images, count
        )
        with atomic_folder(samples) as aside:
            for number, image in enumerate(pictures(made)):
                image.save(aside / f"{number:05d}.png")
    return evaluate_samples(samples, held_out, metrics=["frechet"], features=FEATURES).value("frechet")


def quiet(folder: Path) -> Any:
    """The pipeline of a folder, without bars."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def main() -> None:
    """Train each with each seed, and print the mean distance and its standard deviation over seeds."""
    options = arguments(__doc__)
    train, held_out = data(options, sprites_of(MANY, options.work))
    vae, table = builtin_vae(options.work), {}
    folder = options.work / "prediction-types"
    folder.mkdir(parents=True, exist_ok=True)
    for variant, recipe in VARIANTS.items():
        found: dict[float, list[float]] = {scale: [] for scale in SCALES}
        for seed in SEEDS:
            name = f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
            pipe = quiet(run_of(name, "epsilon-0", train, vae, options, {**recipe, "seed": seed}))
            for scale, values in found.items():
                settings = {"guidance_scale": scale, "num_inference_steps": STEPS}
                values.append(distance(pipe, folder / f"{name}-{scale:g}", held_out, options.samples, **settings))
        table[variant] = [number for values in found.values() for number in (fmean(values), stdev(values))]
        columns = [column for scale in SCALES for column in (f"guidance {scale:g}", "± over seeds")]
        report("prediction-types", columns, table, options.work)


if __name__ == "__main__":
    main()
