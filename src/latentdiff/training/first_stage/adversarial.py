"""The adversarial part of the first stage's loss (section 3.1 of the paper; Esser et al. 2021, arXiv 2012.09841)."""

from __future__ import annotations

from collections import deque

import torch
import torch.nn.functional as F
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.func import functional_call

from latentdiff.training.first_stage.discriminator import PatchDiscriminator, hinge_loss, vanilla_loss
from latentdiff.training.first_stage.options import AdversarialOptions

LOSSES = {"hinge": hinge_loss, "vanilla": vanilla_loss}
EPSILON, LARGEST_WEIGHT = 1e-4, 1e4
SCALE = 2.0**10  # of losses whose gradients are taken on the way, which fp16 could not hold otherwise
LECAM_DECAY = 0.99


class LeCAM(nn.Module):
    """LeCAM regularisation (Tseng et al. 2021, arXiv 2104.03310): E relu(D(x) - a_F)^2 + E relu(a_R - D(y))^2.

    a_R and a_F are moving averages of the logits of real and of made images, as in the authors' code.

    Args:
        micro_steps: The micro-batches of a step.
    """

    def __init__(self, micro_steps: int) -> None:
        super().__init__()
        self.averages: Tensor
        self.updates: Tensor
        self.register_buffer("averages", torch.zeros(2))  # of real and of made images, before the correction of Adam
        self.register_buffer("updates", torch.zeros(()))
        # Means of the step's micro-batches, and never of a step before, which may be skipped.
        self.seen: deque[Tensor] = deque(maxlen=micro_steps)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty (), 0 before the first averages, of logits of real and of made images."""
        self.seen.append(torch.stack([real.detach().float().mean(), fake.detach().float().mean()]))
        average_real, average_fake = self.averages / (1 - LECAM_DECAY ** self.updates.clamp(min=1))
        penalty = F.relu(real - average_fake).square().mean() + F.relu(average_real - fake).square().mean()
        return penalty * (self.updates > 0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Take the step's logits into the averages, those of all processes."""
        if self.seen:
            means = reduce(torch.stack([*self.seen]).mean(0), "mean")
            self.averages.lerp_(means, 1 - LECAM_DECAY)
            self.updates += 1
            self.seen.clear()


class Adversarial(nn.Module):
    """A discriminator and both sides' losses in one sum.

    The autoencoder's side sees the discriminator's parameters as constants and the discriminator's side the decoded
    images, so one backward pass gives each its own gradients and one optimiser step moves both.

    Args:
        discriminator: Trained in place.
        options: Give the kind of the loss, its weight and its regularisation.
        limit: The upper bound of the adaptive weight.
        start: The first step at which the autoencoder learns of it; None is that of the options.
        micro_steps: The micro-batches of a step.
    """

    def __init__(
        self,
        discriminator: PatchDiscriminator,
        options: AdversarialOptions,
        limit: float = LARGEST_WEIGHT,
        start: int | None = None,
        micro_steps: int = 1,
    ) -> None:
        super().__init__()
        self.discriminator, self.options, self.limit = discriminator, options, limit
        self.start = options.start_step if start is None else start
        self.lecam = LeCAM(micro_steps) if options.lecam_weight else None

    def strength(self, step: int) -> float:
        """The weight of the autoencoder's side: 0 before the start, then rising to 1 over `warmup_steps` steps."""
        since = step - self.start
        return min(1.0, (since + 1) / (self.options.warmup_steps + 1)) if since >= 0 else 0.0

    def generator_loss(self, decoded: Tensor) -> Tensor:
        """How far the discriminator takes decoded images (B, C, H, W) for false, (); no gradient reaches it."""
        constants = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        logits: Tensor = functional_call(self.discriminator, constants, (decoded,))
        return -logits.to(decoded.dtype).mean()

    def resting(self) -> Tensor:
        """A loss () of 0, in which every parameter takes part."""
        return torch.stack([0 * parameter.sum() for parameter in self.discriminator.parameters()]).sum()

    def forward(
        self, images: Tensor, decoded: Tensor, distance: Tensor, last_layer: Tensor, strength: float, share: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and values to log, of which norms of gradients are those in the last layer.

        Args:
            images: Real images, (B, C, H, W) in [-1, 1].
            decoded: Their reconstructions.
            distance: The reconstruction loss (), by whose gradient that of the adversarial loss is measured.
            last_layer: The decoder's last weight.
            strength: The weight of the autoencoder's side, beside that of the options.
            share: The weight of the discriminator's.
        """
        terms: list[Tensor] = []
        values: dict[str, Tensor] = {}
        if strength:
            generator = self.generator_loss(decoded)
            weight = images.new_tensor(self.options.weight)
            if self.options.adaptive_weight:
                norms = gradient_norms(distance, generator, last_layer)
                weight = weight * adaptive_weight(*norms, self.limit)
                values |= {"gradient_reconstruction": norms[0], "gradient_generator": norms[1]}
            values |= {"generator": generator, "adversarial_weight": strength * weight}
            terms.append(strength * weight * generator)
        if share:
            loss, more = self.discriminator_loss(images, decoded.detach())
            values |= more
            terms.append(share * loss)
        return torch.stack(terms).sum(), {name: value.detach() for name, value in values.items()}

    def discriminator_loss(self, images: Tensor, decoded: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's own loss () with its regularisation, and values to log."""
        images = images.detach().requires_grad_() if self.options.r1_weight else images
        real, fake = (self.discriminator(batch).to(batch.dtype) for batch in (images, decoded))
        loss = LOSSES[self.options.loss](real, fake)
        values = {"discriminator": loss, "logits_real": real.mean(), "logits_fake": fake.mean()}
        if self.options.r1_weight:
            values["r1"] = r1_penalty(real, images)
            loss = loss + 0.5 * self.options.r1_weight * values["r1"]
        if self.lecam is not None:
            values["lecam"] = self.lecam(real, fake)
            loss = loss + self.options.lecam_weight * values["lecam"]
        return loss, values

    def after_step(self) -> None:
        """Follow the discriminator's logits after an optimiser step."""
        if self.lecam is not None:
            self.lecam.after_step()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E |grad D(x)|^2, (), D(x) being the mean logit of an image (Mescheder et al. 2018, arXiv 1801.04406, eq. 9).

    Args:
        logits: Of the images, (B, 1, h, w).
        images: Real images (B, C, H, W), which require gradients.
    """
    means = SCALE * logits.mean(dim=(1, 2, 3)).sum()
    (slopes,) = torch.autograd.grad(means, images, create_graph=True)
    penalty: Tensor = (slopes.float() / SCALE).square().sum(dim=(1, 2, 3)).mean()
    return penalty


def gradient_norms(distance: Tensor, generator: Tensor, last_layer: Tensor) -> tuple[Tensor, Tensor]:
    """How long the gradients of two losses are in the decoder's last layer, both ().

    Args:
        distance: The reconstruction loss ().
        generator: The adversarial loss ().
        last_layer: The decoder's last weight, on which both depend.
    """
    losses = (distance, generator)
    norms = [torch.autograd.grad(SCALE * loss, last_layer, retain_graph=True)[0].norm() / SCALE for loss in losses]
    return norms[0], norms[1]


def adaptive_weight(distance: Tensor, generator: Tensor, limit: float = LARGEST_WEIGHT) -> Tensor:
    """min(|grad distance| / (|grad generator| + 1e-4), limit), (), of the norms (eq. 7).

    Args:
        distance: The norm of the reconstruction loss's gradient.
        generator: That of the adversarial loss's.
        limit: The upper bound, 1e4 for losses as large as the original's.
    """
    weight: Tensor = (distance / (generator + EPSILON)).clamp(max=limit)
    return weight
