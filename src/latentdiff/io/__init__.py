"""Files: images, weights, writing without half-written results."""
