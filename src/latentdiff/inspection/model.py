"""Facts about a model's folder, from its JSON files and weight headers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from latentdiff.hub.component_folder import CONFIG_FILES, ComponentFolder, library_errors
from latentdiff.hub.find import is_run, local_path, model_of_run
from latentdiff.hub.folder import ModelFolder
from latentdiff.hub.index import CARD, INDEX
from latentdiff.hub.json_files import LARGEST_JSON
from latentdiff.tasks import task_of_pipeline
from latentdiff.types import JSON

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
"""The names that the configuration of diffusers' LDMBertModel has for the same."""

KINDS = {
    "AutoencoderKL": "a first stage",
    "VQModel": "a first stage",
    "TinyDecoder": "a decoder in place of a first stage's, for pipe.set_decoder and --decoder",
    "NoisyLatentClassifier": "a classifier of noisy latents, for guidance",
}
"""What the components are that a training run makes by themselves."""

RESULTS = ("decoder", "classifier")  # of training runs, beside those that `model_of_run` knows
MOST_LEVELS = 16  # of a first stage; its resolution is two to the power of their number


def is_component(target: str) -> bool:
    """Whether it is the folder of one component, such as a trained first stage."""
    folder = local_path(target)
    return not (folder / INDEX).exists() and (folder / CONFIG_FILES[0]).is_file()


def result_of_run(target: str) -> str:
    """What a name stands for: of the folder of a training run, the model or component that it has made."""
    found = model_of_run(target)
    run = Path(found)
    if found != target or not is_run(run):
        return found
    return next((str(run / name) for name in RESULTS if is_component(str(run / name))), target)


def describe_component(target: str) -> JSON:
    """What it is, class, weights and configuration of one component's folder.

    Raises:
        CheckpointError: If one of its files is damaged.
    """
    part = ComponentFolder.open(Path(target))
    name = part.config.get("_class_name")
    kind = {"kind": KINDS[name]} if isinstance(name, str) and name in KINDS else {}
    return {"class": name, **kind, **_facts(part)}


def describe_pipeline(target: str) -> JSON:
    """Class, task, sizes and components of a pipeline.

    Args:
        target: "builtin:NAME", a folder, or a hub id, which is downloaded into the hub's cache.

    Raises:
        LatentDiffError: If there is no such model, or one of its files is missing or damaged.
    """
    folder = ModelFolder.open(target)
    entries = folder.index.components
    with library_errors(folder.path):
        components = {
            name: {"class": f"{entries[name].library}.{entries[name].class_name}", **_facts(part)}
            for name, part in folder.components.items()
        }
        sizes = _sizes(folder.components)
    spec = task_of_pipeline(folder.index.class_name)
    return {
        "pipeline": folder.index.class_name,
        "task": spec.name if spec else None,
        "license": _license(folder.path),
        **sizes,
        "parameters": sum(facts.get("parameters", 0) for facts in components.values()),
        "bytes": sum(facts["bytes"] for facts in components.values()),
        "components": components,
    }


def _facts(part: ComponentFolder) -> JSON:
    """Weights, bytes on disk and configuration of a component; the weights are those that are loaded by default.

    Of a component that has weights in variants only, it is the first variant that is described, and named.
    """
    facts: JSON = {}
    if part.variants and not part.weights:
        facts["variant"] = part.variants[0]
        part = part.of_variant(part.variants[0])
    if part.weights:
        facts |= {"parameters": part.parameters, "dtype": ", ".join(sorted(part.dtypes))}
    config = _config(part)
    chosen = {name: config[name] for name in FACTS if config.get(name) is not None}
    return {**facts, "bytes": part.bytes_on_disk, **chosen}


def _config(part: ComponentFolder) -> JSON:
    """The configuration of a component by today's names; empty where it has none."""
    return {OLD_NAMES.get(name, name): value for name, value in part.config.items()}


def _sizes(parts: Mapping[str, ComponentFolder]) -> JSON:
    """Image resolution, latent shape (C, h, w) and context width, as far as the UNet and the first stage tell."""
    unet, vae = (_config(parts[name]) if name in parts else {} for name in ("unet", "vae"))
    side, channels, levels = unet.get("sample_size"), vae.get("latent_channels"), vae.get("block_out_channels")
    result: JSON = {"context_width": unet.get("cross_attention_dim")}
    height, width = side if isinstance(side, list) and len(side) == 2 else (side, side)
    if not isinstance(levels, list) or len(levels) > MOST_LEVELS:
        return result
    if isinstance(height, int) and isinstance(width, int) and isinstance(channels, int):
        factor = 2 ** (len(levels) - 1)
        result |= {"resolution": [height * factor, width * factor], "latent_shape": [channels, height, width]}
    return result


def _license(folder: Path) -> str | None:
    """The licence in the metadata of the folder's model card, if there is any; it is a word."""
    from huggingface_hub import metadata_load  # the hub's client takes a while to import

    card = folder / CARD
    if not card.is_file() or card.stat().st_size > LARGEST_JSON:
        return None
    try:
        licence = (metadata_load(card) or {}).get("license")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    return licence if licence and isinstance(licence, str) else None
