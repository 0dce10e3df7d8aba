"""THE denoising loop: one, for every task, solver and guidance."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.schedulers.parametrization import Parametrization
from latentdiff.seeding import Generators
from latentdiff.windows import Windows

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class Predictor(Protocol):
    """What the network, guided or not, predicts."""

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, fraction: float) -> torch.Tensor:
        """The prediction, of the latents' shape (B, C, H, W); `fraction` of the steps are done, in [0, 1)."""
        ...


class Denoiser:
    """A UNet with its conditioning bound; what doesn't change over the steps is computed here, once.

    Args:
        unet: `latentdiff.UNet2DConditionModel` or a stock diffusers UNet.
        conditioning: Of batch copies * B.
        copies: Predictions of each latent in one pass.
        windows: Overlapped windows, in latent pixels, that the network sees one after the other; None for all at once.
    """

    def __init__(self, unet: Any, conditioning: Conditioning, copies: int = 1, windows: Windows | None = None) -> None:
        self.unet, self.conditioning, self.copies, self.windows = unet, conditioning, copies, windows
        self.inputs: dict[str, Any] = {}
        if conditioning.context is not None:
            prepare = getattr(unet, "prepare_context", lambda context: context)
            self.inputs["encoder_hidden_states"] = prepare(conditioning.context)
        # Our UNet repeats the latents itself, after what all copies share; a stock one wants them repeated.
        self.repeats = copies > 1 and (conditioning.concat is not None or not hasattr(unet, "prepare_context"))

    def with_unconditional(self, unconditional: Conditioning) -> Denoiser:
        """A denoiser of the batch [unconditional, conditional], for classifier-free guidance."""
        return Denoiser(self.unet, Conditioning.cat([unconditional, self.conditioning]), 2, self.windows)

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, fraction: float) -> torch.Tensor:
        """The predictions (copies * B, C, H, W)."""
        if self.repeats:
            latents = latents.repeat(self.copies, 1, 1, 1)
        inputs = (latents,) if self.conditioning.concat is None else (latents, self.conditioning.concat)

        def predict(*parts: torch.Tensor) -> torch.Tensor:
            sample = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            prediction: torch.Tensor = self.unet(sample, timestep, **self.inputs).sample
            return prediction

        if self.windows is None:
            return predict(*inputs)
        # The borders move from step to step, so that what one step leaves there is mended by the next. Multiples of an
        # irrational number keep away from each other; 89 only makes them differ between neighbouring steps.
        return self.windows.apply(predict, *inputs, phase=fraction * 89 * GOLDEN_RATIO % 1)


@dataclass(frozen=True)
class KnownRegion:
    """Latents that are known in a part of the image: before each step that part is set to them, noised anew.

    Args:
        latents: What is known (B, C, H, W), scaled.
        mask: (B or 1, 1, H, W), 1 where it is known, 0 where it is to be made.
        generator: Source of the noise, one per image or one for all.
    """

    latents: torch.Tensor
    mask: torch.Tensor
    generator: Generators = None

    def noise(self) -> torch.Tensor:
        """Fresh noise (B, C, H, W)."""
        drawn: torch.Tensor = randn_tensor(
            self.latents.shape, generator=self.generator, device=self.latents.device, dtype=self.latents.dtype
        )
        return drawn

    def __call__(self, scheduler: Any, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The latents with the known part noised to `timestep`."""
        known = scheduler.add_noise(self.latents, self.noise(), timestep.expand(len(latents)))
        return torch.lerp(latents, known, self.mask)


@dataclass(frozen=True)
class SamplingContext:
    """What guidance may use beside the predictor.

    Attributes:
        denoiser: The network with its conditioning, which is also what the first of a list of guidance receives.
        parametrization: What the network's output says of the latents.
    """

    denoiser: Denoiser
    parametrization: Parametrization


Guidance = Callable[[Predictor, SamplingContext], Predictor]
"""Turns a predictor into another."""

Callback = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Called after each step with (step, timestep, latents); returns the latents to go on with."""


def step_options(scheduler: Any, generator: Any, eta: float) -> dict[str, Any]:
    """The keyword arguments of `scheduler.step` among eta and generator.

    Raises:
        InputError: If eta isn't 0 and the scheduler has no such parameter.
    """
    known = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in known else {}
    if "eta" in known:
        options["eta"] = eta
    elif eta:
        raise InputError(f"eta is {eta}, but {type(scheduler).__name__} takes none; set it to 0 or use 'ddim'")
    return options


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    scheduler: Any,
    latents: torch.Tensor,
    *,
    first: int = 0,
    guidance: Sequence[Guidance] = (),
    known: KnownRegion | None = None,
    generator: Generators = None,
    eta: float = 0.0,
    callback: Callback | None = None,
    progress: Callable[[], object] = lambda: None,
) -> torch.Tensor:
    """Denoise `latents` along `scheduler.timesteps`.

    Args:
        denoiser: The network and what it is conditioned on.
        scheduler: Any own or diffusers scheduler, its timesteps set.
        latents: Initial noise (B, C, H, W), scaled by `scheduler.init_noise_sigma`; or noised images, at the level of
            timestep number `first`.
        first: Number of the timestep to begin with.
        guidance: Applied in order, each on the result of the one before.
        known: A part of the image that is given.
        generator: Noise of stochastic solvers, one per image or one for all.
        eta: DDIM's stochasticity (eq. 16 of Song et al. 2021), in [0, 1].
        callback: See `Callback`.
        progress: Called after each step.

    Returns:
        The denoised latents (B, C, H, W).
    """
    predict: Predictor = denoiser
    if guidance:
        context = SamplingContext(denoiser, Parametrization.of(scheduler, latents.device))
        for guide in guidance:
            predict = guide(predict, context)
    options = step_options(scheduler, generator, eta)
    timesteps = scheduler.timesteps[first:]
    for step, timestep in enumerate(timesteps):
        if known is not None:
            latents = known(scheduler, latents, timestep)
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = predict(scaled, timestep, step / len(timesteps))
        latents = scheduler.step(prediction, timestep, latents, **options, return_dict=False)[0]
        if callback is not None:
            latents = callback(step, timestep, latents)
        progress()
    return latents
