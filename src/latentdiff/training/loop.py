"""THE training loop: one, for every stage, on accelerate."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.optimization import get_scheduler
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from latentdiff.data.stream import stream
from latentdiff.errors import ConfigError, LatentDiffError
from latentdiff.seeding import generator
from latentdiff.training import checkpoint
from latentdiff.training.ema import EMA
from latentdiff.training.recipes import Recipe


class Task(nn.Module, ABC):
    """What a stage adds to the loop: trainable modules as attributes, a loss, and the folder it ends as.

    `forward(batch, rng)` returns the loss () and named values to log; every draw in it comes from `rng`, a CPU
    generator of (seed, step, rank). `export(folder)` writes what pipelines load.
    """

    @abstractmethod
    def forward(self, batch: Any, rng: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of one micro-batch."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the current weights as a model folder."""


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The process group, device and precision of a run."""
    # accelerate keeps the first run's precision for the life of the process; a second run may want another.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=recipe.mixed_precision, gradient_accumulation_steps=recipe.gradient_accumulation_steps
    )


def _learning_rate(recipe: Recipe, optimizer: torch.optim.Optimizer) -> Callable[[int], float]:
    """The learning rate as a pure function of the step, which needs no state in checkpoints."""
    try:
        schedule: Any = get_scheduler(
            recipe.lr_scheduler,
            optimizer,
            num_warmup_steps=recipe.lr_warmup_steps,
            num_training_steps=recipe.max_train_steps,
        )
    except ValueError as error:
        raise ConfigError(f"lr_scheduler is {recipe.lr_scheduler!r}; {error}") from None
    factor = schedule.lr_lambdas[0]
    return lambda step: recipe.learning_rate * factor(step)


def train(task: Task, items: Dataset[Any], recipe: Recipe, accelerator: Accelerator) -> Path:
    """Train `task` on `items` and export it to `recipe.output_dir`.

    Returns:
        The folder of the final weights: EMA weights where EMA is on.

    Raises:
        LatentDiffError: If the loss stops being finite.
        CheckpointError: If the checkpoint to resume from can't be read.
    """
    output_dir = Path(recipe.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        [p for p in task.parameters() if p.requires_grad],
        lr=recipe.learning_rate,
        betas=(recipe.adam_beta1, recipe.adam_beta2),
        weight_decay=recipe.adam_weight_decay,
    )
    learning_rate = _learning_rate(recipe, optimizer)
    task.to(accelerator.device)
    ema = EMA(task, recipe.ema_decay) if recipe.ema_decay else None
    resumed = checkpoint.resolve(output_dir, recipe.resume_from_checkpoint)
    first = checkpoint.load(resumed, task, ema, optimizer) if resumed else 0
    model, optimizer = accelerator.prepare(task, optimizer)
    micro_steps, rank, world = recipe.gradient_accumulation_steps, accelerator.process_index, accelerator.num_processes
    batches = stream(
        items,
        recipe.train_batch_size,
        seed=recipe.seed,
        first_step=first * micro_steps,
        rank=rank,
        world_size=world,
        num_workers=recipe.dataloader_num_workers,
    )
    log = _Log(output_dir, recipe, accelerator)
    progress = tqdm(range(first, recipe.max_train_steps), initial=first, total=recipe.max_train_steps, disable=rank > 0)
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        for micro_step in range(micro_steps):
            batch = _to_device(next(batches), accelerator.device)
            with accelerator.accumulate(model):
                loss, values = model(batch, generator(recipe.seed, step * micro_steps + micro_step, rank))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
        if ema:
            ema.update()
        log.add({"loss": loss.detach(), **values}, step + 1, learning_rate(step), progress)
        if (step + 1) % recipe.checkpointing_steps == 0 and accelerator.is_main_process:
            checkpoint.save(output_dir, step + 1, task, ema, optimizer, recipe.checkpoints_total_limit)
    if accelerator.is_main_process:
        if ema:
            with ema.applied():
                task.export(output_dir)
        else:
            task.export(output_dir)
    accelerator.end_training()
    return output_dir


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, dict):
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return batch.to(device, non_blocking=True)


class _Log:
    """Means over `logging_steps` steps, to the progress bar and `log.jsonl`; values are read once per line only."""

    def __init__(self, output_dir: Path, recipe: Recipe, accelerator: Accelerator) -> None:
        self.path, self.every, self.accelerator = output_dir / "log.jsonl", recipe.logging_steps, accelerator
        self.images = recipe.train_batch_size * recipe.gradient_accumulation_steps * accelerator.num_processes
        self.sums: dict[str, torch.Tensor] = {}
        self.count, self.start = 0, time.perf_counter()

    def add(self, values: dict[str, torch.Tensor], step: int, lr: float, progress: Any) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
        self.count += 1
        if step % self.every:
            return
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise LatentDiffError(
                f"loss is {means['loss']} at step {step}; lower learning_rate or resume from the last checkpoint"
            )
        seconds = time.perf_counter() - self.start
        if self.accelerator.is_main_process:
            progress.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
            rate = self.count * self.images / seconds
            line = {"step": step, "images": step * self.images, "lr": lr, "images_per_second": rate, **means}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({k: float(f"{v:.6g}") for k, v in line.items()}) + "\n")
        self.sums, self.count, self.start = {}, 0, time.perf_counter()
