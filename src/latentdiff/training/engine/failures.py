"""What the system may refuse during a run: memory, said with what can be done about it, and writes that it survives."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from latentdiff.errors import LatentDiffError, LatentDiffWarning
from latentdiff.io.files import system_errno
from latentdiff.training.recipes.stages import Recipe

# Of errors that have no type of their own: of the CPU's allocator, of GPU libraries, of a worker that the system ended.
SIGNS = ("can't allocate memory", "not enough memory", "_ALLOC_FAILED", "killed by signal: Killed")

# Options to what to do with them, and the values at which there is nothing left to do.
LEVERS: dict[str, tuple[str, tuple[object, ...]]] = {
    "train_batch_size": ("lower train_batch_size (it is {}) and raise gradient_accumulation_steps as much", (1,)),
    "gradient_checkpointing": ("set gradient_checkpointing", (True,)),
    "mixed_precision": ("set mixed_precision to bf16 (it is {})", ("bf16", "fp16")),
    "dataloader_num_workers": ("lower dataloader_num_workers (it is {})", (0,)),
    "resolution": ("lower resolution (it is {})", ()),
}


@contextmanager
def explain_out_of_memory(recipe: Recipe) -> Iterator[None]:
    """Turn an error for want of memory, on a GPU or the CPU, into a LatentDiffError that says what lowers the need."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and not any(sign in str(error) for sign in SIGNS):
            raise
        reason = (str(error).splitlines() or ["no memory left"])[0].split(". GPU")[0]
        values = {name: getattr(recipe, name) for name in LEVERS if hasattr(recipe, name)}
        levers = [LEVERS[name][0].format(value) for name, value in values.items() if value not in LEVERS[name][1]]
        raise LatentDiffError(f"not enough memory for a step ({reason}): {', '.join(levers)}") from None


@contextmanager
def tolerate_os_errors(what: str, then: Callable[[], str]) -> Iterator[None]:
    """Turn an error of the system in the block into a warning.

    Args:
        what: Was tried.
        then: What is the case now, said in case of an error.
    """
    try:
        yield
    except Exception as error:
        number = system_errno(error)
        if not number:
            raise
        warnings.warn(LatentDiffWarning(f"{what} failed ({os.strerror(number)}); {then()}"), stacklevel=3)
