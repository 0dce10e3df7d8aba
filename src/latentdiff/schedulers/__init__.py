"""Schedulers: the solvers that turn noise into a sample, one file each; `base` has what they share."""

from latentdiff.schedulers.noise_schedule import original_ddim_timesteps
from latentdiff.schedulers.select import make_scheduler

__all__ = ["make_scheduler", "original_ddim_timesteps"]
