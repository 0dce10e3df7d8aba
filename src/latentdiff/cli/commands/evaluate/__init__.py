"""`latentdiff evaluate`: how good samples, reconstructions or restored images are, with numbers named by protocol."""
