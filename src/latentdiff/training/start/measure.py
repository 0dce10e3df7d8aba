"""How long the steps of both stages take here, by real ones."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from latentdiff.errors import LatentDiffWarning
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.engine.dry_run import DryRun, rehearse
from latentdiff.training.first_stage.autoencoder import make_first_stage
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.start.recipes import Plan

SHARE = 1 / 3  # of the time, for the first stage


def measure(plan: Plan) -> tuple[DryRun, DryRun]:
    """Make three steps of each stage, the second in the latents of an untrained first stage.

    Raises:
        LatentDiffError: If a run would end before, or in, its first steps.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentDiffWarning)  # the survey and the run say it
        first = plan.first_stage.replace(validation={}, report=None)
        second = plan.diffusion.replace(validation={}, vae=str(Path(folder, "vae")))
        vae = make_first_stage(first.model, plan.survey.channels, plan.resolution)
        vae.save_pretrained(str(second.vae))
        return rehearse(train_first_stage, first), rehearse(train_diffusion, second)


def steps_in(hours: float, measured: tuple[DryRun, DryRun]) -> tuple[int, int]:
    """The steps of both stages that a number of hours is enough for, without validation."""
    first, second = measured
    seconds = 3600 * hours
    return int(SHARE * seconds / first.seconds), int((1 - SHARE) * seconds / second.seconds)
