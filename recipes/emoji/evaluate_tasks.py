"""Measures a built-in model, or one of its task: ``python recipes/emoji/evaluate_tasks.py layout --data DATA``.

The images are those of ``prepare_tasks.py`` that training never sees. Each table has beside the model what a perfect
one would score or what the first stage leaves of the true images, and what is left of a model that isn't told its
condition ("shuffled": it is given that of another image).
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from emoji_scenes import catalogue, sources
from emoji_scenes.features import Features
from emoji_scenes.folders import read_images
from emoji_scenes.pixels import (
    Array,
    error_inside,
    filled,
    in_batches,
    pictures,
    psnr,
    reconstructed,
    sharpness,
    shuffled,
)
from emoji_scenes.placed import FEW, MANY
from emoji_scenes.render import Sprites, render_sprites
from emoji_scenes.seen import boxes_overlap, in_their_boxes, maps_overlap, nearest
from PIL import Image

from latentdiff import DiffusionPipeline
from latentdiff.data.degradations import degrade
from latentdiff.evaluation.metrics import frechet_distance
from latentdiff.pipelines.codec import decode
from latentdiff.registry import MASKS
from latentdiff.seeding import array_generator
from latentdiff.viz import draw_boxes, draw_label_map, image_grid

FACTOR = 4  # of super-resolution
HOLES = ("thick", "box")
SHOWN = 8


@dataclass(frozen=True)
class Setting:
    """What a task is measured with.

    Attributes:
        data: The folder of `prepare_tasks.py`.
        sprites: The drawings.
        samples: The number of images.
        steps: Those of the solver.
    """

    data: Path
    sprites: Sprites
    samples: int = 192
    steps: int = 20

    @property
    def options(self) -> dict[str, Any]:
        """Those of every call."""
        return {"num_inference_steps": self.steps, "output_type": "np"}


@dataclass(frozen=True)
class Figures:
    """What was measured, and a sheet of the first images, which nobody has chosen.

    Attributes:
        columns: What the numbers are.
        rows: The numbers of each way to make the images.
        shown: The sheet's pictures.
        captions: What stands under them.
        per_row: Pictures in a row of the sheet.
    """

    columns: Sequence[str]
    rows: Mapping[str, Sequence[float]]
    shown: Sequence[Image.Image]
    captions: Sequence[str] = field(default=())
    per_row: int = SHOWN

    def table(self, name: str) -> str:
        """The numbers as a table in Markdown."""
        lines = [f"| {' | '.join([name, *self.columns])} |", "|---" * (len(self.columns) + 1) + "|"]
        lines += [f"| {' | '.join([row, *(f'{x:.3g}' for x in values)])} |" for row, values in self.rows.items()]
        return "\n".join(lines)

    def sheet(self) -> Image.Image:
        """The pictures in rows, each 96 pixels wide or more."""
        scale = max(1, -(-96 // self.shown[0].width))
        return image_grid(self.shown, columns=self.per_row, captions=self.captions or None, scale=scale, margin=4)


def layout(pipe: Any, setting: Setting) -> Figures:
    """Share of boxes whose content is nearest to the object asked for, and how well the boxes are filled."""
    rows, truth = read_images(setting.data / "scenes" / "held-out", setting.samples)
    layouts = [row["objects"] for row in rows]
    size = truth.shape[1:3]

    def made(scale: float) -> Array:
        call = {**setting.options, "image_size": size, "guidance_scale": scale}
        return in_batches(lambda part, i: pipe(layouts[part], seed=i, **call).images, len(layouts))

    sets = {"guidance 1": made(1), "guidance 3": made(3), "real images": truth}
    columns = ["object in its box, %", "shuffled, %", "boxes' overlap, %", "shuffled, %"]
    other = shuffled(layouts)
    numbers = {
        name: [
            in_their_boxes(images, layouts, setting.sprites),
            in_their_boxes(images, other, setting.sprites),
            boxes_overlap(images, layouts),
            boxes_overlap(images, other),
        ]
        for name, images in sets.items()
    }
    shown = [
        draw_boxes(image.resize((128, 128)), boxes, image_size=size, font_size=9)
        for image, boxes in zip(pictures(sets["guidance 3"][:SHOWN]), layouts, strict=False)
    ]
    return Figures(columns, numbers, shown, per_row=4)


def class_(pipe: Any, setting: Setting) -> Figures:
    """Share of images that are nearest to the object asked for, of 24 drawn on eleven backgrounds."""
    labels = [MANY[i % len(MANY)] for i in range(setting.samples)]
    rows, truth = read_images(setting.data / "singles" / "held-out", setting.samples)

    def made(scale: float) -> Array:
        call = {**setting.options, "guidance_scale": scale}
        return in_batches(lambda part, i: pipe(labels[part], seed=i, **call).images, len(labels))

    sets = {"guidance 1": (made(1), labels), "guidance 3": (made(3), labels)}
    sets["real images"] = truth, [row["label"] for row in rows]
    numbers = {}
    for name, (images, asked) in sets.items():
        found = [look for look, _ in nearest(images, setting.sprites)]
        numbers[name] = [_share(found, asked), _share(found, shuffled(asked))]
    shown = pictures(sets["guidance 3"][0][: len(MANY)])
    return Figures(["class, %", "shuffled class, %"], numbers, shown, MANY)


def unconditional(pipe: Any, setting: Setting) -> Figures:
    """Fréchet distance of EfficientNet-lite0's features to held-out images; few images overrate all columns alike."""
    _, truth = read_images(setting.data / "singles" / "held-out", setting.samples)
    _, seen = read_images(setting.data / "singles" / "train", setting.samples)

    def noise(part: slice, seed: int) -> Array:
        shape = (part.stop - part.start, pipe.vae.config.latent_channels, 16, 16)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return decode(pipe.vae, latents).permute(0, 2, 3, 1).numpy()

    model = in_batches(lambda part, i: pipe(part.stop - part.start, seed=i, **setting.options).images, len(truth))
    sets = {"training images": seen, "first stage": reconstructed(pipe.vae, truth), "model": model}
    sets["decoded noise"] = in_batches(noise, len(truth))
    distances = _distances(sets, truth)
    rows = {name: [distance] for name, distance in distances.items()}
    return Figures(["Fréchet distance of features"], rows, pictures(model[: 2 * SHOWN]))


def semantic(pipe: Any, setting: Setting) -> Figures:
    """Where the objects are, and how near the image is to the one whose map was given."""
    folder = setting.data / "scenes" / "held-out"
    maps, truth = _maps(folder, setting.samples)
    seen_maps, seen = _maps(setting.data / "scenes" / "train", 1000)
    colours = np.stack([seen[seen_maps == number].mean(0) for number in range(len(FEW) + 1)])

    def made(given: Sequence[Any]) -> Array:
        return in_batches(lambda part, i: pipe(given[part], seed=i, **setting.options).images, len(given))

    sets = {
        "mean colour of each class": colours[maps],
        "model": made(list(maps)),
        "model, shuffled": made(shuffled(list(maps))),
        "first stage": reconstructed(pipe.vae, truth),
    }
    inside = maps > 0
    columns = ["objects' overlap with the map, %", "error in objects", "PSNR, dB"]
    rows = {
        name: [maps_overlap(images, inside), error_inside(images, truth, inside), psnr(images, truth)]
        for name, images in sets.items()
    }
    drawn = [draw_label_map(one.astype(int), len(FEW) + 1, legend=False) for one in maps[:SHOWN]]
    shown = [*drawn, *pictures(sets["model"][:SHOWN])]
    return Figures(columns, rows, shown)


def inpaint(pipe: Any, setting: Setting) -> Figures:
    """The error in holes, beside fills that know nothing of emoji."""
    _, truth = read_images(setting.data / "singles" / "held-out", setting.samples)
    masks = [MASKS.get(HOLES[i % 2])(truth.shape[1:3], array_generator(0, i)) for i in range(len(truth))]
    holes = np.stack(masks)[..., None].astype(np.float64)

    def painted(images: Array, steps: int = setting.steps) -> Array:
        given, call = pictures(images), {"num_inference_steps": steps, "output_type": "np"}
        return in_batches(lambda part, i: pipe(given[part], masks[part], seed=i, **call).images, len(given))

    mean, smooth = filled(truth, holes)
    model = painted(truth)
    sets = {
        "mean fill": mean,
        "smooth fill": smooth,
        "model, one step": painted(truth, steps=1),  # the mean of what it might be, so the least squared error
        "model": model,
        "model, shuffled": painted(np.stack(shuffled(truth))),  # surroundings of another image
        "first stage": reconstructed(pipe.vae, truth),
    }
    rows = {name: [error_inside(images, truth, holes[..., 0])] for name, images in sets.items()}
    shown = [*pictures(truth[:SHOWN] * (1 - holes[:SHOWN])), *pictures(model[:SHOWN])]
    return Figures(["error in holes, of 255"], rows, shown)


def upscale(pipe: Any, setting: Setting) -> Figures:
    """Nearness to the large image, by pixels and by features, beside bicubic interpolation."""
    _, truth = read_images(setting.data / "large" / "held-out", setting.samples)
    side = truth.shape[1]
    small = [
        Image.fromarray(degrade(np.asarray(image), "bicubic", FACTOR, seed=0, index=i))
        for i, image in enumerate(pictures(truth))
    ]
    bicubic = np.stack([np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) / 255 for image in small])

    def enlarged(images: Sequence[Any], steps: int = setting.steps) -> Array:
        call = {"num_inference_steps": steps, "output_type": "np"}
        return in_batches(lambda part, i: pipe(images[part], seed=i, **call).images, len(images))

    model = enlarged(small)
    sets = {
        "bicubic": bicubic,
        "model, one step": enlarged(small, steps=1),  # the mean of what it might be
        "model": model,
        "model, shuffled": enlarged(shuffled(small)),
        "first stage": reconstructed(pipe.vae, truth),
    }
    distances = _distances(sets, truth)
    columns = ["PSNR, dB", "Fréchet distance of features", "sharpness"]
    rows = {name: [psnr(images, truth), distances[name], sharpness(images, truth)] for name, images in sets.items()}
    shown = [*pictures(bicubic[: SHOWN // 2]), *pictures(model[: SHOWN // 2])]
    return Figures(columns, rows, shown, per_row=SHOWN // 2)


MEASURED: dict[str, Callable[[Any, Setting], Figures]] = {
    "layout": layout,
    "upscale": upscale,
    "inpaint": inpaint,
    "class": class_,
    "semantic": semantic,
    "unconditional": unconditional,
}


def _share(found: Sequence[str], asked: Sequence[str]) -> float:
    return 100 * float(np.mean([one == other for one, other in zip(found, asked, strict=True)]))


def _maps(folder: Path, limit: int) -> tuple[Any, Array]:
    rows, images = read_images(folder, limit)
    return np.stack([np.asarray(Image.open(folder / row["label_map"])) for row in rows]), images


def _distances(sets: Mapping[str, Array], truth: Array) -> dict[str, float]:
    """The Fréchet distance of EfficientNet-lite0's features of each set to those of the true images."""
    features = Features()
    target = torch.from_numpy(features(list(truth)))
    return {name: frechet_distance(torch.from_numpy(features(list(images))), target) for name, images in sets.items()}


def setting_of(data: Path, work: Path, samples: int, steps: int) -> Setting:
    """What tasks are measured with, with the drawings of 24 objects."""
    items = {name: catalogue.load()[name] for name in MANY}
    return Setting(data, render_sprites(sources.svg_bodies(work, items), 128), samples, steps)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=MEASURED)
    parser.add_argument("model", nargs="?", help="folder or hub id; default: the built-in model of the task")
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare_tasks.py wrote")
    parser.add_argument("--work", type=Path, default=Path("emoji-sources"), help="folder for the downloaded package")
    parser.add_argument("--samples", type=int, default=192, help="images that are measured; default: %(default)s")
    parser.add_argument("--steps", type=int, default=20, help="of the solver; default: %(default)s")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument("--grid", type=Path, help="file to write the first images to")
    options = parser.parse_args()
    name = options.model or f"builtin:emoji-{options.task}"
    pipe = DiffusionPipeline.from_pretrained(name, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    setting = setting_of(options.data, options.work, options.samples, options.steps)
    figures = MEASURED[options.task](pipe, setting)
    print(figures.table(options.task))
    if options.json:
        options.json.write_text(json.dumps({"columns": figures.columns, "rows": figures.rows}, indent=2) + "\n")
    if options.grid:
        figures.sheet().save(options.grid)


if __name__ == "__main__":
    main()
