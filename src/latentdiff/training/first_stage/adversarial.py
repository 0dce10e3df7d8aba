"""The adversarial part of the first stage's loss (section 3.1 of the paper; Esser et al. 2021, arXiv 2012.09841)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from latentdiff.training.first_stage.discriminator import PatchDiscriminator, hinge_loss, vanilla_loss
from latentdiff.training.first_stage.options import AdversarialOptions

LOSSES = {"hinge": hinge_loss, "vanilla": vanilla_loss}
EPSILON, LARGEST_WEIGHT = 1e-4, 1e4
SCALE = 2.0**10  # of losses whose gradients are taken on the way, which fp16 could not hold otherwise


class Adversarial(nn.Module):
    """A discriminator and both sides' losses in one sum.

    The autoencoder's side sees the discriminator's parameters as constants and the discriminator's side the decoded
    images, so one backward pass gives each its own gradients and one optimiser step moves both.

    Args:
        discriminator: Trained in place.
        options: Give the kind of the loss, its weight and when it starts.
        limit: The upper bound of the adaptive weight.
    """

    def __init__(
        self, discriminator: PatchDiscriminator, options: AdversarialOptions, limit: float = LARGEST_WEIGHT
    ) -> None:
        super().__init__()
        self.discriminator, self.options, self.limit = discriminator, options, limit

    def strength(self, step: int) -> float:
        """The weight of the autoencoder's side: 0 before `start_step`, then rising to 1 over `warmup_steps` steps."""
        since = step - self.options.start_step
        return min(1.0, (since + 1) / (self.options.warmup_steps + 1)) if since >= 0 else 0.0

    def generator_loss(self, decoded: Tensor) -> Tensor:
        """How far the discriminator takes decoded images (B, C, H, W) for false, (); no gradient reaches it."""
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        logits: Tensor = functional_call(self.discriminator, constants, (decoded,))
        return -logits.to(decoded.dtype).mean()

    def forward(
        self, images: Tensor, decoded: Tensor, distance: Tensor, last_layer: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and values to log.

        Args:
            images: Real images, (B, C, H, W) in [-1, 1].
            decoded: Their reconstructions.
            distance: The reconstruction loss (), by whose gradient that of the adversarial loss is measured.
            last_layer: The decoder's last weight.
            step: Optimiser steps before this one.
        """
        strength = self.strength(step)
        if not strength:  # every parameter takes part in every step, as training on several devices demands
            return torch.stack([0 * parameter.sum() for parameter in self.discriminator.parameters()]).sum(), {}
        generator = self.generator_loss(decoded)
        weight = images.new_tensor(self.options.weight)
        if self.options.adaptive_weight:
            weight = weight * adaptive_weight(distance, generator, last_layer, self.limit)
        real, fake = (self.discriminator(batch).to(batch.dtype) for batch in (images, decoded.detach()))
        discriminator = LOSSES[self.options.loss](real, fake)
        values = {
            "generator": generator,
            "adversarial_weight": strength * weight,
            "discriminator": discriminator,
            "logits_real": real.mean(),
            "logits_fake": fake.mean(),
        }
        loss = strength * weight * generator + discriminator
        return loss, {name: value.detach() for name, value in values.items()}


def adaptive_weight(distance: Tensor, generator: Tensor, last_layer: Tensor, limit: float = LARGEST_WEIGHT) -> Tensor:
    """min(|grad distance| / (|grad generator| + 1e-4), limit), (), gradients being those of the last layer (eq. 7).

    Args:
        distance: The reconstruction loss ().
        generator: The adversarial loss ().
        last_layer: The decoder's last weight, on which both depend.
        limit: The upper bound, 1e4 for losses as large as the original's.
    """
    losses = (distance, generator)
    norms = [torch.autograd.grad(SCALE * loss, last_layer, retain_graph=True)[0].norm() / SCALE for loss in losses]
    weight: Tensor = (norms[0] / (norms[1] + EPSILON)).clamp(max=limit)
    return weight
