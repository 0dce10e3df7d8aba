"""What phases and EQ-VAE do for first stages of photographs: ``python examples/steady_first_stages.py``.

Needs h5py, to read the VGG16. Hours of one core; an interrupted run goes on where it was. Fréchet distances of 192
images say little: give ``--samples 1000``.
"""

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choosing import measured
from common import HERE, arguments, builtin_vae, overrides
from first_stage import vgg16
from photographs import photographs

from latentdiff.config import load_recipe
from latentdiff.io.files import atomic_file
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

SEEDS = (0, 1, 2)
FEATURES = "efficientnet_lite0"
CONSTANT = {"optimizer.lr_scheduler": "constant_with_warmup", "checkpoint.steps": 100, "report_to": "none"}
# What all first stages are measured by; it is trained by where a weight says so.
FIRST = {**CONSTANT, "loss.reconstruction": "l1", "loss.kl_weight": 1.2e-4}
MORE = {**FIRST, "max_train_steps": 400, "optimizer.learning_rate": 3e-4, "loss.perceptual_weight": 0.3}
DISCRIMINATOR = {
    "loss.adversarial.discriminator": {"layers": 2, "channels": 32, "norm": "group"},
    "loss.adversarial.weight": 0.1,
}
PHASES = [
    {"name": "judge", "trainable": "discriminator"},
    {"name": "sharpen", "start_share": 0.25, "trainable": "decoder"},
]
# How the first stage without EQ is trained on, each for as many steps.
CONTINUED: dict[str, dict[str, Any]] = {
    "pixels": {**MORE, "loss.perceptual_weight": 0.0},
    "and features": MORE,
    "and a new discriminator": {**MORE, **DISCRIMINATOR},
    "in phases": {**MORE, **DISCRIMINATOR, "loss.adversarial.lecam_weight": 0.05, "phases": PHASES},
}
FIGURES = {"psnr": "PSNR, dB", "ssim": "SSIM", "perceptual": "distance of VGG16's features"}
DIFFUSION = {**CONSTANT, "max_train_steps": 2000, "validation": {}}


def first_stage(name: str, data: tuple[Path, Path], options: Namespace, given: Mapping[str, Any]) -> Path:
    """The folder of a run of `photographs.yaml` with `given`, which has ended with a report on other photographs."""
    output = options.work / "runs" / "steady" / name
    if not (output / "report.json").exists():
        train, held_out = data
        shared = {
            "data.train_data_dir": str(train),
            "validation.data_dir": str(held_out),
            "validation.steps": 400,
            "loss.lpips": {"vgg16": str(vgg16(options.work)), "preprocessing": "caffe"},
            "report": {"features": FEATURES},
        }
        given = {**shared, **given, **overrides(output, options)}
        train_first_stage(load_recipe(FirstStageRecipe, HERE / "photographs.yaml", given))
    return output


def figures(output: Path) -> dict[str, float]:
    """The numbers of a first stage's report."""
    rows = json.loads((output / "report.json").read_text(encoding="utf-8"))["results"]
    return {row["metric"]: row["value"] for row in rows}


def generator_distance(vae: Path, name: str, seed: int, train: Path, options: Namespace) -> float:
    """The Fréchet distance from the photographs of what a diffusion model in a first stage makes."""
    output = options.work / "runs" / "steady" / name
    if not (output / "pipeline").exists():
        given = {**DIFFUSION, "data.train_data_dir": str(train), "vae": str(vae), "seed": seed}
        recipe = load_recipe(DiffusionRecipe, HERE / "unconditional.yaml", {**given, **overrides(output, options)})
        train_diffusion(recipe)
    return measured(output / "pipeline", output / "samples", train, options.samples)


def table(title: str, rows: Mapping[str, Sequence[Mapping[str, float]]], columns: Mapping[str, str]) -> list[str]:
    """Means over seeds and their standard deviations, in Markdown."""
    lines = [f"| {title} | {' | '.join(columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for name, found in rows.items():
        cells = [np.array([one[key] for one in found]) for key in columns]
        lines.append(f"| {name} | {' | '.join(f'{c.mean():.4g} ± {c.std():.2g}' for c in cells)} |")
    return lines


def changes(rows: Mapping[str, Sequence[Mapping[str, float]]], before: str, after: str, figure: str) -> list[str]:
    """A line on PSNR and on a figure that is better when lower, by seed."""
    pairs = list(zip(rows[before], rows[after], strict=True))
    decibels = [b["psnr"] - a["psnr"] for a, b in pairs]
    shares = [100 * (b[figure] / a[figure] - 1) for a, b in pairs]
    texts = [" / ".join(f"{value:+.{digits}f}" for value in values) for values, digits in ((decibels, 2), (shares, 1))]
    return [f"{after} against {before}: PSNR {texts[0]} dB, {figure} {texts[1]} % (seeds {', '.join(map(str, SEEDS))})"]


def main() -> None:
    """Train, measure and print two tables: of how a decoder is sharpened, and of latents with EQ-VAE and without.

    Numbers of first stages are of photographs that were not trained on; generators' samples are compared with those
    that were. The Fréchet distances are of EfficientNet-lite0's features, so no FID.
    """
    options = arguments(__doc__)
    torch.set_num_threads(1)
    data = photographs(options.work)
    start = {"model": {"pretrained_model_name_or_path": str(builtin_vae(options.work))}}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ("before", *CONTINUED)}
    latents: dict[str, list[dict[str, float]]] = {"without EQ": [], "with EQ": []}
    for seed in SEEDS:
        plain = first_stage(f"plain-{seed}", data, options, {**FIRST, **start, "seed": seed})
        rows["before"].append(figures(plain))
        for name, given in CONTINUED.items():
            model = {"pretrained_model_name_or_path": str(plain / "vae")}
            run = first_stage(
                f"{name.replace(' ', '-')}-{seed}", data, options, {**given, "model": model, "seed": seed}
            )
            rows[name].append(figures(run))
        moved = {**FIRST, **start, "seed": seed, "loss.equivariance": {}}
        stages = {"without EQ": plain, "with EQ": first_stage(f"eq-{seed}", data, options, moved)}
        for name, run in stages.items():
            short = "eq" if name == "with EQ" else "plain"
            distance = generator_distance(run / "vae", f"diffusion-{short}-{seed}", seed, data[0], options)
            latents[name].append({**figures(run), "generator": distance})
    columns = {**FIGURES, "rfrechet": "Fréchet distance of other features"}
    lines = table("decoder", rows, columns)
    lines += ["", *changes(rows, "before", "in phases", "perceptual")]
    lines += ["", *table("latents", latents, {**columns, "generator": "generator's Fréchet distance"})]
    lines += ["", *changes(latents, "without EQ", "with EQ", "generator")]
    text = "\n".join(lines)
    print(text)
    with atomic_file(options.work / "steady-first-stages.md") as aside:
        aside.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
