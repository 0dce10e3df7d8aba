"""What all examples share: where they work, image folders, training by a recipe, figures."""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdiff import DiffusionPipeline, TextToImagePipeline
from latentdiff.config import load_recipe
from latentdiff.io.files import atomic_folder
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.recipes import DiffusionRecipe

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "recipes" / "emoji"))  # for emoji_scenes

SIDE = 64
Array = NDArray[np.floating[Any]]


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of every example."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", type=Path, default=Path("work"), help="downloads, data, runs; default: %(default)s")
    parser.add_argument("--max-train-steps", type=int, help="in place of the recipe's, to try it")
    parser.add_argument("--samples", type=int, default=192, help="images that are measured; default: %(default)s")
    return parser.parse_args()


def fetch(command: Sequence[str], file: str, folder: Path) -> Path:
    """`file` in `folder`, which `command` (a package manager's download, run there) writes unless it is there."""
    path = folder / file
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if result.returncode or not path.exists():
            raise SystemExit(f"{' '.join(command)} did not write {path}: {result.stderr.strip()[-500:]}")
    return path


def builtin_vae(work: Path) -> Path:
    """The first stage of `builtin:emoji` as a folder: scenes of emoji need no other."""
    folder = work / "emoji-vae"
    if not folder.exists():
        vae = TextToImagePipeline.from_pretrained("builtin:emoji").vae.float()
        with atomic_folder(folder) as aside:
            vae.save_pretrained(aside)
    return folder


def overrides(output: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What of a recipe depends on where and for how long it is run; an interrupted run goes on."""
    given: dict[str, Any] = {"output_dir": str(output)}
    if options.max_train_steps:
        given["max_train_steps"] = options.max_train_steps
    if any(output.glob("checkpoint-*")):
        given["resume_from_checkpoint"] = "latest"
    return given


def trained(task: str, data: Path, vae: Path, options: argparse.Namespace, **recipe: Any) -> Any:
    """The pipeline that `task`.yaml, with options in place of its own, trains on `data` or has trained there before."""
    output = options.work / "runs" / task
    if not (output / "pipeline").exists():
        given = {"data.train_data_dir": str(data), "vae": str(vae), **overrides(output, options), **recipe}
        train_diffusion(load_recipe(DiffusionRecipe, HERE / f"{task}.yaml", given))
    pipe = DiffusionPipeline.from_pretrained(output / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def report(task: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]], work: Path) -> None:
    """Print a table in Markdown, and keep it as `work/task.md`."""
    lines = [f"| {' | '.join([task, *columns])} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {' | '.join([name, *(f'{value:.3g}' for value in values)])} |" for name, values in rows.items()]
    text = "\n".join(lines)
    print(text)
    (work / f"{task}.md").write_text(text + "\n", encoding="utf-8")
