"""One pipeline for each task, and what they share."""
