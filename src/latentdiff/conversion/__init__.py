"""Conversion between the checkpoints of the original code of 2022 and the components of this package."""

from latentdiff.conversion.original import LoadedOriginal, load_original

__all__ = ["LoadedOriginal", "load_original"]
