"""Captioned scenes drawn from Noto emoji: the data and the evaluation of the built-in text-to-image model."""
