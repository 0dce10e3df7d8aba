"""What runs the workers that do shards: the processes of any launcher, or Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from latentdiff.bulk import processes
from latentdiff.bulk.shards import Tell, Work, missing

Engine = Literal["processes", "ray"]


def perform(work: Work, make: Callable[[], Work], tell: Tell, engine: Engine = "processes", workers: int = 0) -> None:
    """Do what is missing: this process's share of it, or by the actors of Ray all of it.

    Args:
        work: The work.
        make: Makes it once more, in an actor, to which this function is sent.
        tell: Hears of progress.
        engine: What runs the workers.
        workers: Of Ray; 0 is one for each GPU of its cluster, else for each CPU.

    Raises:
        LatentDiffError: If something that was given can't be used, or Ray can't be started.
    """
    if engine == "processes":
        return work.do(missing(work, processes.share(work.shards())), tell)
    from latentdiff.bulk.ray_engine import on_ray

    on_ray(make, [n for n, shard in enumerate(work.shards()) if not work.is_done(shard)], tell, workers)
