"""Conversion on disk between original checkpoints and the package's folders, with one tensor in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import diffusers
import torch
import yaml
from torch import Tensor, nn
from transformers import PretrainedConfig

from latentdiff.conversion.describe import model_node
from latentdiff.conversion.original import OpenedCheckpoint, add_scheduler, add_tokenizer, open_original
from latentdiff.conversion.plan import COND_STAGE_PREFIX, FIRST_STAGE_PREFIX, ComponentPlan, make_conversion_plan
from latentdiff.errors import ConfigError, InputError
from latentdiff.io.files import atomic_folder
from latentdiff.io.safetensors_writer import write_safetensors
from latentdiff.tasks import TASKS
from latentdiff.types import JSON, Components, Float64Array, Tokenizer

BytesWritten = Callable[[int], object]
"""A function that is called with the number of bytes written since the last call."""


def check_output_is_new(out: Path) -> None:
    """InputError if there is anything at `out` that a conversion would replace."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists; choose another output folder, or delete it first")


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
    plan = opened.plan
    components: Components = {name: part.model for name, part in plan.parts.items()}
    add_scheduler(opened, components)
    if tokenizer is None:
        add_tokenizer(opened, components)
    else:
        components["tokenizer"] = tokenizer
    with atomic_folder(out) as aside:
        if plan.task is None:
            (alone,) = plan.parts.values()
            write_component(opened, alone, aside, dtype, progress)
            return opened
        if plan.task not in TASKS:
            raise ConfigError(f"there is no pipeline for {plan.task}; load its components with load_original")
        index: JSON = {
            "_class_name": TASKS[plan.task].pipeline_class,
            "_diffusers_version": diffusers.__version__,
        }
        for name, component in components.items():
            if name in plan.parts:
                write_component(opened, plan.parts[name], aside / name, dtype, progress)
            else:
                component.save_pretrained(aside / name)
            index[name] = [type(component).__module__.split(".")[0], type(component).__name__]
        (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return opened


def write_component(
    opened: OpenedCheckpoint,
    part: ComponentPlan,
    folder: Path,
    dtype: torch.dtype | None,
    progress: BytesWritten | None,
) -> None:
    """Write the configuration and the weights of one component; see `convert_original` for the arguments."""
    folder.mkdir(exist_ok=True)
    if isinstance(part.model, diffusers.ModelMixin):
        part.model.save_config(folder)
        name = "diffusion_pytorch_model.safetensors"
    else:
        config: PretrainedConfig = part.model.config
        config.architectures = [type(part.model).__name__]
        config.save_pretrained(folder)
        name = "model.safetensors"
    layout = []
    for key, names in part.map.sources.items():
        stored = opened.file.info(opened.inventory.sources.get(key, key)).dtype
        written = dtype if dtype is not None and stored.is_floating_point else stored
        layout += [(ours, written, part.map.shapes[ours]) for ours in names]
    write_safetensors(folder / name, layout, report_bytes(opened.tensors(part, dtype), progress))


def report_bytes(tensors: Iterator[tuple[str, Tensor]], progress: BytesWritten | None) -> Iterator[tuple[str, Tensor]]:
    """Pass tensors on, and call `progress` with the bytes of each when it has been used."""
    for key, tensor in tensors:
        yield key, tensor
        if progress is not None:
            progress(tensor.nbytes)


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
    node = model_node(components)
    plan = make_conversion_plan(node)
    state: dict[str, Tensor] = {}
    for name, part in plan.parts.items():
        model: nn.Module = components[name]
        ours = model.state_dict()
        if {key: tuple(tensor.shape) for key, tensor in ours.items()} != part.map.shapes:
            raise ConfigError(f"{name} is a {type(model).__name__} that the original code can't make")

        def read(key: str, ours: dict[str, Tensor] = ours) -> Tensor:
            return ours[key] if dtype is None else ours[key].to(dtype)

        state |= dict(part.map.to_original(read))
    if plan.shared_first_stage:
        first = [key for key in state if key.startswith(FIRST_STAGE_PREFIX)]
        state |= {COND_STAGE_PREFIX + key.removeprefix(FIRST_STAGE_PREFIX): state[key] for key in first}
    if plan.scheduler is not None:
        state |= schedule_buffers(components["scheduler"].schedule.betas)
    return {"model": node}, state


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


def save_original(components: Components, out: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a model in the original code's format: a folder with `config.yaml` and `model.ckpt`.

    Args:
        components: The components, as in `to_original`.
        out: The folder to make; it must not exist.
        dtype: The data type of the networks' weights; None keeps theirs.

    Raises:
        InputError: If `out` exists.
        ConfigError: If the original code can't make one of the components.
    """
    out = Path(out)
    check_output_is_new(out)
    config, state = to_original(components, dtype)
    with atomic_folder(out) as aside:
        (aside / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        contiguous = {key: tensor.detach().contiguous() for key, tensor in state.items()}
        with open(aside / "model.ckpt", "wb") as file:  # with a path, torch's error would not say why it can't write
            torch.save({"state_dict": contiguous, "global_step": 0}, file)
