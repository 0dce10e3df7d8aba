"""What all examples share: where they work, image folders, training by a recipe, figures."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

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


def write_images(folder: Path, images: Iterable[tuple[Image.Image, Mapping[str, Any]]]) -> Path:
    """An image folder of (image, what is known of it), unless it is there; a `label_map` image becomes a file."""
    if folder.exists():
        return folder
    with atomic_folder(folder) as aside, (aside / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        (aside / "maps").mkdir(parents=True)
        for number, (image, known) in enumerate(images):
            row = {"file_name": f"{number:05d}.png", **known}
            image.save(aside / row["file_name"])
            if "label_map" in known:
                row["label_map"] = f"maps/{number:05d}.png"
                known["label_map"].save(aside / row["label_map"])
            lines.write(json.dumps(row) + "\n")
    return folder


def read_images(folder: Path, limit: int) -> tuple[list[dict[str, Any]], Array]:
    """The first lines of an image folder's metadata, and their images (B, H, W, 3) in [0, 1]."""
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()[:limit]]
    return rows, np.stack([np.asarray(Image.open(folder / row["file_name"])) for row in rows]) / 255


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


def in_batches(make: Callable[[slice, int], Any], count: int, size: int = 32) -> Array:
    """Images (count, H, W, 3) that `make` makes of a slice of the conditions and the seed of its first."""
    return np.concatenate([make(slice(i, min(i + size, count)), i) for i in range(0, count, size)])


def shuffled(values: Sequence[Any]) -> list[Any]:
    """Every value at another place."""
    return [*values[7:], *values[:7]]


def psnr(images: Array, others: Array) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB."""
    errors = np.square(images - others).reshape(len(images), -1).mean(1)
    return float(np.mean(-10 * np.log10(np.maximum(errors, 1e-10))))


def sharpness(images: Array, truth: Array) -> float:
    """Mean absolute gradient along rows, as a share of the true images'."""
    return float(np.abs(np.diff(images, axis=2)).mean() / np.abs(np.diff(truth, axis=2)).mean())


@torch.no_grad()
def reconstructed(vae: Any, images: Array) -> Array:
    """Images (B, H, W, 3) in [0, 1] through the first stage: the best that a diffusion model in it could do."""

    def one(part: slice, _seed: int) -> Array:
        pixels = torch.from_numpy(images[part]).float().permute(0, 3, 1, 2) * 2 - 1
        decoded: Array = vae.decode(vae.encode(pixels).latent_dist.mode()).sample.permute(0, 2, 3, 1).numpy()
        return (decoded / 2 + 0.5).clip(0, 1)

    return in_batches(one, len(images))


def pictures(images: Iterable[Array]) -> list[Image.Image]:
    """Arrays (H, W, 3) in [0, 1] as images."""
    return [Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8)) for image in images]


def report(task: str, columns: Sequence[str], rows: Mapping[str, Sequence[float]], work: Path) -> None:
    """Print a table in Markdown, and keep it as `work/task.md`."""
    lines = [f"| {' | '.join([task, *columns])} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {' | '.join([name, *(f'{value:.3g}' for value in values)])} |" for name, values in rows.items()]
    text = "\n".join(lines)
    print(text)
    (work / f"{task}.md").write_text(text + "\n", encoding="utf-8")
