"""Training: the two stages of the paper, and the classifier for guidance."""
