"""The folders that `latentdiff convert` takes: a pipeline's, a hub model's, or a first stage's alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import ModelMixin
from torch import nn
from transformers import PreTrainedModel

from latentdiff.conversion.convert import DescribedModel
from latentdiff.conversion.weights import FileWeights, Weights
from latentdiff.errors import ConfigError
from latentdiff.hub.component_folder import ComponentFolder, library_errors
from latentdiff.hub.components import FIRST_STAGES, check_component, component_class
from latentdiff.hub.construction import bounded
from latentdiff.hub.folder import ModelFolder
from latentdiff.hub.index import IndexEntry
from latentdiff.hub.networks import STOCK_UNETS, load_alone
from latentdiff.inspection.model import is_component
from latentdiff.io.tensor_files import open_tensors
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.tasks import task_of_pipeline


def load_folder(source: str, dtype: torch.dtype | None) -> DiffusionPipeline | ModelMixin:
    """Load a pipeline or a first stage from its folder. A tokenizer may be missing: no other form of a model needs one.

    Args:
        source: A folder, a hub id or "builtin:NAME".
        dtype: The data type of the weights; None keeps that in which each component is stored.

    Raises:
        LatentDiffError: If there is no such model, or it can't be loaded; see `DiffusionPipeline.from_pretrained`.
    """
    if is_component(source):
        return load_stored_first_stage(ComponentFolder.open(Path(source)), dtype)
    return _load(ModelFolder.open(source), dtype, {})


def describe_folder(source: str, dtype: torch.dtype | None) -> DescribedModel:
    """Open a folder for a conversion; weights are read when they are written, if they have our names there.

    Arguments and errors are those of `load_folder`.
    """
    if is_component(source):
        vae = load_stored_first_stage(ComponentFolder.open(Path(source)), dtype)
        return DescribedModel(None, {"vae": vae}, {})
    folder = ModelFolder.open(source)
    networks: dict[str, nn.Module] = {}
    weights: dict[str, Weights] = {}
    for name, part in folder.check(folder.pipeline_class(DiffusionPipeline), given=("tokenizer",)).components.items():
        with library_errors(folder.path), bounded([part]):
            network = _empty(name, part, folder.index.components[name])
        if network is None:
            continue
        read = FileWeights([open_tensors(path) for path in part.weight_paths], dtype)
        needed = {key: (tuple(t.shape), t.is_floating_point()) for key, t in network.state_dict().items()}
        if needed == {key: (info.shape, info.dtype.is_floating_point) for key, info in read.infos.items()}:
            networks[name], weights[name] = network, read
    pipe = _load(folder, dtype, networks)
    spec = task_of_pipeline(type(pipe).__name__)
    return DescribedModel(spec.name if spec else None, pipe.components, weights)


def _load(folder: ModelFolder, dtype: torch.dtype | None, networks: Mapping[str, nn.Module]) -> DiffusionPipeline:
    """Load a pipeline around the networks that there are already."""
    with library_errors(folder.path):
        dtypes = {name: dtype or precision(part) for name, part in folder.components.items()}
    takes = inspect.signature(folder.pipeline_class(DiffusionPipeline)).parameters
    lacks_tokenizer = "tokenizer" in takes and "tokenizer" not in folder.components
    given: dict[str, Any] = {**networks, **({"tokenizer": None} if lacks_tokenizer else {})}
    pipe: DiffusionPipeline = DiffusionPipeline.from_model_folder(folder, dtype=dtypes, **given)
    return pipe


def _empty(name: str, part: ComponentFolder, entry: IndexEntry) -> nn.Module | None:
    """A component without weights; None if it is no network, or one that has other names in its files than here."""
    if not part.weights or part.has_old_attention or entry.folder != name:
        return None
    check_component(part, entry)
    found = component_class(part.path.parent, entry)
    if entry.library == "diffusers" and entry.class_name in STOCK_UNETS:
        found = UNet2DConditionModel
    with init_empty_weights(include_buffers=False):
        if issubclass(found, PreTrainedModel):
            made: nn.Module = found(found.config_class.from_dict(part.config)).eval()
            return made
        try:
            network: nn.Module = found.from_config(part.config).eval()
        except ConfigError:
            return None  # a stock UNet outside our configuration space
    return network


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
