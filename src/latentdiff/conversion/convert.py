"""From one form of a model to another, on disk, one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from torch import Tensor, nn

from latentdiff.conversion.describe import model_node
from latentdiff.conversion.original import Opened, add_tokenizer, finish, open_original
from latentdiff.conversion.plan import COND_STAGE, FIRST_STAGE, Part, make_conversion_plan
from latentdiff.errors import ConfigError, InputError
from latentdiff.io.files import atomic_folder
from latentdiff.io.safetensors_writer import write_safetensors
from latentdiff.tasks import TASKS

Progress = Callable[[int], object]
Layout = list[tuple[str, torch.dtype, tuple[int, ...]]]


def check_new(out: Path) -> None:
    """InputError if something stands at `out` that a conversion would replace."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists; choose another output folder, or delete it first")


def convert_original(
    checkpoint: str | Path,
    out: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    ema: bool = True,
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> Opened:
    """Write an original checkpoint as a latentdiff folder: a pipeline's, or a component's for one alone.

    Args:
        checkpoint: As in `load_original`.
        out: The folder to make; it must not exist.
        config: As in `load_original`.
        ema: As in `load_original`.
        dtype: Of the weights; None keeps what the file has.
        tokenizer: Saved along with the text encoder, if given.
        progress: Called with the number of bytes written since the last call.

    Returns:
        What the checkpoint turned out to be.

    Raises:
        InputError: If `out` exists.
        LatentDiffError: As `load_original`.
    """
    out = Path(out)
    check_new(out)
    opened = open_original(checkpoint, config, ema=ema)
    plan = opened.plan
    extra: dict[str, Any] = {name: part.model for name, part in plan.parts.items()}
    finish(opened, extra)
    if tokenizer is None:
        add_tokenizer(opened, extra)
        tokenizer = extra.get("tokenizer")
    with atomic_folder(out) as aside:
        if plan.task is None:
            (alone,) = plan.parts.values()
            write_part(opened, alone, aside, dtype, progress)
            return opened
        if plan.task not in TASKS:
            raise ConfigError(f"there is no pipeline for {plan.task}; load its components with load_original")
        index: dict[str, Any] = {
            "_class_name": TASKS[plan.task].pipeline_class,
            "_diffusers_version": diffusers.__version__,
        }
        for name, part in plan.parts.items():
            write_part(opened, part, aside / name, dtype, progress)
            index[name] = [type(part.model).__module__.split(".")[0], type(part.model).__name__]
        extra["scheduler"].save_pretrained(aside / "scheduler")
        index["scheduler"] = ["latentdiff", type(extra["scheduler"]).__name__]
        if tokenizer is not None:
            tokenizer.save_pretrained(aside / "tokenizer")
            index["tokenizer"] = [type(tokenizer).__module__.split(".")[0], type(tokenizer).__name__]
        (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return opened


def write_part(opened: Opened, part: Part, folder: Path, dtype: torch.dtype | None, progress: Progress | None) -> None:
    """Write one component's configuration and weights."""
    folder.mkdir(exist_ok=True)
    model: Any = part.model
    if isinstance(model, diffusers.ModelMixin):
        model.save_config(folder)
        name = "diffusion_pytorch_model.safetensors"
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        name = "model.safetensors"
    layout: Layout = []
    for key, names in part.map.sources.items():
        stored = opened.file.info(opened.stock.sources.get(key, key)).dtype
        kind = dtype if dtype is not None and stored.is_floating_point else stored
        layout += [(ours, kind, part.map.shapes[ours]) for ours in names]
    write_safetensors(folder / name, layout, counted(opened.tensors(part, dtype), progress))


def counted(tensors: Iterator[tuple[str, Tensor]], progress: Progress | None) -> Iterator[tuple[str, Tensor]]:
    """Pass tensors on and report their bytes."""
    for key, tensor in tensors:
        yield key, tensor
        if progress is not None:
            progress(tensor.nbytes)


def to_original(
    components: Mapping[str, Any], dtype: torch.dtype | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The original code's configuration and state dict of a model.

    Args:
        components: As `load_original` and `pipeline.components` name them; tokenizers are not needed.
        dtype: Of the networks' weights; None keeps theirs.

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
        first = [key for key in state if key.startswith(FIRST_STAGE)]
        state |= {COND_STAGE + key.removeprefix(FIRST_STAGE): state[key] for key in first}
    if plan.scheduler is not None:
        state |= schedule_buffers(components["scheduler"].schedule.betas)
    return {"model": node}, state


def schedule_buffers(betas: Any) -> dict[str, Tensor]:
    """The tensors of the noise schedule that the original stores, (T,), float32, of its betas in float64."""
    betas = torch.as_tensor(betas, dtype=torch.float64)
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


def save_original(components: Mapping[str, Any], out: str | Path, dtype: torch.dtype | None = None) -> None:
    """Write a model as the original code keeps it: a folder with `config.yaml` and `model.ckpt`.

    Raises:
        InputError: If `out` exists.
        ConfigError: As `to_original`.
    """
    out = Path(out)
    check_new(out)
    config, state = to_original(components, dtype)
    with atomic_folder(out) as aside:
        (aside / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        contiguous = {key: tensor.detach().contiguous() for key, tensor in state.items()}
        with open(aside / "model.ckpt", "wb") as file:  # given a path, torch would not say why it can't write
            torch.save({"state_dict": contiguous, "global_step": 0}, file)
