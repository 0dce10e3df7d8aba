"""Second stage: the diffusion model in the latent space."""
