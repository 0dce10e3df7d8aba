"""A run from its first look at the folder on: the processes it has, and the folder that it has for itself."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from latentdiff.compat import forget_accelerate_settings
from latentdiff.config import check
from latentdiff.errors import ConfigError, InputError, LatentDiffError, LatentDiffWarning, one_line
from latentdiff.io.lock import locked
from latentdiff.io.staging import recover_all
from latentdiff.progress import above_bars
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.belongings import WRITTEN_IN, check_start, remove_belongings, results
from latentdiff.training.engine.failures import deaf_to_saves
from latentdiff.training.engine.optimizers import check_optimizer
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.trackers import tracker_options

Found = TypeVar("Found")


@dataclass(frozen=True)
class Session:
    """What a run has while it is at work.

    Attributes:
        recipe: The run's recipe.
        accelerator: Its processes, device and precision.
        checkpoint: The checkpoint that it goes on from; None if it starts anew.
        started: The value of `time.monotonic` at which it began.
    """

    recipe: Recipe
    accelerator: Accelerator
    checkpoint: Path | None
    started: float = field(default_factory=time.monotonic)

    @property
    def deadline(self) -> float:
        """The value of `time.monotonic` at which the time that the recipe gives it is up."""
        hours = self.recipe.max_hours
        return math.inf if hours is None else self.started + 3600 * hours

    @property
    def output_dir(self) -> Path:
        """The folder of the run."""
        return Path(self.recipe.output_dir)

    def clear(self) -> None:
        """Remove what an earlier run has in the folder, if the recipe says so; all processes have to call it."""
        if self.recipe.overwrite_output_dir:
            agreed(self.accelerator, lambda: remove_belongings(self.recipe))

    def came_further(self) -> bool:
        """Whether the run that this one goes on from has results, or whole checkpoints of more steps."""
        after = -1 if self.checkpoint is None else checkpoint.step_of(self.checkpoint)
        later = [path for path in checkpoint.existing(self.output_dir) if checkpoint.step_of(path) > after]
        return bool(results(self.recipe)) or any(checkpoint.damage(path) is None for path in later)


@contextmanager
def open_session(recipe: Recipe) -> Iterator[Session]:
    """Set up a run, and keep its folder from other runs until the block ends; all processes have to enter it.

    What killed runs left aside in the folder is put back or removed, and nothing else is changed. Inside the block
    warnings stand above bars.

    Raises:
        ConfigError: If the run can't be set up so on this machine.
        LatentDiffError: If it may not begin in this folder; see `check_start`.
    """
    started = time.monotonic()
    accelerator, folder = make_accelerator(recipe), Path(recipe.output_dir)
    check_optimizer(recipe, accelerator.device)
    with ExitStack() as stack:
        stack.enter_context(deaf_to_saves())

        def enter() -> Path | None:
            if not folder.is_dir():
                check_start(recipe)
                folder.mkdir(parents=True)
                stack.callback(_remove_if_empty, folder)
            stack.enter_context(locked(folder))
            for place in (folder, *(folder / name for name in WRITTEN_IN)):
                recover_all(place)
            return check_start(recipe)

        stack.enter_context(above_bars())
        yield Session(recipe, accelerator, agreed(accelerator, enter), started)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """Set up the process group, device and precision of a run.

    Raises:
        ConfigError: If the device doesn't train in that precision or by that kind of shards, the tracker isn't
            installed, or the processes don't find each other.
    """
    for name in recipe.validation.unused():
        line = f"validation.{name} goes unused, as validation.steps is 0"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)
    cpu = not torch.accelerator.is_available()
    for kind in ("FSDP", "DEEPSPEED"):
        ignored = cpu and os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true"
        check(not ignored, f"accelerate is configured for {kind}, which it does not do on CPUs; leave it out")
    forget_accelerate_settings()  # a second run of this process may want another precision
    trackers = tracker_options(recipe.report_to, recipe.output_dir)
    try:
        accelerator = Accelerator(
            cpu=cpu,  # unless told, processes on CPUs would not know of each other
            mixed_precision=recipe.mixed_precision,
            gradient_accumulation_steps=recipe.gradient_accumulation_steps,
            # The main process alone looks at samples, while the others wait for it.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
            **trackers,
        )
    except (ValueError, TypeError, KeyError, RuntimeError, ImportError, OSError) as error:
        raise ConfigError(
            f"accelerate can't set up a run with mixed_precision {recipe.mixed_precision!r} here ({one_line(error)}); "
            "choose another, or mend the launcher's configuration and environment"
        ) from None
    fits = recipe.mixed_precision != "fp16" or accelerator.device.type != "cpu"  # accelerate would compute in fp32
    check(fits, "mixed_precision is 'fp16', which CPUs don't train in; give 'bf16' or 'no'")
    return accelerator


def agreed(accelerator: Accelerator, function: Callable[[], Found]) -> Found:
    """What a function gives on the main process, for all of them; all raise its error, so that none waits for others.

    Raises:
        LatentDiffError: That of the function, or if the system doesn't allow what it does.
    """
    outcome: Found | LatentDiffError | None = None
    if accelerator.is_main_process:
        try:
            outcome = function()
        except LatentDiffError as error:
            outcome = error
        except OSError as error:
            outcome = InputError(f"cannot begin in the output folder ({one_line(error)}); give another output_dir")
    (outcome,) = broadcast_object_list([outcome])
    if isinstance(outcome, LatentDiffError):
        raise outcome
    return outcome


def together(function: Callable[[], None]) -> None:
    """Call a function on every process, each of which does its share; all raise the first error that one has.

    Raises:
        LatentDiffError: That of the function.
        OSError: Likewise.
    """
    error: Exception | None = None
    try:
        function()
    except (LatentDiffError, OSError) as found:
        error = found
    errors: list[Exception | None] = gather_object([error])
    first = next(filter(None, errors), None)
    if first is not None:
        raise first


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
