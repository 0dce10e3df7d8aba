"""The folders that `latentdiff convert` takes: a pipeline's, a hub model's, or a first stage's alone."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import torch

from latentdiff.conversion.inventory import compare
from latentdiff.errors import ConfigError
from latentdiff.hub.folder import checkpoint_errors, find_folder, library_errors, pipeline_class
from latentdiff.hub.index import read_index, read_json
from latentdiff.inspection.model import is_component, weight_files
from latentdiff.io.headers import read_weights
from latentdiff.io.tensor_files import open_tensors
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.tasks import task_of_pipeline

FIRST_STAGES = {"AutoencoderKL": "diffusers", "VQModel": "latentdiff"}


def load_folder(source: str, dtype: torch.dtype | None) -> tuple[Any, str | None, dict[str, Any]]:
    """What to save as a latentdiff folder, its task (None for a first stage alone) and its components.

    A tokenizer may be missing: no other form of a model needs one.

    Args:
        source: A folder, a hub id or "builtin:NAME".
        dtype: Of the weights; None keeps the precision in which each component is stored.
    """
    if is_component(source):
        vae = load_first_stage(Path(source), dtype)
        return vae, None, {"vae": vae}
    folder = find_folder(source)
    index = read_index(folder)
    with checkpoint_errors(folder):
        stored = {name: dtype or precision(folder / part.folder) for name, part in index.components.items()}
    takes = inspect.signature(pipeline_class(DiffusionPipeline, folder, index)).parameters
    absent: dict[str, Any] = {"tokenizer": None} if "tokenizer" in takes and "tokenizer" not in index.components else {}
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=stored, **absent)
    spec = task_of_pipeline(type(pipe).__name__)
    return pipe, spec.name if spec else None, pipe.components


def load_first_stage(folder: Path, dtype: torch.dtype | None) -> Any:
    """A first stage out of its folder.

    Raises:
        ConfigError: If the folder is another component's.
        CheckpointError: If its weights aren't those of its configuration.
    """
    config = read_json(folder / "config.json")
    name = str(config.get("_class_name"))
    if name not in FIRST_STAGES:
        allowed = ", ".join(FIRST_STAGES)
        raise ConfigError(f"{folder} is a component of the class {name!r}; give a whole pipeline, or one of {allowed}")
    with library_errors(folder):
        vae = getattr(importlib.import_module(FIRST_STAGES[name]), name).from_config(config).eval()
    files = [open_tensors(path) for path in weight_files(folder)]
    state = {key: file.read(key) for file in files for key in file.keys()}  # noqa: SIM118
    needed = {key: tuple(tensor.shape) for key, tensor in vae.state_dict().items()}
    compare(str(folder), needed, {key: tuple(tensor.shape) for key, tensor in state.items()}, state.keys() - needed)
    vae.load_state_dict({key: tensor.to(dtype or tensor.dtype) for key, tensor in state.items()}, assign=True)
    return vae


def precision(folder: Path) -> torch.dtype:
    """The precision in which a component's weights are stored; float32 where there are several, or no weights."""
    files = weight_files(folder)
    found = {getattr(torch, name) for name in read_weights(files).dtypes} if files else set()
    floats = {kind for kind in found if kind.is_floating_point}
    return floats.pop() if len(floats) == 1 else torch.float32
