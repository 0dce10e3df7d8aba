"""Solvers: from noise to a sample, one file each. `noise_schedule` holds the mathematics that they share."""
