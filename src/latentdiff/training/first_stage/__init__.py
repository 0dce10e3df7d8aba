"""First stage: the autoencoder that makes the latent space."""
