"""Objects that turn a prediction into another."""
