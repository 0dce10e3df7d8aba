"""The folders that `latentdiff convert` takes: a pipeline's, a hub model's, or a first stage's alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import ModelMixin

from latentdiff.errors import ConfigError
from latentdiff.hub.component_folder import ComponentFolder, library_errors
from latentdiff.hub.folder import ModelFolder
from latentdiff.hub.index import IndexEntry
from latentdiff.hub.networks import load_alone
from latentdiff.inspection.model import is_component
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.tasks import task_of_pipeline

FIRST_STAGES = {"AutoencoderKL": "diffusers", "VQModel": "latentdiff"}


class LoadedModel(NamedTuple):
    """A model that is to be written in another form.

    Attributes:
        whole: What is saved as a latentdiff folder, a pipeline or a first stage.
        task: The name of its task; None for a first stage.
        components: Its components by their names.
    """

    whole: DiffusionPipeline | ModelMixin
    task: str | None
    components: dict[str, object]


def load_folder(source: str, dtype: torch.dtype | None) -> LoadedModel:
    """Load a model from its folder. A tokenizer may be missing: no other form of a model needs one.

    Args:
        source: A folder, a hub id or "builtin:NAME".
        dtype: The data type of the weights; None keeps that in which each component is stored.

    Raises:
        LatentDiffError: If there is no such model, or it can't be loaded; see `DiffusionPipeline.from_pretrained`.
    """
    if is_component(source):
        vae = load_stored_first_stage(ComponentFolder.open(Path(source)), dtype)
        return LoadedModel(vae, None, {"vae": vae})
    folder = ModelFolder.open(source)
    with library_errors(folder.path):
        dtypes = {name: dtype or precision(part) for name, part in folder.components.items()}
    takes = inspect.signature(folder.pipeline_class(DiffusionPipeline)).parameters
    lacks_tokenizer = "tokenizer" in takes and "tokenizer" not in folder.components
    given = {"tokenizer": None} if lacks_tokenizer else {}
    pipe = DiffusionPipeline.from_model_folder(folder, dtype=dtypes, **given)
    spec = task_of_pipeline(type(pipe).__name__)
    return LoadedModel(pipe, spec.name if spec else None, pipe.components)


def load_stored_first_stage(part: ComponentFolder, dtype: torch.dtype | None) -> ModelMixin:
    """Load a first stage from its folder.

    Args:
        part: The folder.
        dtype: The data type of the weights; None keeps that in which they are stored.

    Raises:
        ConfigError: If the folder is another component's.
        CheckpointError: If its weights aren't those of its configuration.
    """
    name = part.class_name
    if name not in FIRST_STAGES:
        allowed = ", ".join(FIRST_STAGES)
        raise ConfigError(
            f"{part.path} is a component of the class {name!r}; give a whole pipeline, or one of {allowed}"
        )
    vae: ModelMixin = load_alone(part, IndexEntry(part.path.name, FIRST_STAGES[name], name), dtype)
    return vae


def precision(part: ComponentFolder) -> torch.dtype:
    """The data type in which a component's weights are stored; float32 if there are several, or no weights."""
    stored = {getattr(torch, name) for name in part.dtypes}
    floats = {dtype for dtype in stored if dtype.is_floating_point}
    return floats.pop() if len(floats) == 1 else torch.float32
