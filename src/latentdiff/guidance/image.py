"""Image guidance: samples that look like a given image after a transform (appendix C of the paper)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.guidance.common import Interval, check_batch, check_interval, finite_number, gradient
from latentdiff.sampling import Predictor, SamplingContext
from latentdiff.types import FirstStage

Distance = Callable[[Tensor, Tensor], Tensor]
"""A distance (B,) or (B, 1, 1, 1) of images (B, C, H, W) to their targets; `latentdiff.LPIPS` is one."""


def half_squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Compute 1/2 ||images - targets||^2 of each image, (B,): minus the log likelihood of a unit Gaussian around it."""
    return 0.5 * (images - targets).square().sum(dim=(1, 2, 3))


class ImageGuidance:
    """epsilon <- epsilon + scale sqrt(1 - alpha_bar_t) grad d(y, T(D(z0))) (eq. 17), whatever the network predicts.

    D is the decoder, z0 the present estimate of the clean latents, T any differentiable function of images (B, 3, H, W)
    in [-1, 1] and d a distance. With T = downsampling it is the paper's post-hoc super-resolution, and what keeps a
    large convolutional sample coherent with a small one.

    Args:
        vae: The pipeline's first stage; its decoder is D.
        target: y, (B or 1, ...): what T makes of the image wanted. That is `transform(image)`, or the image itself
            where T is the identity.
        scale: Strength. The distance of the paper is a sum over pixels, so a good scale falls with their number.
        transform: T, such as `downsampling` and `masking` make it; the identity if None.
        distance: d, such as half the squared error or an instance of `latentdiff.LPIPS`.
        through_network: Whether the gradient goes through the network, as eq. 17 has it. If not, the estimate z0 is
            taken to move by alpha times z_t (for a flow, by alpha over alpha^2 + sigma^2), which is so where latents
            are white noise of unit variance: this saves the network's backward pass and the memory of its activations,
            but the correction knows nothing of what images look like.
        interval: Part of the steps in which guidance acts, as fractions from 0 (first) to 1 (last).

    Raises:
        InputError: If scale or interval are out of range.
    """

    def __init__(
        self,
        vae: FirstStage,
        target: Tensor,
        scale: float,
        *,
        transform: Callable[[Tensor], Tensor] | None = None,
        distance: Distance = half_squared_error,
        through_network: bool = True,
        interval: Interval = (0.0, 1.0),
    ) -> None:
        self.scale, self.interval = finite_number("scale", scale), check_interval(interval)
        self.vae, self.target = vae, target
        self.transform, self.distance, self.through_network = transform, distance, through_network

    def _decode(self, latents: Tensor) -> Tensor:
        """Compute T(D(z0)) of scaled latents (B, C, h, w), in float32."""
        config = self.vae.config
        unscaled = latents.to(self.vae.dtype) / config.scaling_factor + (getattr(config, "shift_factor", None) or 0)
        images: Tensor = self.vae.decode(unscaled).sample.float()
        return images if self.transform is None else self.transform(images)

    def __call__(self, predictor: Predictor, context: SamplingContext) -> Predictor:
        """Guide a predictor."""
        parametrization, (low, high) = context.parametrization, self.interval
        target = self.target.to(parametrization.timesteps.device).float()

        def energy(latents: Tensor) -> Tensor:
            images = self._decode(latents)
            check_batch("targets", len(target), len(images))
            if images.shape[1:] != target.shape[1:]:
                raise InputError(
                    f"the target of image guidance is {tuple(target.shape[1:])}, the transformed images are "
                    f"{tuple(images.shape[1:])}; give transform(image)"
                )
            return self.distance(images, target.expand_as(images))

        def predict(latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
            if not low <= fraction < high:
                return predictor(latents, timestep, fraction)
            _, sigma = parametrization.levels(timestep, latents)
            if self.through_network:

                def of_noisy(noisy: Tensor) -> tuple[Tensor, Tensor]:
                    prediction = predictor(noisy, timestep, fraction)
                    return energy(parametrization.x0(noisy, prediction, timestep)), prediction

                slope, prediction = gradient(of_noisy, latents)
            else:
                prediction = predictor(latents, timestep, fraction)
                x0 = parametrization.x0(latents, prediction, timestep)
                moved = parametrization.gain(timestep, latents)
                slope = moved * gradient(lambda clean: (energy(clean), clean), x0)[0]
            return parametrization.shift(prediction, self.scale * sigma * slope, timestep)

        return predict


def downsampling(factor: int, mode: str = "average") -> Callable[[Tensor], Tensor]:
    """Make a T that shrinks images by a whole factor.

    Args:
        factor: The factor, at least 1.
        mode: "average" over squares, or "bicubic" with antialiasing.

    Raises:
        InputError: If the factor or the mode is not one of these.
    """
    modes: dict[str, Callable[[Tensor], Tensor]] = {
        "average": lambda images: F.avg_pool2d(images, factor),
        "bicubic": lambda images: F.interpolate(
            images, (images.shape[2] // factor, images.shape[3] // factor), mode="bicubic", antialias=True
        ),
    }
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise InputError(f"factor is {factor!r}; it must be an integer of at least 1")
    if mode not in modes:
        raise InputError(f"mode is {mode!r}; choose {' or '.join(modes)}")
    return modes[mode]


def masking(mask: Tensor) -> Callable[[Tensor], Tensor]:
    """Make a T that keeps pixels where `mask` (B or 1, 1, H, W) is 1 and turns them grey (0) where it is 0."""
    return lambda images: images * mask.to(images)
