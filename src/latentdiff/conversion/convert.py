"""Conversion on disk between original checkpoints and the package's folders, with one tensor in memory at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
import yaml
from torch import Tensor, nn
from transformers import PretrainedConfig

from latentdiff.conversion.describe import model_node
from latentdiff.conversion.original import OpenedCheckpoint, add_scheduler, add_tokenizer, open_original
from latentdiff.conversion.plan import COND_STAGE_PREFIX, FIRST_STAGE_PREFIX, ConversionPlan, make_conversion_plan
from latentdiff.conversion.weights import BytesWritten, OriginalWeights, Weights, report_bytes, weights_of
from latentdiff.errors import ConfigError, InputError
from latentdiff.io.checkpoint_writer import write_checkpoint
from latentdiff.io.files import atomic_folder
from latentdiff.io.safetensors_writer import TensorLayout, write_safetensors
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.tasks import TASKS
from latentdiff.types import JSON, Components, Float64Array, Tokenizer


def check_output_is_new(out: Path) -> None:
    """InputError if there is anything at `out` that a conversion would replace."""
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):  # a link may lead nowhere
        raise InputError(f"{out} exists; choose another output folder, or delete it first")


@dataclass(frozen=True)
class DescribedModel:
    """A model whose components are known and whose weights are read when they are written.

    Attributes:
        task: The task, as in `load_original`; None for a first stage or a classifier alone.
        components: The components, with the names of `load_original` and pipelines; networks may have no weights.
        weights: The weights of the networks.
        notes: Sentences that say what is left out and why.
    """

    task: str | None
    components: Components
    weights: Mapping[str, Weights]
    notes: tuple[str, ...] = ()


def describe_original(
    checkpoint: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, object] | None = None,
    *,
    ema: bool = True,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
) -> DescribedModel:
    """Open an original checkpoint for a conversion; arguments and errors are those of `convert_original`."""
    return _described(open_original(checkpoint, config, ema=ema), dtype, tokenizer)


def _described(opened: OpenedCheckpoint, dtype: torch.dtype | None, tokenizer: Tokenizer | None) -> DescribedModel:
    plan = opened.plan
    components: Components = {name: part.model for name, part in plan.parts.items()}
    add_scheduler(opened, components)
    if tokenizer is None:
        add_tokenizer(opened, components)
    else:
        components["tokenizer"] = tokenizer
    weights: dict[str, Weights] = {name: OriginalWeights(opened, part, dtype) for name, part in plan.parts.items()}
    return DescribedModel(plan.task, components, weights, tuple(opened.notes))


def convert_original(
    checkpoint: str | Path,
    out: str | Path,
    config: str | Path | Mapping[str, object] | None = None,
    *,
    ema: bool = True,
    dtype: torch.dtype | None = None,
    tokenizer: Tokenizer | None = None,
    progress: BytesWritten | None = None,
) -> OpenedCheckpoint:
    """Write an original checkpoint as a folder of this package: that of a pipeline, or of one component if it is alone.

    Args:
        checkpoint: The checkpoint file, as in `load_original`.
        out: The folder to make; it must not exist.
        config: The configuration, as in `load_original`.
        ema: Whether to use the averaged weights, as in `load_original`.
        dtype: The data type of the weights; None keeps that of the file.
        tokenizer: The tokenizer to save; by default that of the package, if it has the right one.
        progress: A function that is called with the number of bytes written since the last call.

    Returns:
        The checkpoint, with its plan and notes.

    Raises:
        InputError: If `out` exists.
        CheckpointError: If the checkpoint can't be read or doesn't fit its configuration, see `load_original`.
        ConfigError: If the configuration can't be converted.
    """
    out = Path(out)
    check_output_is_new(out)
    opened = open_original(checkpoint, config, ema=ema)
    model = _described(opened, dtype, tokenizer)
    if model.task is not None and model.task not in TASKS:
        raise ConfigError(f"there is no pipeline for {model.task}; load its components with load_original")
    with atomic_folder(out) as aside:
        if model.task is None:
            ((name, alone),) = model.components.items()
            write_component(alone, model.weights[name], aside, progress)
            return opened
        index: JSON = {
            "_class_name": TASKS[model.task].pipeline_class,
            "_diffusers_version": diffusers.__version__,
        }
        for name, component in model.components.items():
            if name in model.weights:
                write_component(component, model.weights[name], aside / name, progress)
            else:
                component.save_pretrained(aside / name)
            index[name] = [type(component).__module__.split(".")[0], type(component).__name__]
        (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return opened


def write_component(component: nn.Module, weights: Weights, folder: Path, progress: BytesWritten | None) -> None:
    """Write the configuration and the weights of one component; see `convert_original` for the arguments."""
    folder.mkdir(exist_ok=True)
    if isinstance(component, diffusers.ModelMixin):
        component.save_config(folder)
        name = "diffusion_pytorch_model.safetensors"
    else:
        config: PretrainedConfig = component.config
        config.architectures = [type(component).__name__]
        config.save_pretrained(folder)
        name = "model.safetensors"
    write_weights(folder / name, weights, progress)


def write_weights(path: Path, weights: Weights, progress: BytesWritten | None) -> None:
    """Write the weights of one component as a safetensors file."""
    layout = [(name, info.dtype, info.shape) for name, info in weights.infos.items()]
    tensors = ((name, weights.read(name)) for name in weights.infos)
    write_safetensors(path, layout, report_bytes(tensors, progress))


@dataclass(frozen=True)
class OriginalForm:
    """A model in the original code's format, whose weights are read when they are asked for.

    Attributes:
        config: The content of the YAML.
        layout: The name, dtype and shape of each tensor.
        copies: Further names of some of them.
        plan: The plan of the components.
        weights: Their weights.
        buffers: The tensors of the noise schedule.
    """

    config: JSON
    layout: TensorLayout
    copies: Mapping[str, str]
    plan: ConversionPlan
    weights: Mapping[str, Weights]
    buffers: Mapping[str, Tensor]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The names and tensors, in the order of the layout."""
        for name, part in self.plan.parts.items():
            yield from part.map.to_original(self.weights[name].read)
        yield from self.buffers.items()


def original_form(components: Components, weights: Mapping[str, Weights]) -> OriginalForm:
    """The original code's form of a model; no weights are read.

    Raises:
        ConfigError: If the original code can't make one of the components.
    """
    node = model_node(components)
    plan = make_conversion_plan(node)
    layout: list[tuple[str, torch.dtype, tuple[int, ...]]] = []
    for name, part in plan.parts.items():
        infos = weights[name].infos
        if {key: info.shape for key, info in infos.items()} != part.map.shapes:
            raise ConfigError(f"{name} is a {type(components[name]).__name__} that the original code can't make")
        shapes = part.map.original_shapes
        layout += [(key, infos[names[0]].dtype, shapes[key]) for key, names in part.map.sources.items()]
    copies = {}
    if plan.shared_first_stage:
        first = [key for key, _, _ in layout if key.startswith(FIRST_STAGE_PREFIX)]
        copies = {COND_STAGE_PREFIX + key.removeprefix(FIRST_STAGE_PREFIX): key for key in first}
    buffers = {} if plan.scheduler is None else schedule_buffers(DDIMScheduler(**plan.scheduler).schedule.betas)
    layout += [(key, tensor.dtype, tuple(tensor.shape)) for key, tensor in buffers.items()]
    return OriginalForm({"model": node}, layout, copies, plan, weights, buffers)


def to_original(components: Components, dtype: torch.dtype | None = None) -> tuple[JSON, dict[str, Tensor]]:
    """The original code's configuration and state dict of a model.

    Args:
        components: The components, with the names of `load_original` and `pipeline.components`; no tokenizer is needed.
        dtype: The data type of the networks' weights; None keeps theirs.

    Returns:
        The content of the YAML, and the state dict, whose tensors share memory with the components where they can.

    Raises:
        ConfigError: If the original code can't make one of the components.
    """
    form = original_form(components, weights_of(components, dtype=dtype))
    state = dict(form.tensors())
    return form.config, state | {copy: state[key] for copy, key in form.copies.items()}


def schedule_buffers(schedule: Float64Array) -> dict[str, Tensor]:
    """The tensors of the noise schedule that the original stores, each float32 (T,), from its betas (T,)."""
    betas = torch.as_tensor(schedule, dtype=torch.float64)
    alphas = torch.cumprod(1 - betas, dim=0)
    before = torch.cat([alphas.new_ones(1), alphas[:-1]])
    variance = betas * (1 - before) / (1 - alphas)
    buffers = {
        "betas": betas,
        "alphas_cumprod": alphas,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": alphas.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - alphas).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - alphas).log(),
        "sqrt_recip_alphas_cumprod": (1 / alphas).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / alphas - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - alphas),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - alphas),
    }
    return {name: tensor.float() for name, tensor in buffers.items()}


def save_original(
    components: Components,
    out: str | Path,
    dtype: torch.dtype | None = None,
    *,
    weights: Mapping[str, Weights] | None = None,
    progress: BytesWritten | None = None,
) -> None:
    """Write a model in the original code's format: a folder with `config.yaml` and `model.ckpt`.

    Args:
        components: The components, as in `to_original`.
        out: The folder to make; it must not exist.
        dtype: The data type of the networks' weights; None keeps theirs.
        weights: The weights of networks that have none in memory.
        progress: A function that is called with the number of bytes written since the last call.

    Raises:
        InputError: If `out` exists.
        ConfigError: If the original code can't make one of the components; no weights have been read then.
    """
    out = Path(out)
    check_output_is_new(out)
    form = original_form(components, weights_of(components, weights, dtype))
    with atomic_folder(out) as aside:
        (aside / "config.yaml").write_text(yaml.safe_dump(form.config, sort_keys=False), encoding="utf-8")
        tensors = report_bytes(form.tensors(), progress)
        write_checkpoint(aside / "model.ckpt", form.layout, tensors, copies=form.copies, metadata={"global_step": 0})
