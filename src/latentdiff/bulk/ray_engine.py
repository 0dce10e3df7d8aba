"""Shards by Ray Data: actors of its cluster take them, and one that is lost is started anew."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from latentdiff.bulk.shards import Tell, Told, Work
from latentdiff.errors import InputError, LatentDiffError

if TYPE_CHECKING:
    from latentdiff.types import Array

Rows = dict[str, "Array"]
"""A batch of Ray Data: columns of equal length."""


class _Worker:
    """An actor: it makes the work once, and does the shards that it is given."""

    def __init__(self, make: Callable[[], Work], folder: str) -> None:
        os.chdir(folder)  # by which paths are meant
        self.work: Work | None = None
        self.error = ""
        try:
            self.work = make()
        except LatentDiffError as error:  # an actor that can't be made would be tried again and again
            self.error = str(error)

    def __call__(self, rows: Rows) -> Rows:
        """What was told of each shard, as JSON, and the error of it, if there was one."""
        told: list[Told] = []
        for number in rows["number"]:
            try:
                if self.work is not None:
                    shard = self.work.shards()[int(number)]
                    # One that an actor had finished before it was lost comes a second time.
                    self.work.do([] if self.work.is_done(shard) else [shard], told.append)
            except LatentDiffError as error:
                self.error = str(error)
        text = json.dumps([asdict(one) for one in told])
        return {"told": np.array([text]), "error": np.array([self.error])}


def on_ray(make: Callable[[], Work], numbers: Sequence[int], tell: Tell, workers: int = 0) -> None:
    """Do some shards on the cluster of `RAY_ADDRESS`, or on this machine if there is none.

    All machines of the cluster have to see the same folders and files.

    Args:
        make: Makes the work, in each actor.
        numbers: The places of the shards among the work's.
        tell: Hears of what the actors tell.
        workers: The number of actors; 0 is one for each GPU of the cluster, else for each CPU.

    Raises:
        InputError: If the cluster can't be reached, or an actor says that something can't be used.
    """
    import ray

    if not numbers:
        return
    ours = not ray.is_initialized()
    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise InputError(f"Ray can't be started or reached ({' '.join(str(error).split())})") from None
    try:
        resources = ray.cluster_resources()
        kind = "GPU" if resources.get("GPU") else "CPU"
        actors = min(workers or int(resources.get(kind, 1)), len(numbers))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        rows = ray.data.from_items([{"number": number} for number in numbers], override_num_blocks=len(numbers))
        done = rows.map_batches(
            _Worker,
            fn_constructor_args=(make, os.getcwd()),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
            num_gpus=int(kind == "GPU"),
        )
        for row in done.iter_rows():
            for told in json.loads(row["told"]):
                tell(Told(**told))
            if row["error"]:
                raise InputError(row["error"])
    finally:
        if ours:
            ray.shutdown()
