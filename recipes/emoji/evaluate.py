"""Measures a model on captions of emoji scenes: ``python recipes/emoji/evaluate.py MODEL --json scores.json``.

Every number stands beside the same number for real renders (with the data's own jitter), for real renders that went
through the model's first stage, and for an image that has nothing to do with the caption (chance). The module
``emoji_scenes.scores`` defines the metrics and ``emoji_scenes.trials`` the rows. Without MODEL, only the real renders
are measured.
"""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from emoji_scenes import catalogue, images, sources
from emoji_scenes.captions import canonical
from emoji_scenes.colours import BACKGROUNDS, TINTS
from emoji_scenes.features import Features
from emoji_scenes.grammar import Scene
from emoji_scenes.grid import PROMPTS, sheet
from emoji_scenes.render import Array, render_sprites
from emoji_scenes.scores import Judge
from emoji_scenes.trials import trials
from tqdm import tqdm

Table = dict[str, dict[str, dict[str, float]]]


def chance(metric: str, objects: int) -> float:
    """What a guess that ignores the caption scores."""
    return {
        "top1": 1 / objects,
        "top5": 5 / objects,
        "both": (5 / objects) ** 2,
        "swapped": (5 / objects) ** 2,
        "background": 1 / len(BACKGROUNDS),
        "colour": 1 / len(TINTS),
        "relation": 1 / 2,
    }[metric]


def measure(judge: Judge, scenes: Sequence[Scene], columns: dict[str, list[Array]]) -> dict[str, dict[str, float]]:
    """Mean of each metric over the scenes, as ``{metric: {column: value}}``."""
    result: dict[str, dict[str, float]] = {}
    for column, pictures in columns.items():
        outcomes = judge.score(scenes, pictures)
        for metric in outcomes[0]:
            result.setdefault(metric, {})[column] = float(np.mean([outcome[metric] for outcome in outcomes]))
    for metric, values in result.items():
        values["chance"] = chance(metric, len(judge.sprites))
    return result


def markdown(table: Table) -> str:
    """The table with one line per row and metric, in per cent."""
    columns = list(next(iter(next(iter(table.values())).values())))
    lines = [f"| prompts | metric | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for row, metrics in table.items():
        for metric, values in metrics.items():
            cells = " | ".join(f"{100 * values[column]:.1f} %" for column in columns)
            lines.append(f"| {row} | {metric} | {cells} |")
    return "\n".join(lines)


def evaluate(pipe: Any, options: argparse.Namespace) -> dict[str, Any]:
    """All rows for one model; ``pipe`` may be ``None`` for the real renders alone."""
    resolution = pipe.unet.config.sample_size * pipe.vae_scale_factor if pipe else options.resolution
    items = catalogue.core()
    sprites = render_sprites(sources.svg_bodies(options.work, items), 2 * resolution)
    features = Features(options.device)
    judge = Judge(sprites, features, resolution, partial(features.cached, folder=options.work / "galleries"))
    settings = {"num_inference_steps": options.steps, "guidance_scale": options.guidance_scale}
    table: Table = {}
    for row, scenes in tqdm(trials(items, options.limit, options.seed).items(), unit="row"):
        drawn = images.real(scenes, sprites, resolution, options.seed)
        columns = {"real": drawn}
        if pipe:
            prompts = [canonical(scene, items) for scene in scenes]
            made = images.generated(pipe, prompts, options.seed, options.batch_size, **settings)
            columns = {"model": made, "real": drawn}
            columns["real, first stage"] = images.reconstructed(pipe.vae, drawn, options.batch_size)
        table[row] = measure(judge, scenes, columns)
    result: dict[str, Any] = {"objects": len(items), "limit": options.limit, "seed": options.seed, **settings}
    result["table"] = table
    if pipe and options.data:
        originals = images.read_images(options.data / "validation", options.limit)
        decoded = images.reconstructed(pipe.vae, originals, options.batch_size)
        result["first_stage_psnr"] = images.psnr(originals, decoded)
    return result


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder, hub id or builtin:emoji; without it, real renders only")
    parser.add_argument("--data", type=Path, help="folder that prepare.py wrote, for the first stage's PSNR")
    parser.add_argument("--work", type=Path, default=Path("emoji-sources"), help="folder for the downloaded packages")
    parser.add_argument("--limit", type=int, default=200, help="prompts a row")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--resolution", type=int, default=64, help="of the real renders where no model is given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--grid", type=Path, help="write a sheet of images for fixed prompts here")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    options = parse_arguments()
    pipe = None
    if options.model:
        from latentdiff import TextToImagePipeline

        pipe = TextToImagePipeline.from_pretrained(options.model).to(options.device)
        pipe.set_progress_bar_config(disable=True)
    if pipe and options.grid:
        settings = {"num_inference_steps": options.steps, "guidance_scale": options.guidance_scale}
        made = images.generated(pipe, PROMPTS, options.seed, options.batch_size, **settings)
        sheet(made, PROMPTS).save(options.grid)
    result = evaluate(pipe, options)
    print(markdown(result["table"]))
    if "first_stage_psnr" in result:
        print(f"\nFirst stage, validation images: {result['first_stage_psnr']:.2f} dB PSNR")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
