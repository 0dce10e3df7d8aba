"""Training checkpoints: one folder each, complete or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from latentdiff.errors import CheckpointError
from latentdiff.io.files import atomic_folder
from latentdiff.training.ema import EMA

PREFIX = "checkpoint-"


def existing(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def save(
    output_dir: Path, step: int, module: nn.Module, ema: EMA | None, optimizer: torch.optim.Optimizer, keep: int
) -> None:
    """Write `checkpoint-STEP` and drop all but the newest `keep`."""
    with atomic_folder(output_dir / f"{PREFIX}{step}") as folder:
        save_file(
            {name: p.detach().contiguous() for name, p in module.state_dict().items()}, folder / "model.safetensors"
        )
        if ema is not None:
            save_file(ema.shadow, folder / "ema.safetensors")
        with open(folder / "optimizer.pt", "wb") as file:  # given a path, torch would not say why it can't write
            torch.save(optimizer.state_dict(), file)
        state = {"step": step, "ema_updates": ema.num_updates if ema else 0}
        (folder / "state.json").write_text(json.dumps(state))
    for old in existing(output_dir)[:-keep]:
        shutil.rmtree(old)


def resolve(output_dir: Path, choice: str | None) -> Path | None:
    """The checkpoint that `resume_from_checkpoint` names: None to start anew, also for "latest" where there is none."""
    if choice is None:
        return None
    if choice == "latest":
        return (existing(output_dir) or [None])[-1]  # type: ignore[list-item]
    path = Path(choice)
    if not (path / "state.json").exists():
        names = ", ".join(p.name for p in existing(output_dir)) or "none"
        raise CheckpointError(f"{choice} is not a checkpoint; this run has {names}; give one of them or 'latest'")
    return path


def load(path: Path, module: nn.Module, ema: EMA | None, optimizer: torch.optim.Optimizer) -> int:
    """Restore a checkpoint and return its step.

    Raises:
        CheckpointError: If a file is missing or damaged, or the networks differ from the recipe's.
    """
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        module.load_state_dict(load_file(path / "model.safetensors"))
        optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True, map_location="cpu"))
        if ema is not None:
            ema.load(load_file(path / "ema.safetensors"), state["ema_updates"])
        return int(state["step"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be resumed ({reason}); use the recipe it was made with, or another"
        ) from None
