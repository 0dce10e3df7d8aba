"""Several processes of one command, as `accelerate launch` or torchrun starts them: each takes its share."""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Sequence
from typing import TypeVar

from latentdiff.errors import InputError
from latentdiff.io.system import usable_cores

Piece = TypeVar("Piece")

LONGEST_WAIT = datetime.timedelta(days=7)


def rank() -> int:
    """The number of this process, from 0."""
    return _variable("RANK", 0)


def local_rank() -> int:
    """The number of this process on its machine, which has a device for each."""
    return _variable("LOCAL_RANK", 0)


def count() -> int:
    """How many processes there are."""
    return _variable("WORLD_SIZE", 1)


def cores() -> int:
    """The cores for this process, where those of one machine share them."""
    return max(1, usable_cores() // max(1, _variable("LOCAL_WORLD_SIZE", 1)))


def share(parts: Sequence[Piece]) -> Sequence[Piece]:
    """This process's parts of the work."""
    return parts[rank() :: count()]


def wait_for_others() -> None:
    """Return when all processes are here: a launcher stops the others when one ends with an exit code other than 0."""
    if count() == 1 or not have_launcher():
        return
    import torch.distributed as dist

    if not dist.is_initialized():  # a command may wait twice, and a launcher's store takes one group
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
        atexit.register(dist.destroy_process_group)
    dist.barrier()


def finishes() -> bool:
    """Whether this process is to put the results together once all is done: the first of those that waited.

    The jobs of an array don't wait for one another: whichever finds all done does it.
    """
    return rank() == 0 or not have_launcher()


def have_launcher() -> bool:
    """Whether a launcher started the processes, which can then wait for one another; the jobs of an array can't."""
    return "MASTER_ADDR" in os.environ


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise InputError(f"the environment variable {name} is {text!r}; it must be an integer, as launchers set it")
    return int(text)
