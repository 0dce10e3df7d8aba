"""Solvers: from noise to a sample, one file each; `base` says what they share."""

from latentdiff.schedulers.noise_schedule import original_ddim_timesteps
from latentdiff.schedulers.select import make_scheduler

__all__ = ["make_scheduler", "original_ddim_timesteps"]
