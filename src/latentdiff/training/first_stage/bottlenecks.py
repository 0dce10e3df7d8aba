"""The regularisation of latents: the KL term or the codebook (section 3.1 of the paper), and how each is trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
from accelerate.utils import gather, reduce
from torch import Tensor, nn

from latentdiff.models.autoencoder_fsq import FSQModel
from latentdiff.models.autoencoder_vq import VQModel
from latentdiff.seeding import SampleGenerators
from latentdiff.training.first_stage.equivariance import STILL, Move
from latentdiff.training.first_stage.options import CodebookOptions, FirstStageLossOptions
from latentdiff.types import FirstStage


def without_gradients(frozen: bool) -> AbstractContextManager[object]:
    """A block that records no gradients if `frozen`."""
    return torch.no_grad() if frozen else nullcontext()


class Bottleneck(nn.Module):
    """From images through the latents to decoded images, with a penalty on the latents.

    `forward(vae, images, draws, move, frozen)` gives decoded images (B, C, H, W), the penalty () and values to log, of
    images (B, C, H, W) in [-1, 1]. What is decoded are latents that were moved, and `frozen` says whether the latents
    are to learn nothing.

    Attributes:
        option: The part or option of the recipe's `loss` that is for this kind of first stage alone.
        term: What phases call the penalty.
        summed: Whether the original code sums its losses over an image, which its limits are meant for.
    """

    option: ClassVar[str]
    term: ClassVar[str]
    summed: ClassVar[bool] = False

    def after_step(self, step: int, codebooks: Sequence[Tensor], rng: torch.Generator) -> None:
        """Change the codebook, in training and averaged, after step number `step`, counted from 1."""


class KLBottleneck(Bottleneck):
    """A draw from the posterior, and its divergence from N(0, 1) (appendix G): the latents of `AutoencoderKL`.

    Args:
        weight: The divergence's weight.
    """

    option, term = "kl_weight", "kl"
    summed = True

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self, vae: FirstStage, images: Tensor, draws: SampleGenerators, move: Move = STILL, frozen: bool = False
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Decode a draw; the value that is logged is the divergence in nats an image."""
        with without_gradients(frozen):
            posterior = vae.encode(images).latent_dist
            mean, std, logvar = posterior.mean, posterior.std, posterior.logvar
            kl = 0.5 * (mean.float() ** 2 + posterior.var.float() - 1 - logvar.float()).sum(dim=(1, 2, 3)).mean()
            latents = move.latents(mean + std * draws.normal_like(mean))
        decoded = vae.decode(latents).sample.to(images.dtype)
        return decoded, self.weight * kl / images[0].numel(), {"kl": kl.detach()}


class VQBottleneck(Bottleneck):
    """The nearest codes, by which gradients pass straight (van den Oord et al. 2017): the latents of `VQModel`, or
    sums of codes, those of `ResidualVQModel`.

    Args:
        options: The codebook's loss and restarts.
        codes: The number of codes.
        micro_steps: The micro-batches of a step.
    """

    option, term = "codebook", "codebook"

    def __init__(self, options: CodebookOptions, codes: int, micro_steps: int) -> None:
        super().__init__()
        self.options = options
        self.counts: Tensor
        self.register_buffer("counts", torch.zeros(codes))  # how often each code was chosen since the last restart
        # Latents (N, C) and codes (N,) of the step's micro-batches, and never of a step before, which may be skipped.
        self.batches: deque[tuple[Tensor, Tensor]] = deque(maxlen=micro_steps if options.restart else 0)

    def forward(
        self, vae: VQModel, images: Tensor, draws: SampleGenerators, move: Move = STILL, frozen: bool = False
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Decode the nearest codes; logged are the codebook's loss and how many codes are used."""
        vae.quantize.legacy, vae.quantize.beta = self.options.loss == "legacy", self.options.beta
        with without_gradients(frozen):
            latents = move.latents(vae.encode(images).latents.float())
            quantised, loss, (_, _, indices) = vae.quantize(latents)
        decoded = vae.decode(quantised, force_not_quantize=True).sample.to(images.dtype)
        counts = count_codes(indices, len(self.counts))
        self.batches.append((latents.detach().movedim(1, -1).flatten(0, -2), indices))
        values = {
            "codebook": loss.detach(),
            "perplexity": perplexity(counts),
            "codes_used": (counts > 0).float().mean(),
        }
        return decoded, self.options.weight * loss, values

    @torch.no_grad()
    def after_step(self, step: int, codebooks: Sequence[Tensor], rng: torch.Generator) -> None:
        """At every `restart`-th step, codes that nothing has chosen since move to latents of the batch."""
        if not self.options.restart:
            return
        indices = torch.cat([indices for _, indices in self.batches])
        self.counts += reduce(count_codes(indices, len(self.counts)), "sum")
        if step % self.options.restart:
            return
        latents = torch.cat([gather(latents) for latents, _ in self.batches])  # in the order of the samples
        drawn = torch.randperm(len(latents), generator=rng)[torch.arange(len(self.counts)) % len(latents)]
        for codes in codebooks:
            codes.copy_(torch.where((self.counts == 0)[:, None], latents[drawn.to(latents.device)], codes))
        self.counts.zero_()


class FSQBottleneck(Bottleneck):
    """The nearest levels, by which gradients pass straight: the latents of `FSQModel`, without a penalty."""

    option, term = "", ""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codes = codes

    def forward(
        self, vae: FSQModel, images: Tensor, draws: SampleGenerators, move: Move = STILL, frozen: bool = False
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Decode the nearest codes; logged is how many are used."""
        with without_gradients(frozen):
            quantised, nothing, (_, _, indices) = vae.quantize(move.latents(vae.encode(images).latents.float()))
        decoded = vae.decode(quantised, force_not_quantize=True).sample.to(images.dtype)
        counts = count_codes(indices, self.codes)
        return decoded, nothing, {"perplexity": perplexity(counts), "codes_used": (counts > 0).float().mean()}


def count_codes(indices: Tensor, codes: int) -> Tensor:
    """Count how often each of `codes` codes is among indices of any shape; the result is (codes,) in fp32."""
    ones = torch.ones(indices.numel(), device=indices.device)
    return torch.zeros(codes, device=indices.device).scatter_add_(0, indices.flatten(), ones)


def perplexity(counts: Tensor) -> Tensor:
    """Perplexity of the codes, (): exp of the entropy of their shares."""
    shares = counts / counts.sum()
    return (-(shares * (shares + 1e-10).log()).sum()).exp()


def make_bottleneck(vae: FirstStage, options: FirstStageLossOptions, micro_steps: int = 1) -> Bottleneck:
    """The bottleneck of a first stage.

    Args:
        vae: KL, VQ or FSQ.
        options: The losses' weights.
        micro_steps: The micro-batches of a step.
    """
    codes = vae.config.get("num_vq_embeddings")
    if codes is None:
        return KLBottleneck(options.kl_weight)
    if isinstance(vae, FSQModel):
        return FSQBottleneck(codes)
    return VQBottleneck(options.codebook, codes, micro_steps)
