"""Facts about a model folder, from its JSON files and weight headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from latentdiff.hub.folder import INDEX, checkpoint_errors, find_folder, read_json
from latentdiff.hub.index import read_index
from latentdiff.io.headers import read_weights
from latentdiff.tasks import task_of_pipeline

CONFIG_FILES = ("config.json", "scheduler_config.json", "tokenizer_config.json")

# What is worth knowing of a component's configuration, whatever its class.
FACTS = (
    "sample_size",
    "in_channels",
    "out_channels",
    "latent_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "scaling_factor",
    "vocab_size",
    "max_position_embeddings",
    "hidden_size",
    "num_hidden_layers",
    "model_max_length",
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "prediction_type",
    "timestep_spacing",
)
OLD_NAMES = {"d_model": "hidden_size", "encoder_layers": "num_hidden_layers"}
"""What diffusers' LDMBertModel calls the same."""


def is_component(target: str) -> bool:
    """Whether it is the folder of one component, such as a trained first stage."""
    return not (Path(target) / INDEX).exists() and (Path(target) / CONFIG_FILES[0]).is_file()


def describe_component(target: str) -> dict[str, Any]:
    """Class, weights and configuration of one component's folder."""
    return component(Path(target))


def describe_pipeline(target: str) -> dict[str, Any]:
    """Class, task, sizes and components of a pipeline.

    Args:
        target: "builtin:NAME", a folder, or a hub id, which is downloaded into the hub's cache.

    Raises:
        LatentDiffError: If there is no such model, or one of its files is missing or damaged.
    """
    folder = find_folder(target)
    index = read_index(folder)
    parts = {name: folder / part.folder for name, part in index.components.items()}
    with checkpoint_errors(folder):
        components = {
            name: component(parts[name], f"{part.library}.{part.class_name}") for name, part in index.components.items()
        }
        sizes = shapes(parts)
    spec = task_of_pipeline(index.class_name)
    return {
        "pipeline": index.class_name,
        "task": spec.name if spec else None,
        "license": license_of(folder),
        **sizes,
        "parameters": sum(part.get("parameters", 0) for part in components.values()),
        "bytes": sum(part["bytes"] for part in components.values()),
        "components": components,
    }


def component(folder: Path, class_name: str | None = None) -> dict[str, Any]:
    """Class, parameters, dtype, bytes on disk and configuration facts of a component's folder."""
    config = config_of(folder)
    result: dict[str, Any] = {"class": class_name or config.get("_class_name")}
    files = weight_files(folder)
    if files:
        weights = read_weights(files)
        result |= {"parameters": weights.parameters, "dtype": ", ".join(sorted(weights.dtypes))}
    result["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {**result, **{name: config[name] for name in FACTS if config.get(name) is not None}}


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration of a component; empty where it has none."""
    found = [folder / name for name in CONFIG_FILES if (folder / name).is_file()]
    config = read_json(found[0]) if found else {}
    return {OLD_NAMES.get(name, name): value for name, value in config.items()}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that are loaded by default: all shards, but of several variants the one without a name."""
    variants: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        variants.setdefault(re.sub(r"-\d{5}-of-\d{5}", "", path.name), []).append(path)
    return variants[min(variants, key=len)] if variants else []


def shapes(parts: Mapping[str, Path]) -> dict[str, Any]:
    """Image resolution, latent shape (C, h, w) and context width, as far as the UNet and the first stage tell.

    Args:
        parts: Names of the components to their folders.
    """
    unet, vae = (config_of(parts[name]) if name in parts else {} for name in ("unet", "vae"))
    side, channels, levels = unet.get("sample_size"), vae.get("latent_channels"), vae.get("block_out_channels")
    result: dict[str, Any] = {"context_width": unet.get("cross_attention_dim")}
    height, width = side if isinstance(side, list) and len(side) == 2 else (side, side)
    if isinstance(height, int) and isinstance(width, int) and channels and isinstance(levels, list):
        factor = 2 ** (len(levels) - 1)
        result |= {"resolution": [height * factor, width * factor], "latent_shape": [channels, height, width]}
    return result


def license_of(folder: Path) -> str | None:
    """The licence in the front matter of the folder's model card, if there is any."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        card = yaml.safe_load(front[1]) if front else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return str(card["license"]) if isinstance(card, dict) and card.get("license") else None
