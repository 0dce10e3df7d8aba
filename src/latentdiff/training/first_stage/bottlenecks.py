"""What keeps latents tame: the KL term or the codebook (section 3.1 of the paper), and how each is trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from accelerate.utils import gather, reduce
from torch import Tensor, nn

from latentdiff.seeding import SampleGenerators
from latentdiff.training.recipes.stages import FirstStageRecipe


class Bottleneck(nn.Module):
    """From images through the latents to decoded images, with a penalty on the latents.

    Args:
        recipe: Gives the weights.

    Attributes:
        options: The fields of the recipe that are for this kind of first stage alone.
        summed: Whether the original code sums its losses over an image, which its limits are meant for.
    """

    options: ClassVar[tuple[str, ...]] = ()
    summed: ClassVar[bool] = False

    def __init__(self, recipe: FirstStageRecipe) -> None:
        super().__init__()
        self.recipe = recipe

    def after_step(self, step: int, codebooks: Sequence[Tensor], rng: torch.Generator) -> None:
        """What becomes of the codebook, in training and averaged, after step number `step`, counted from 1."""


class KLBottleneck(Bottleneck):
    """A draw from the posterior, and its divergence from N(0, 1) (appendix G): the latents of `AutoencoderKL`."""

    options = ("kl_weight",)
    summed = True

    def forward(self, vae: Any, images: Tensor, draws: SampleGenerators) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Decoded images (B, C, H, W), the penalty () and values to log, of images (B, C, H, W)."""
        posterior = vae.encode(images).latent_dist
        mean, std, logvar = posterior.mean, posterior.std, posterior.logvar
        kl = 0.5 * (mean.float() ** 2 + posterior.var.float() - 1 - logvar.float()).sum(dim=(1, 2, 3)).mean()
        decoded = vae.decode(mean + std * draws.normal_like(mean)).sample.to(images.dtype)
        return decoded, self.recipe.kl_weight * kl / images[0].numel(), {"kl": kl.detach()}


class VQBottleneck(Bottleneck):
    """The nearest codes, by which gradients pass straight (van den Oord et al. 2017): the latents of `VQModel`."""

    options = ("codebook_weight", "codebook_loss", "codebook_beta", "codebook_restart")

    def __init__(self, recipe: FirstStageRecipe, codes: int) -> None:
        super().__init__(recipe)
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(codes))  # how often each code was chosen since the last restart
        # Latents (N, C) and codes (N,) of the step's micro-batches, and never of a step before, which may be skipped.
        kept = recipe.gradient_accumulation_steps if recipe.codebook_restart else 0
        self.batches: deque[tuple[Tensor, Tensor]] = deque(maxlen=kept)

    def forward(self, vae: Any, images: Tensor, draws: SampleGenerators) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Decoded images (B, C, H, W), the penalty () and values to log, of images (B, C, H, W)."""
        vae.quantize.legacy, vae.quantize.beta = self.recipe.codebook_loss == "legacy", self.recipe.codebook_beta
        latents = vae.encode(images).latents.float()
        quantised, loss, (_, _, indices) = vae.quantize(latents)
        decoded = vae.decode(quantised, force_not_quantize=True).sample.to(images.dtype)
        counts = count(indices, len(self.counts))
        self.batches.append((latents.detach().movedim(1, -1).flatten(0, -2), indices))
        values = {
            "codebook": loss.detach(),
            "perplexity": perplexity(counts),
            "codes_used": (counts > 0).float().mean(),
        }
        return decoded, self.recipe.codebook_weight * loss, values

    @torch.no_grad()
    def after_step(self, step: int, codebooks: Sequence[Tensor], rng: torch.Generator) -> None:
        """At every `codebook_restart`-th step, codes that nothing has chosen since move to latents of the batch."""
        if not self.recipe.codebook_restart:
            return
        indices = torch.cat([indices for _, indices in self.batches])
        self.counts += reduce(count(indices, len(self.counts)), "sum")
        if step % self.recipe.codebook_restart:
            return
        latents = torch.cat([gather(latents) for latents, _ in self.batches])  # in the order of the samples
        drawn = torch.randperm(len(latents), generator=rng)[torch.arange(len(self.counts)) % len(latents)]
        for codes in codebooks:
            codes.copy_(torch.where((self.counts == 0)[:, None], latents[drawn.to(latents.device)], codes))
        self.counts.zero_()


def count(indices: Tensor, codes: int) -> Tensor:
    """How often each of `codes` codes is among indices of any shape, (codes,) in fp32."""
    ones = torch.ones(indices.numel(), device=indices.device)
    return torch.zeros(codes, device=indices.device).scatter_add_(0, indices.flatten(), ones)


def perplexity(counts: Tensor) -> Tensor:
    """exp of the entropy of the codes' shares, (): as many codes as would, equally often chosen, say as much."""
    shares = counts / counts.sum()
    return (-(shares * (shares + 1e-10).log()).sum()).exp()


def make_bottleneck(vae: Any, recipe: FirstStageRecipe) -> Bottleneck:
    """The bottleneck of a first stage."""
    codes = vae.config.get("num_vq_embeddings")
    return KLBottleneck(recipe) if codes is None else VQBottleneck(recipe, codes)
