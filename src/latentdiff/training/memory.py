"""Too little memory for a training step, said with what can be done about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from latentdiff.errors import LatentDiffError
from latentdiff.training.recipes import Recipe

# Of errors that have no type of their own: of the CPU's allocator, of GPU libraries, of a worker that the system ended.
SIGNS = ("can't allocate memory", "not enough memory", "_ALLOC_FAILED", "killed by signal: Killed")

LEVERS = {
    "train_batch_size": "lower train_batch_size (it is {}) and raise gradient_accumulation_steps as much",
    "gradient_checkpointing": "set gradient_checkpointing (it is {})",
    "mixed_precision": "set mixed_precision to bf16 (it is {})",
    "resolution": "lower resolution (it is {})",
    "dataloader_num_workers": "lower dataloader_num_workers (it is {})",
}


@contextmanager
def named_levers(recipe: Recipe) -> Iterator[None]:
    """Turn an error for want of memory, on a GPU or the CPU, into a LatentDiffError that says what lowers the need."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        sign = any(sign in str(error) for sign in SIGNS)
        if type(error) is RuntimeError and not sign:
            raise
        reason = (str(error).splitlines() or ["no memory left"])[0].split(". GPU")[0]
        levers = [text.format(getattr(recipe, name)) for name, text in LEVERS.items() if hasattr(recipe, name)]
        raise LatentDiffError(f"not enough memory for a step ({reason}): {', '.join(levers)}") from None
