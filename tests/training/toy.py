"""A toy world for training: a coloured square in a corner of a plain background, with all that can be said of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from tiny import SPECIAL, WORDS, randomise

from latentdiff.config import load_recipe
from latentdiff.data.degradations import degrade
from latentdiff.data.views import View
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.recipes import DiffusionRecipe

__all__ = ["randomise"]
SIDE, HALF = 16, 8
SQUARE = View((SIDE, SIDE))
GROUNDS = [(25, 25, 50), (205, 185, 130)]
COLOURS = {"blue": (50, 80, 220), "green": (40, 160, 60), "red": (220, 40, 40)}
CORNERS = [(0, 0), (HALF, 0), (0, HALF), (HALF, HALF)]
CLASSES = ["ground", *COLOURS]
PALETTE = [GROUNDS[0], *COLOURS.values()]
IGNORED = 255

VAE = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": SIDE,
}
UNET = {
    "block_out_channels": [16, 16],
    "layers_per_block": 1,
    "attention_levels": [False, True],
    "num_attention_heads": 2,
    "norm_num_groups": 8,
}
ENCODER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "attention_head_dim": 8}

# What a recipe says of the condition.
TASKS = {
    "unconditional": {},
    "text-to-image": {
        "text_encoder": {"vocab_size": len(SPECIAL) + len(WORDS), "max_position_embeddings": 8, **ENCODER}
    },
    "class-to-image": {"class_embedder": {"embed_dim": 16}},
    "layout-to-image": {"layout_encoder": ENCODER, "layout_tokenizer": {"num_tokens": 64, "max_objects": 2}},
    "semantic-to-image": {"segmentation_encoder": {"class_names": CLASSES}},
    "super-resolution": {"degradation": "bicubic"},
    "inpaint": {"masks": {"thick": 1, "box": 2}},
}


def scene(ground, colour, corner):
    """One image, and the line of metadata that says all about it but its files."""
    pixels = np.full((SIDE, SIDE, 3), GROUNDS[ground], np.uint8)
    x, y = CORNERS[corner]
    pixels[y : y + HALF, x : x + HALF] = COLOURS[colour]
    label_map = np.zeros((SIDE, SIDE), np.uint8)
    label_map[y : y + HALF, x : x + HALF] = CLASSES.index(colour)
    row = {"text": f"a {colour} star", "label": colour, "objects": [{"class": colour, "box": [x, y, HALF, HALF]}]}
    return pixels, label_map, row


def write(folder: Path, grounds=range(2)) -> Path:
    """The 12 scenes on each background as a folder of images, with a vocabulary."""
    (folder / "maps").mkdir(parents=True)
    lines = []
    for ground in grounds:
        for colour in COLOURS:
            for corner in range(4):
                pixels, label_map, row = scene(ground, colour, corner)
                name = f"{ground}{colour}{corner}.png"
                Image.fromarray(pixels).save(folder / name)
                indexed = Image.fromarray(label_map).convert("P")
                indexed.putpalette([value for colour in PALETTE for value in colour])
                indexed.save(folder / "maps" / name)
                lines.append(json.dumps({"file_name": name, "label_map": f"maps/{name}", **row}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    return folder


def rewritten(data: Path, folder: Path, dropped=(), **changed) -> Path:
    """A copy of the data with columns left out, or with the same in all lines; there is a map `small.png` in it."""
    shutil.copytree(data, folder)
    Image.new("L", (HALF, HALF)).save(folder / "small.png")
    rows = [{name: value for name, value in row.items() if name not in dropped} | changed for row in lines(data)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def write_vae(folder: Path) -> Path:
    """An untrained first stage."""
    AutoencoderKL(**VAE).save_pretrained(folder)
    return folder


def recipe(task, data, vae, output, **options) -> DiffusionRecipe:
    """A recipe of the toy world; `options` are dotted names to values, which win."""
    vocabulary = {"vocabulary": str(data / "vocab.txt")} if task == "text-to-image" else {}
    values = {
        "output_dir": str(output),
        "data": {"train_data_dir": str(data), "resolution": SIDE},
        "vae": None if vae is None else str(vae),
        "conditioning": {"type": task, **vocabulary, **TASKS.get(task, {})},
        "unet": UNET,
        "noise_schedule": {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195},
        "optimizer": {"learning_rate": 2e-3},
        "train_batch_size": 4,
        "max_train_steps": 4,
        "checkpoint": {"steps": 2},
        "logging_steps": 2,
    }
    return load_recipe(DiffusionRecipe, None, {**values, **options})


def train(task, data, vae, output, **options) -> Path:
    return train_diffusion(recipe(task, data, vae, output, **options))


def lines(data: Path):
    return [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]


def call(task, pipe, data, rows, batch=None, **options):
    """Images (B, H, W, C) for what the given lines of metadata, or a batch made of them, say."""
    given = {
        "unconditional": lambda: {"batch_size": len(rows)},
        "text-to-image": lambda: {"prompt": [row["text"] for row in rows]},
        "class-to-image": lambda: {"class_labels": [row["label"] for row in rows]},
        "layout-to-image": lambda: {"layouts": [row["objects"] for row in rows], "image_size": (SIDE, SIDE)},
        "semantic-to-image": lambda: {"label_map": [data / row["label_map"] for row in rows]},
        "super-resolution": lambda: {"image": [small(data / row["file_name"]) for row in rows]},
        "inpaint": lambda: {
            "image": [data / row["file_name"] for row in rows],
            "mask_image": list((batch["holes"] if batch else hole_of(rows)).bool()),
        },
    }
    return pipe(**given[task](), **{"output_type": "np", **options}).images


def small(path):
    """An image at half its size."""
    return degrade(np.asarray(Image.open(path)), "bicubic", 2, seed=0)


def hole_of(rows):
    """A hole in the lower right quarter of every image, (B, 1, H, W)."""
    holes = torch.zeros(len(rows), 1, SIDE, SIDE)
    holes[:, :, HALF - 2 :, HALF - 2 :] = 1
    return holes
