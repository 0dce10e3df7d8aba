"""Compiled networks: calls as tensors, artefacts on disk, and what takes the place of a network's `forward`."""
