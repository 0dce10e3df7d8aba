"""Guidance: objects that turn a prediction into another."""
