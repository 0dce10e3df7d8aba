"""What a model, checkpoint or picture is: the Python side of `latentdiff info` and `latentdiff convert`."""
