"""The gradient of one optimiser step, over its micro-batches and all processes."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Generic

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn
from torch.utils.data import Dataset

from latentdiff.data.stream import sample_numbers, stream
from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.failures import Interrupts
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.sharding import full
from latentdiff.training.engine.task import Batch, to_device
from latentdiff.training.engine.zero import skippable


class GradientAccumulator(Generic[Batch]):
    """Leaves the clipped gradient of the next step in the parameters, and tells all processes the same of it.

    DeepSpeed makes the step as well, unless the gradient isn't finite.

    Args:
        model: A task, prepared by `accelerator`.
        items: The data that it is trained on.
        recipe: The run's recipe.
        accelerator: The run's processes and precision.
        first: The number of steps already made.
    """

    def __init__(self, model: nn.Module, items: Dataset[Batch], recipe: Recipe, accelerator: Accelerator, first: int):
        self.model, self.recipe, self.accelerator = model, recipe, accelerator
        self.zero = accelerator.distributed_type == DistributedType.DEEPSPEED
        self.batches: Generator[tuple[Batch, SampleGenerators], None, None] = self._batches(
            items, first * recipe.gradient_accumulation_steps
        )
        self.upcoming: tuple[Batch, SampleGenerators] = next(self.batches)

    def __call__(self, interrupts: Interrupts) -> dict[str, float]:
        """Compute the gradient.

        Args:
            interrupts: The signals that this process is sent, until the end of the backward pass.

        Returns:
            Means over the batch of all processes: the "loss" and the task's values; "grad_norm" before clipping;
            "data_wait", the seconds in which the device had nothing to do until the next batch came; and "signal",
            which is 0 if no process was sent any.
        """
        micro_steps = self.recipe.gradient_accumulation_steps
        means: dict[str, torch.Tensor] = {}
        waited = 0.0
        for _ in range(micro_steps):
            batch, draws = self.upcoming
            torch.manual_seed(draws.rows[0].initial_seed())  # for layers that draw by themselves, such as dropout
            with self.accelerator.accumulate(self.model):
                loss, values = self.model(to_device(batch, self.accelerator.device), draws)
                self.accelerator.backward(skippable(loss) if self.zero else loss)
            waited += self._next_batch()  # while the device is still at work, as the next lines wait for it
            for name, value in {"loss": loss, **values}.items():
                means[name] = means.get(name, 0) + value.detach().float() / micro_steps
        limit = self.recipe.optimizer.max_grad_norm
        norm = full(self.accelerator.clip_grad_norm_(self.model.parameters(), limit), loss.device)
        means |= {"grad_norm": norm, "data_wait": torch.full_like(norm, waited)}
        means |= {"signal": torch.full_like(norm, interrupts.number)}
        return self._agreed(means)

    def close(self) -> None:
        """End the processes that read images."""
        self.batches.close()

    def _next_batch(self) -> float:
        """Have the next batch ready, and return the seconds that the device may have waited for it.

        Whether a GPU has come to its end meanwhile is asked without waiting for it: if so, it has waited for a part of
        the time, and all of it counts; if not, the batch was there in time.
        """
        queued = None
        if self.accelerator.device.type == "cuda":
            queued = torch.Event(self.accelerator.device)
            queued.record()
        start = time.perf_counter()
        self.upcoming = next(self.batches)
        return time.perf_counter() - start if queued is None or queued.query() else 0.0

    def _agreed(self, means: dict[str, torch.Tensor]) -> dict[str, float]:
        """Means over processes: one vector a step is sent and read, by which all of them do the same next."""
        vector = torch.stack([value.float() for value in means.values()])
        agreed: torch.Tensor = self.accelerator.reduce(vector, "mean")
        return dict(zip(means, agreed.tolist(), strict=True))

    def _batches(self, items: Dataset[Batch], micro_step: int) -> Generator[tuple[Batch, SampleGenerators], None, None]:
        """This process's batches from a micro-step on, and what is drawn for them."""
        size, seed = self.recipe.train_batch_size, self.recipe.seed
        rank, world_size = self.accelerator.process_index, self.accelerator.num_processes
        for batch in stream(
            items,
            size,
            seed=seed,
            first_step=micro_step,
            rank=rank,
            world_size=world_size,
            num_workers=self.recipe.data.num_workers,
            samples_in_step=size * world_size * self.recipe.gradient_accumulation_steps,
        ):
            yield batch, SampleGenerators(seed, sample_numbers(micro_step, size, rank, world_size))
            micro_step += 1
