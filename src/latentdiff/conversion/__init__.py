"""The 2022 checkpoints: the original code's layout to ours and back."""

from latentdiff.conversion.original import LoadedOriginal, load_original

__all__ = ["LoadedOriginal", "load_original"]
