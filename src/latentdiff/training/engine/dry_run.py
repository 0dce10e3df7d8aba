"""A few real steps of a run, to tell what it needs; nothing is kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch.utils.data import Dataset

from latentdiff.training.engine.belongings import check_start
from latentdiff.training.engine.failures import Interrupts, explain_out_of_memory
from latentdiff.training.engine.gradient import GradientAccumulator
from latentdiff.training.engine.loop import Run, prepare
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.session import Session
from latentdiff.training.engine.task import Batch, Task

TIMED_STEPS = 2
ENCODED_IMAGES = 64

GIB = 2**30
R_contra = TypeVar("R_contra", bound=Recipe, contravariant=True)


class Trainer(Protocol[R_contra]):
    """`train_diffusion` or another."""

    def __call__(self, recipe: R_contra, run: Run, limit: int | None) -> Path:
        """Train, by `run`, on latents of the first `limit` images."""
        ...


@dataclass
class DryRun:
    """Stands in for `train`: makes one step and times a few more, of weights that nobody keeps.

    Attributes:
        lines: What was found.
    """

    lines: list[str] = field(default_factory=list)

    def __call__(
        self,
        task: Task[Batch],
        items: Dataset[Batch],
        recipe: Recipe,
        session: Session,
        held_out: Dataset[Batch] | None = None,
    ) -> Path:
        """Measure; the folder that is returned will be gone. The arguments are those of `train`."""
        accelerator = session.accelerator
        trained = [p for p in task.parameters() if p.requires_grad]
        components = getattr(getattr(task, "pipeline", None), "components", {}).values()
        parts: list[torch.nn.Module] = [part for part in components if isinstance(part, torch.nn.Module)]
        everything = {id(p): p for module in (task, *parts) for p in module.parameters()}.values()
        frozen = sum(p.numel() for p in everything) - sum(p.numel() for p in trained)
        model, optimizer, _ = prepare(task, recipe, accelerator)
        task.step = recipe.max_train_steps - 1  # when all takes part

        with (
            explain_out_of_memory(recipe),
            closing(GradientAccumulator(model, items, recipe, accelerator, 0)) as gradient,
        ):

            def step() -> None:
                gradient(Interrupts())
                optimizer.step()
                optimizer.zero_grad()

            with _saved_bytes(everything) as saved:
                step()
            start = time.perf_counter()
            for _ in range(TIMED_STEPS):
                step()  # which waits for the device
            seconds = (time.perf_counter() - start) / TIMED_STEPS
        weights, gradients = _bytes(everything), _bytes(trained)
        moments = _bytes(tensor for state in optimizer.state.values() for tensor in state.values())
        needs = {"weights": weights, "gradients": gradients, "optimiser": moments}
        averages = 1 + len(recipe.ema.profiles) if recipe.ema.decay else 0
        needs["EMA"] = averages * 4 * sum(p.numel() for p in trained)
        needs["activations"] = sum(saved.values()) // recipe.gradient_accumulation_steps
        images = recipe.train_batch_size * recipe.gradient_accumulation_steps * accelerator.num_processes
        total: int = len(items.files)  # type: ignore[attr-defined]
        left = timedelta(seconds=round(seconds * recipe.max_train_steps))
        self.lines = [
            f"parameters: {sum(p.numel() for p in trained):,} trained, {frozen:,} frozen",
            f"memory of a process: {sum(needs.values()) / GIB:.3f} GiB = "
            + " + ".join(f"{name} {size / GIB:.3f}" for name, size in needs.items())
            + f" (of {recipe.train_batch_size} images)",
            f"data: {total:,} images, {images:,} a step, {total / images:,.2f} steps an epoch",
            f"run: {recipe.max_train_steps:,} steps, {recipe.max_train_steps * images / total:,.1f} epochs",
            f"speed: {images / seconds:,.2f} images a second here, {left} for the run without validation",
        ]
        return Path(recipe.output_dir)


def dry_run(stage: Trainer[R_contra], recipe: R_contra) -> list[str]:
    """Lines on what a run needs: parameters, memory, steps, time. Nothing is written where it would write.

    Args:
        stage: `train_diffusion` or another.
        recipe: The run's recipe.

    Raises:
        LatentDiffError: If the run would end with it before, or in, its first steps.
    """
    check_start(recipe)
    rehearsal = DryRun()
    with tempfile.TemporaryDirectory() as folder:
        there = recipe.replace(output_dir=folder, resume_from_checkpoint=None, overwrite_output_dir=False)
        stage(there, run=rehearsal, limit=ENCODED_IMAGES)
    return rehearsal.lines


@contextmanager
def _saved_bytes(parameters: Iterable[torch.Tensor]) -> Iterator[dict[int, int]]:
    """The storages, and their bytes, that are kept for backward passes in the block, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    saved: dict[int, int] = {}
    kept: list[torch.Tensor] = []  # else a storage's place would be given to another one

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in saved:
            saved[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _bytes(values: Iterable[object]) -> int:
    """The bytes of the tensors among some values."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, torch.Tensor))
