"""Draws what the built-in models of all tasks but text learn from: ``python recipes/emoji/prepare_tasks.py OUT``.

Three image folders, each with ``train`` and ``held-out`` in it: ``scenes``, one to three of twelve objects anywhere on
white, with their boxes and the class of every pixel; ``singles``, one of 24 objects in the middle of one of eleven
colours, with its class; and ``large``, scenes of all 216 objects on such colours, twice as large.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from emoji_scenes import catalogue, sources
from emoji_scenes.colours import BACKGROUNDS
from emoji_scenes.folders import Drawn, write_images
from emoji_scenes.grammar import Scene, Thing, jitter
from emoji_scenes.placed import FEW, MANY, label_map, scattered
from emoji_scenes.render import Sprites, compose, render_sprites
from tqdm import tqdm

SIDE, LARGE = 64, 128
HELD_OUT = 384  # images of each folder

_sprites: dict[int, Sprites] = {}


def _keep(bodies: dict[str, str]) -> None:
    """Gives a worker process the sprites once instead of with every image, twice as large as each size of images."""
    _sprites.update({side: render_sprites(bodies, 2 * side) for side in (SIDE, LARGE)})


def scene(number: int, seed: int) -> Drawn:
    """Objects on white, their boxes, and the class of every pixel."""
    drawn = scattered(np.random.default_rng((seed, number)), FEW)
    sprites = _sprites[SIDE]
    known = {"objects": drawn.objects(sprites, SIDE), "label_map": label_map(drawn, sprites, FEW, SIDE)}
    return compose(drawn, sprites, SIDE), known


def single(number: int, seed: int) -> Drawn:
    """An object in the middle of a colour on which it can be seen, and its class."""
    rng = np.random.default_rng((seed, number, 1))
    name = MANY[rng.integers(len(MANY))]
    background = background_for(name, rng)
    drawn = Scene("background", (Thing(name),), background, jitter=(jitter("", rng),))
    return compose(drawn, _sprites[SIDE], SIDE), {"label": name, "background": background}


def large(number: int, seed: int) -> Drawn:
    """A scene of any objects, on a colour on which the first of them can be seen."""
    rng = np.random.default_rng((seed, number, 2))
    drawn = scattered(rng, tuple(catalogue.core()))
    background = background_for(drawn.things[0].name, rng)
    return compose(replace(drawn, background=background), _sprites[LARGE], LARGE), {"background": background}


def background_for(name: str, rng: np.random.Generator) -> str:
    """White, or a colour other than the one that the object is nearest to."""
    shade = catalogue.load()[name].shade
    allowed = [colour for colour in BACKGROUNDS if colour == "white" or colour != shade]
    return allowed[rng.integers(len(allowed))]


FOLDERS: dict[str, tuple[Callable[[int, int], Drawn], int]] = {
    "scenes": (scene, 16_000),
    "singles": (single, 8_000),
    "large": (large, 2_000),
}
"""What draws each folder, and the number of its training images."""


def prepare(out: Path, *, work: Path, share: float = 1.0, workers: int = 1) -> None:
    """Writes the folders that aren't there yet; each appears only once it is complete.

    Args:
        out: Where the folders go.
        work: Where the drawings are downloaded to.
        share: The part of the training images that is drawn; image i is the same for any number of them.
        workers: The number of processes.
    """
    with multiprocessing.Pool(workers, _keep, (sources.svg_bodies(work, catalogue.core()),)) as pool:
        for name, (draw, count) in FOLDERS.items():
            for seed, (split, number) in enumerate((("train", max(1, round(count * share))), ("held-out", HELD_OUT))):
                if not (out / name / split).exists():
                    drawn = pool.imap(partial(draw, seed=seed), range(number), chunksize=50)
                    write_images(out / name / split, tqdm(drawn, total=number, desc=f"{name}/{split}", unit="image"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder to write to; what is there is kept")
    parser.add_argument("--work", type=Path, default=Path("emoji-sources"), help="folder for the downloaded package")
    parser.add_argument("--share", type=float, default=1.0, help="part of the training images that is drawn")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    prepare(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
