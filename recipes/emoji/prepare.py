"""Draws the training data of ``builtin:emoji``: ``python recipes/emoji/prepare.py OUT --num-images 60000``."""

import argparse
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from emoji_scenes import catalogue, grammar, sources, vocabulary
from emoji_scenes.captions import caption
from emoji_scenes.render import Sprites, compose, render_sprites
from tqdm import tqdm
from transformers import BertTokenizerFast

MAX_TOKENS = 24

_sprites: Sprites = {}


def _keep(sprites: Sprites) -> None:
    """Gives a worker process the sprites once instead of with every image."""
    _sprites.update(sprites)


def _draw(index: int, seed: int, resolution: int, folder: Path) -> dict[str, Any]:
    """Draws image ``index`` from its own random numbers and returns its metadata row."""
    items = {name: catalogue.load()[name] for name in _sprites}
    scene = grammar.sample(items, seed, index)
    text = caption(scene, items, np.random.default_rng((seed, index, 1)))
    row = {"file_name": f"{index:06d}.png", "text": text, **scene.record()}
    compose(scene, _sprites, resolution).save(folder / row["file_name"])
    return row


def draw_split(folder: Path, count: int, *, seed: int, resolution: int, sprites: Sprites, workers: int) -> list[str]:
    """Draws ``count`` images with ``metadata.jsonl`` into ``folder`` and returns the captions."""
    folder.mkdir(parents=True)
    draw = partial(_draw, seed=seed, resolution=resolution, folder=folder)
    with multiprocessing.Pool(workers, _keep, (sprites,)) as pool:
        rows: Iterator[dict[str, Any]] = pool.imap(draw, range(count), chunksize=100)
        captions = []
        with (folder / "metadata.jsonl").open("w", encoding="utf-8") as stream:
            for row in tqdm(rows, total=count, desc=folder.name, unit="image"):
                stream.write(json.dumps(row) + "\n")
                captions.append(row["text"])
    return captions


def write_vocabulary(captions: list[str], items: dict[str, catalogue.Item], path: Path) -> None:
    """Writes ``vocab.txt`` and checks that it can take every caption whole.

    Raises:
        ValueError: A caption is longer than the model's context or needs ``[UNK]``.
    """
    vocabulary.write(vocabulary.build(captions, items), path)
    tokenizer = BertTokenizerFast(vocab=str(path), do_lower_case=True)
    for text, ids in zip(captions, tokenizer(captions)["input_ids"], strict=True):
        if len(ids) > MAX_TOKENS or tokenizer.unk_token_id in ids:
            raise ValueError(f"{text!r} takes {len(ids)} tokens of {MAX_TOKENS} or has unknown ones")


def prepare(
    out: Path,
    *,
    work: Path,
    objects: str,
    num_images: int,
    num_validation: int,
    resolution: int,
    seed: int,
    workers: int,
) -> None:
    """Writes ``out/train``, ``out/validation`` and ``out/vocab.txt``; ``out`` appears only once it is complete.

    Raises:
        FileExistsError: ``out`` exists.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; name a new folder or delete it")
    aside = out.with_name(out.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    items = catalogue.SETS[objects]()
    sprites = render_sprites(sources.svg_bodies(work, items), 2 * resolution)
    draw = partial(draw_split, resolution=resolution, sprites=sprites, workers=workers)
    captions = draw(aside / "train", num_images, seed=seed)
    # Same distribution, other random numbers: the seeds of the two splits must never meet.
    captions += draw(aside / "validation", num_validation, seed=seed + (1 << 31))
    write_vocabulary(captions, items, aside / "vocab.txt")
    aside.rename(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--work", type=Path, default=Path("emoji-sources"), help="folder for the downloaded packages")
    parser.add_argument("--objects", choices=catalogue.SETS, default="core", help="default: %(default)s")
    parser.add_argument("--num-images", type=int, default=40_000)
    parser.add_argument("--num-validation", type=int, default=500)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    prepare(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
