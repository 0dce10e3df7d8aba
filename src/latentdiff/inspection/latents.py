"""What a folder of latents is, which `latentdiff encode` and runs make."""

from __future__ import annotations

from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.latent_files import META, MOMENTS, PLAN, SHARDS, stamp_of
from latentdiff.types import JSON


def is_latents(target: str) -> bool:
    """Whether it is a folder of latents, finished or not."""
    folder = Path(target)
    return (folder / MOMENTS).is_file() and ((folder / META).is_file() or (folder / PLAN).is_file())


def describe_latents(target: str) -> JSON:
    """The rows of a folder of latents, and what they were made from.

    Raises:
        InputError: If one of its files is damaged.
    """
    from latentdiff.io.mapped import MappedArray  # numpy is needed for latents alone

    folder = Path(target)
    finished = (folder / META).is_file()
    stamp = stamp_of(folder, META if finished else PLAN)
    try:
        count, *shape = MappedArray(folder / MOMENTS).rows.shape
        first_stage, flip, precision = (stamp[name] for name in ("first_stage", "random_flip", "precision"))
        bad = len(stamp["bad"]) if finished else None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{target} holds damaged latents; remove the folder, and make them again with latentdiff encode"
        ) from None
    return {
        "kind": "latents, which a recipe reads by latents_dir" if finished else "unfinished latents",
        "rows": count,
        "shape": shape,
        "random_flip": flip,
        "precision": precision,
        "images_that_cannot_be_decoded": bad,
        "shards_done": None if finished else len([*(folder / SHARDS).glob("*.json")]),
        "first_stage": first_stage,
        "bytes": (folder / MOMENTS).stat().st_size,
    }
