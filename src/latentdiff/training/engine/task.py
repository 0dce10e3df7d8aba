"""What a stage adds to the training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.ema import EMA


class Task(nn.Module, ABC):
    """Trainable modules as attributes, a loss, and the folder that it ends as.

    Attributes:
        step: Optimiser steps before this one, those before a resume included.
    """

    step: int = 0

    @abstractmethod
    def forward(self, batch: Any, draws: SampleGenerators) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss () of one micro-batch, and named values () to log, all of them means over the batch.

        Args:
            batch: Of the data set's items.
            draws: Of the batch's samples; what is random comes from it.
        """

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write the current weights as a model folder, which pipelines load."""

    def after_step(self, ema: EMA | None, rng: torch.Generator) -> None:
        """Change weights otherwise than by gradients, if at all, after an optimiser step and the average's update.

        Args:
            ema: The averaged weights, where they are on.
            rng: A CPU generator, the same on every process: so must the weights be afterwards.
        """

    def validate(self, folder: Path, step: int) -> dict[str, float]:
        """Look at the weights after `step` steps: in evaluation mode, without gradients, averaged where EMA is on.

        Args:
            folder: For pictures, if any, named `WHAT-STEP.png`; it exists.
            step: To name them by.

        Returns:
            Values to log, which get the prefix `validation/`; the lowest "loss" so far makes these weights the best.
        """
        return {}


def recompute_activations(task: Task) -> None:
    """Turn on gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) in every network that has it."""
    for module in task.modules():
        if getattr(module, "_supports_gradient_checkpointing", False):
            cast(Any, module).enable_gradient_checkpointing()
