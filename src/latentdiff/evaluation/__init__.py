"""Evaluation: how similar images are to others, one by one and as a set."""
