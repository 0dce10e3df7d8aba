"""Models of averaged weights of any width, which are put together after training (Karras et al. 2024, "EDM2")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from latentdiff.errors import CheckpointError, ConfigError, InputError
from latentdiff.hub.index import INDEX
from latentdiff.io.files import check_writable
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.training.engine.ema_snapshots import Snapshots
from latentdiff.training.engine.export import export_folder
from latentdiff.training.first_stage.autoencoder import load_first_stage

FARTHEST = 0.3
"""Relative difference from the wanted profile above which a combination says nothing of it."""


@dataclass(frozen=True)
class Reconstruction:
    """A model that was put together.

    Attributes:
        folder: Its folder.
        snapshots: The number of snapshots.
        updates: The update whose average it is.
        error: The relative difference between the wanted profile and the combination; see `Combination`.
    """

    folder: Path
    snapshots: int
    updates: int
    error: float


def reconstruct_ema(
    run: str | Path, sigma_rel: float, output: str | Path, *, step: int | None = None
) -> Reconstruction:
    """Write the model of a run with weights averaged over another width.

    Args:
        run: The folder of a run with `ema.profiles`, which has ended, with `pipeline/` or `vae/`.
        sigma_rel: The width: the standard deviation of the times that are averaged over, relative to the end.
        output: The folder to make.
        step: The step of the snapshot at which the average ends; by default the newest.

    Returns:
        What was made.

    Raises:
        InputError: If there is no such run, snapshot or model, or the output exists.
        ConfigError: If no average has that width, or the snapshots are too far apart for it.
        CheckpointError: If snapshots are damaged, or don't belong together or to the model.
    """
    run, folder = Path(run), check_writable(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{output} exists already; choose another output")
    snapshots = Snapshots.of(run, step)
    combination = snapshots.combination(sigma_rel)
    if combination.error > FARTHEST:
        raise ConfigError(
            f"sigma_rel is {sigma_rel:g}, which the snapshots of {run} can't be combined to (they come no nearer than "
            f"{combination.error:.0%}); give a width nearer to {' or '.join(snapshots.widths)}, or store more snapshots"
        )
    if (run / "pipeline" / INDEX).is_file():
        pipeline = DiffusionPipeline.from_pretrained(run / "pipeline")
        parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
        write, components = pipeline.save_pretrained, [*pipeline.components]
    elif (run / "vae" / "config.json").is_file():
        vae = load_first_stage(str(run / "vae"))
        parts, write, components = {"vae": vae}, vae.save_pretrained, ["."]
    else:
        raise InputError(f"{run} holds neither pipeline/ nor vae/, which a run ends as; give a run that has ended")
    _take_over(parts, snapshots.averages(combination), run)
    export_folder(folder, write, components)
    return Reconstruction(folder, len(snapshots.files), max(snapshots.updates.values()), combination.error)


@torch.no_grad()
def _take_over(parts: Mapping[str, torch.nn.Module], averages: Iterable[tuple[str, torch.Tensor]], run: Path) -> None:
    """Give networks their averaged weights; what was trained beside them, such as a discriminator, is left out."""
    own = {name: dict(part.named_parameters()) for name, part in parts.items()}
    taken = 0
    for name, average in averages:
        part, _, parameter = name.partition(".")
        if part not in own:
            continue
        target = own[part].get(parameter)
        if target is None or target.shape != average.shape:
            raise CheckpointError(f"the snapshots of {run} have {name}, which is not so in its model; use its own")
        target.copy_(average)
        taken += 1
    if not taken:
        raise CheckpointError(f"the snapshots of {run} hold no weights of {', '.join(own)}; use its own")
