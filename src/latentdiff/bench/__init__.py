"""How fast a model is, what it computes, and what its samples are worth: `latentdiff bench` in Python."""
