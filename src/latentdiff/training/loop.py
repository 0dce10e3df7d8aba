"""THE training loop: one, for every stage, on accelerate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
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
from latentdiff.errors import ConfigError
from latentdiff.seeding import generator
from latentdiff.training import checkpoint
from latentdiff.training.ema import EMA
from latentdiff.training.log import Log
from latentdiff.training.recipes import Recipe


class Task(nn.Module, ABC):
    """What a stage adds to the loop: trainable modules as attributes, a loss, and the folder it ends as.

    `forward(batch, rng)` returns the loss () and named values to log; every draw in it comes from `rng`, a CPU
    generator of (seed, step, rank). `export(folder)` writes what pipelines load. `validate(folder, step)` may look at
    what has been learned.
    """

    @abstractmethod
    def forward(self, batch: Any, rng: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of one micro-batch."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the current weights as a model folder."""

    def validate(self, folder: Path, step: int) -> dict[str, float]:
        """Look at the weights after `step` steps: in evaluation mode, without gradients, averaged where EMA is on.

        Args:
            folder: For pictures, if any; it exists.
            step: To name them by.

        Returns:
            Values to log, which get the prefix `validation/`.
        """
        return {}


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
    log = Log(output_dir, recipe, accelerator)
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
        if recipe.validation_steps and (step + 1) % recipe.validation_steps == 0 and accelerator.is_main_process:
            log.write(step + 1, _validate(task, ema, output_dir / "validation", step + 1))
        if (step + 1) % recipe.checkpointing_steps == 0 and accelerator.is_main_process:
            checkpoint.save(output_dir, step + 1, task, ema, optimizer, recipe.checkpoints_total_limit)
    if accelerator.is_main_process:
        with ema.applied() if ema else nullcontext():
            task.export(output_dir)
    accelerator.end_training()
    return output_dir


@torch.no_grad()
def _validate(task: Task, ema: EMA | None, folder: Path, step: int) -> dict[str, float]:
    """What the task finds with the averaged weights; its modules' modes are as before afterwards."""
    folder.mkdir(exist_ok=True)
    modes = {module: module.training for module in task.modules()}
    task.eval()
    with ema.applied() if ema else nullcontext():
        values = task.validate(folder, step)
    for module, mode in modes.items():
        module.training = mode
    return {f"validation/{name}": value for name, value in values.items()}


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, dict):
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return batch.to(device, non_blocking=True)
