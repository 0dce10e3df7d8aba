"""What a stage adds to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.measures import Measures

Batch = TypeVar("Batch", torch.Tensor, dict[str, torch.Tensor])
"""What a task is trained on: tensors whose first dimension is the sample's."""


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`."""
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    # On MPS such a copy may read memory that has been freed meanwhile (pytorch issue 189690).
    return batch.to(device, non_blocking=device.type != "mps")


class Task(nn.Module, ABC, Generic[Batch]):
    """Trainable modules as attributes, a loss, and the folder that the run ends as.

    Attributes:
        step: Optimiser steps before this one, those before a resume included.
        measures: Metrics of what the weights make, which validation computes.
    """

    step: int = 0
    measures: Measures | None = None

    @abstractmethod
    def forward(self, batch: Batch, draws: SampleGenerators) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss () of one micro-batch, and named values () to log, all of them means over the batch.

        Args:
            batch: Items of the data set, stacked.
            draws: The generators of the batch's samples, from which all that is random comes.
        """

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the current weights as a model folder, which pipelines load."""

    def busiest_step(self, steps: int) -> int:
        """A step of a run of so many steps at which as much takes part as at any."""
        return steps - 1

    def identity(self) -> dict[str, object]:
        """What a resumed run has to have in common with the one that made its checkpoint, beside its recipe."""
        return {}

    def after_step(self, ema: EMA | None, rng: torch.Generator) -> None:
        """Change weights otherwise than by gradients, if at all, after an optimiser step and the average's update.

        Args:
            ema: The averaged weights, where they are on.
            rng: A CPU generator, the same on every process: so must the weights be afterwards.
        """

    def validate(self, folder: Path, step: int) -> dict[str, float]:
        """Look at the weights after `step` steps: in evaluation mode, without gradients, averaged where EMA is on.

        Args:
            folder: An existing folder for pictures, if there are any, named `WHAT-STEP.png`.
            step: The number to name them by.

        Returns:
            Values to log, which get the prefix `validation/`; where no metric chooses the best weights, the lowest
            "loss" does.
        """
        return {}


def recompute_activations(task: nn.Module) -> None:
    """Turn on gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) in every network that has it."""
    for module in task.modules():
        if getattr(module, "_supports_gradient_checkpointing", False):
            enable: Callable[[], None] = module.enable_gradient_checkpointing  # type: ignore[assignment]
            enable()
