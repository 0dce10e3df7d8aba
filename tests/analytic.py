"""A mixture of Gaussians in latent space: the perfect denoiser and the perfect classifier are known in closed form."""

from types import SimpleNamespace

import torch

from latentdiff.schedulers.parametrization import Parametrization
from latentdiff.schedulers.predictions import FLOW


class Mixture:
    """z0 = mean of a class + std noise, all classes alike; `means` is (K, C, H, W).

    Instances are called as the network is, in the scheduler's prediction type, with 0-d timesteps.
    """

    def __init__(self, means, std, scheduler):
        self.means, self.std = means, std
        self.parametrization = Parametrization.of(scheduler)
        self.calls_with_grad = 0

    def levels(self, timestep):
        alpha, sigma = self.parametrization.levels(timestep, torch.ones(1, 1))
        return float(alpha), float(sigma)

    def log_joint(self, latents, timestep):
        """log p(z_t, y) up to a constant, (B, K)."""
        alpha, sigma = self.levels(timestep)
        distance = (latents[:, None] - alpha * self.means).flatten(2).square().sum(2)
        return -distance / (2 * (alpha**2 * self.std**2 + sigma**2))

    def means_given(self, latents, timestep):
        """E[z0 | z_t, y], (B, K, C, H, W)."""
        alpha, sigma = self.levels(timestep)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.means + gain * (latents[:, None] - alpha * self.means)

    def x0(self, latents, timestep):
        """E[z0 | z_t]."""
        weights = self.log_joint(latents, timestep).softmax(1)[:, :, None, None, None]
        return (weights * self.means_given(latents, timestep)).sum(1)

    def __call__(self, latents, timestep, fraction=0.0):
        self.calls_with_grad += torch.is_grad_enabled()
        alpha, sigma = self.levels(timestep)
        x0 = self.x0(latents, timestep)
        noise = (latents - alpha * x0) / sigma
        return {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0, FLOW: noise - x0}[
            self.parametrization.prediction_type
        ]


class LinearDecoder:
    """A first stage whose images are `scale * latents @ matrix` over channels: (B, C, h, w) to (B, C', h, w)."""

    dtype = torch.float32

    def __init__(self, matrix, scaling_factor=1.0):
        self.matrix, self.config = matrix, SimpleNamespace(scaling_factor=scaling_factor)

    def decode(self, latents):
        return SimpleNamespace(sample=torch.einsum("bchw,cd->bdhw", latents, self.matrix))


class MixtureNetwork:
    """A mixture as a network of the loop: called as a UNet is."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, mixture):
        self.mixture, channels = mixture, mixture.means.shape[1]
        self.config = SimpleNamespace(in_channels=channels, out_channels=channels, cross_attention_dim=None)

    def parameters(self):
        return iter(())

    def to(self, *args, **kwargs):
        return self

    def state_dict(self):
        return {}

    def __call__(self, sample, timestep, **inputs):
        return SimpleNamespace(sample=self.mixture(sample, timestep))


class ConditionalNetwork(MixtureNetwork):
    """As `MixtureNetwork`, for the class that the context (B, 1, 1) is the number of; a negative number is no class."""

    def __call__(self, sample, timestep, encoder_hidden_states):
        copies = len(encoder_hidden_states) // len(sample)
        sample = sample.repeat(copies, 1, 1, 1)
        mixture, labels = self.mixture, encoder_hidden_states[:, 0, 0].long()
        alpha, sigma = mixture.levels(timestep)
        of_class = mixture.means_given(sample, timestep)[range(len(sample)), labels.clamp(min=0)]
        x0 = torch.where(labels[:, None, None, None] < 0, mixture.x0(sample, timestep), of_class)
        noise = (sample - alpha * x0) / sigma
        kinds = {"epsilon": noise, "sample": x0, "v_prediction": alpha * noise - sigma * x0, FLOW: noise - x0}
        return SimpleNamespace(sample=kinds[mixture.parametrization.prediction_type])
