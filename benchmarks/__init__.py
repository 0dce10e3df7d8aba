"""Benchmarks: how fast the package is beside others, and what its savings cost. `python -m benchmarks --list`."""
