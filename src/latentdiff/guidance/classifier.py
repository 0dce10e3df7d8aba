"""Classifier guidance (appendix C of the paper; Dhariwal & Nichol 2021, arXiv 2105.05233)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.guidance.common import Interval, check_batch, check_interval, finite_number, gradient
from latentdiff.sampling import Predictor, SamplingContext
from latentdiff.types import Labels


class ClassifierGuidance:
    """epsilon <- epsilon - scale sqrt(1 - alpha_bar_t) grad log p(y | z_t) (eq. 16), whatever the network predicts.

    At scale 1 the prediction is that of p(z | y), if the classifier is exact; the paper's class-conditional models were
    sampled at 10. It acts on any prediction, so it stands behind classifier-free guidance in a list.

    Args:
        classifier: `latentdiff.NoisyLatentClassifier`, or a function of latents (B, C, h, w) as the network sees them
            and a 0-d timestep that returns logits (B, classes). It must be on the device of the latents.
        labels: The class that is wanted, one for all images or one each: numbers, or names that the classifier knows.
        scale: Strength; at 0 there is no guidance.
        interval: Part of the steps in which guidance acts, as fractions from 0 (first) to 1 (last).

    Raises:
        InputError: If a label is unknown, or scale or interval are out of range.
    """

    def __init__(
        self,
        classifier: Callable[[Tensor, Tensor], Tensor],
        labels: Labels,
        scale: float,
        interval: Interval = (0.0, 1.0),
    ) -> None:
        self.scale, self.interval = finite_number("scale", scale), check_interval(interval)
        self.classifier = classifier
        known = getattr(classifier, "label_ids", lambda numbers: torch.as_tensor(numbers).reshape(-1))
        self.labels: Tensor = known(labels)

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide a predictor.

        Raises:
            InputError: If the classifier is on another device than the latents.
        """
        parametrization, (low, high) = context.parametrization, self.interval
        device, dtype = parametrization.timesteps.device, getattr(self.classifier, "dtype", torch.float32)
        found = getattr(self.classifier, "device", device)
        if found.type != device.type:
            raise InputError(f"the classifier is on {found}, the latents are on {device}; move it there with .to()")
        labels = self.labels.to(device)

        def predict(latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
            prediction = predictor(latents, timestep, fraction)
            if not low <= fraction < high:
                return prediction
            check_batch("labels", len(labels), len(latents))

            def log_probability(noisy: Tensor) -> tuple[Tensor, Tensor]:
                logits = self.classifier(noisy.to(dtype), timestep).float()
                return -F.cross_entropy(logits, labels.expand(len(logits)), reduction="sum"), logits

            slope, _ = gradient(log_probability, latents)
            _, sigma = parametrization.levels(timestep, latents)
            return parametrization.shift(prediction, -self.scale * sigma * slope, timestep)

        return predict
