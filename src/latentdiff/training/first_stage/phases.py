"""The phases of a first stage's run: from which step on what is trained, and which terms of the loss count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from latentdiff.config import check
from latentdiff.training.first_stage.options import AdversarialOptions, FirstStageLossOptions, PhaseOptions

Trained = Literal["all", "decoder", "discriminator"]


@dataclass(frozen=True)
class Phase:
    """A phase.

    Attributes:
        start: Its first step.
        trainable: What is trained; see `PhaseOptions`.
        weights: Factors of terms; those that are left out are 1.
    """

    start: int
    trainable: Trained
    weights: Mapping[str, float] = field(default_factory=dict)

    def weight(self, term: str) -> float:
        """The factor of a term."""
        return self.weights.get(term, 1.0)

    @property
    def learns_of_the_discriminator(self) -> bool:
        """Whether the autoencoder does."""
        return self.trainable != "discriminator" and self.weight("adversarial") > 0


def make_phases(
    options: Sequence[PhaseOptions], trainable: Trained, adversarial: AdversarialOptions | None, steps: int
) -> list[Phase]:
    """The phases in their order, the first of which starts at step 0.

    Without any in the recipe there is one, and before it another without discriminator where that starts later.

    Args:
        options: The recipe's.
        trainable: What is trained where no phase says it.
        adversarial: The recipe's discriminator.
        steps: The steps of the run.
    """
    if options:
        return [
            Phase(phase.start(steps), phase.trainable if phase.given("trainable") else trainable, {**phase.weights})
            for phase in options
        ]
    if adversarial is None or not adversarial.start_step:
        return [Phase(0, trainable)]
    return [
        Phase(0, trainable, {"adversarial": 0.0, "discriminator": 0.0}),
        Phase(adversarial.start_step, trainable),
    ]


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase of a step, of phases in their order."""
    return next(phase for phase in reversed(phases) if phase.start <= step)


def check_phases(options: Sequence[PhaseOptions], trainable: Trained, loss: FirstStageLossOptions, steps: int) -> None:
    """Refuse phases that don't follow each other, or that ask for what the recipe doesn't have.

    Raises:
        ConfigError: The first thing that is wrong; its message begins with "phases".
    """
    if not options:
        return
    starts = [(phase.name, phase.start(steps)) for phase in options]
    first, start = starts[0]
    check(start == 0, f"phases begins with {first!r} at step {start}; let the first one start at step 0")
    names = [name for name, _ in starts]
    twice = [name for name in names if names.count(name) > 1]
    check(not twice, f"phases has {', '.join(twice[:1])!r} twice; give each its own name")
    for (before, earlier), (name, start) in pairwise(starts):
        check(
            start > earlier,
            f"phases overlap: {name!r} starts at step {start}, but {before!r}, which stands before it, at step "
            f"{earlier}; give each a later start",
        )
    name, start = starts[-1]
    check(
        start < steps,
        f"phases has {name!r}, which starts at step {start}, but the run ends after {steps} steps; let it start "
        "earlier, or raise max_train_steps",
    )
    has = {"perceptual": bool(loss.perceptual_weight), "equivariance": loss.equivariance is not None}
    has |= dict.fromkeys(("adversarial", "discriminator"), loss.adversarial is not None)
    for phase in options:
        _check_parts(phase, trainable, loss)
        for term in phase.weights:
            check(has.get(term, True), f"phases gives {phase.name!r} a weight of {term}, but the loss has none; {_ADD}")


_ADD = "add it to loss, or leave the weight out"


def _check_parts(phase: PhaseOptions, trainable: Trained, loss: FirstStageLossOptions) -> None:
    """Refuse a phase that trains what the run doesn't, or nothing."""
    check(
        trainable == "all" or not phase.given("trainable") or phase.trainable != "all",
        f"phases lets {phase.name!r} train all, but trainable is {trainable!r}; leave one of them out",
    )
    if phase.trainable != "discriminator":
        return
    check(
        loss.adversarial is not None,
        f"phases lets {phase.name!r} train a discriminator, but loss.adversarial is missing; give it",
    )
    check(
        phase.weights.get("discriminator", 1.0) > 0,
        f"phases lets {phase.name!r} train the discriminator alone, whose weight is 0 there; leave the weight out",
    )


def check_bottleneck(options: Sequence[PhaseOptions], used: str) -> None:
    """Refuse weights of the KL term of a VQ first stage, or of the codebook of a KL one, whose own term is `used`.

    Raises:
        ConfigError: If there is one.
    """
    for phase in options:
        for term in ("kl", "codebook"):
            check(
                term == used or term not in phase.weights,
                f"phases gives {phase.name!r} a weight of {term}, but training this first stage does not use it; "
                "leave it out",
            )
