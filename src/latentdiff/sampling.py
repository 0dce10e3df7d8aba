"""The denoising loop: one, for every task, solver and guidance."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from latentdiff.caching import CacheSchedule, CachingNetwork, FeatureCache, check_branch
from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.nn.context import ContextCache, TimeEmbedding
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.parametrization import Parametrization
from latentdiff.seeding import Generators
from latentdiff.types import DenoisingNetwork, Scheduler
from latentdiff.windows import Windows

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


class Predictor(Protocol):
    """The prediction of the network, guided or not, as a function of latents and timestep."""

    def __call__(self, latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
        """The prediction, of the latents' shape (B, C, H, W); `fraction` of the steps are done, in [0, 1)."""
        ...


class Denoiser:
    """A UNet with its conditioning bound; what doesn't change over the steps is computed here, once.

    Args:
        unet: `latentdiff.UNet2DConditionModel` or a stock diffusers UNet.
        conditioning: The conditioning of each prediction: `copies` times as many rows as there are latents, or channels
            of as many rows as there are latents beside such a context.
        copies: How many predictions are made of each latent in one pass, such as 2 for classifier-free guidance.
        windows: Overlapped windows, in latent pixels, that the network sees one after the other; None for all at once.
        timesteps: The timesteps of the run (N,), if they are known: what the network makes of them is computed here,
            too. An element of this very tensor is recognised by its place in memory, which reads nothing; so the tensor
            is kept, and is not to be changed in place. Any other timestep is computed when it comes.
        schedule: Which evaluations reuse deep features of earlier ones; None if each is computed in full.
        crop: The part of an image that each of the latents is (B, 3), for a UNet with `crop_condition` in training;
            None for whole images.

    Raises:
        InputError: If features are to be reused and the network can't, or has no such branch.
    """

    def __init__(
        self,
        unet: DenoisingNetwork,
        conditioning: Conditioning,
        copies: int = 1,
        windows: Windows | None = None,
        timesteps: Tensor | None = None,
        schedule: CacheSchedule | None = None,
        crop: Tensor | None = None,
    ) -> None:
        self.unet, self.conditioning, self.copies, self.windows = unet, conditioning, copies, windows
        self.timesteps, self.schedule, self.crop = timesteps, schedule, crop
        self.cache: FeatureCache | None = None
        if schedule is not None:
            check_branch(unet, schedule.branch)
            self.cache = FeatureCache(schedule)
        self.own = unet if isinstance(unet, CachingNetwork) else None
        self.prepared: dict[int, TimeEmbedding] = {}  # by the address of the timestep
        if timesteps is not None and self.own is not None:
            addresses = [timestep.data_ptr() for timestep in timesteps]
            self.prepared = dict(zip(addresses, self.own.prepare_timesteps(timesteps), strict=True))
        self.inputs: dict[str, Tensor | ContextCache] = {}
        if conditioning.context is not None:
            prepare = getattr(unet, "prepare_context", lambda context: context)
            self.inputs["encoder_hidden_states"] = prepare(conditioning.context)
        if crop is not None:
            self.inputs["crop"] = crop
        # Our UNet repeats its input itself, after what all copies share; a stock one wants it repeated.
        self.shares = hasattr(unet, "prepare_context")
        fewer = conditioning.concat is None or len(conditioning.concat) < (conditioning.batch_size or 0)
        self.repeats = copies > 1 and not (self.shares and fewer)

    def with_unconditional(self, unconditional: Conditioning) -> Denoiser:
        """Make a denoiser of the batch [unconditional, conditional], for classifier-free guidance."""
        both, concat = Conditioning.cat([unconditional, self.conditioning]), self.conditioning.concat
        if self.shares and concat is unconditional.concat:
            both = Conditioning(both.context, concat)
        return self.with_network(self.unet, both, 2)

    def with_network(self, unet: DenoisingNetwork, conditioning: Conditioning, copies: int = 1) -> Denoiser:
        """Make a denoiser of another network or conditioning for the same run."""
        return Denoiser(unet, conditioning, copies, self.windows, self.timesteps, self.schedule, self.crop)

    def __call__(self, latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
        """The predictions (copies * B, C, H, W) of latents (B, C, H, W); see `Predictor`."""
        if self.repeats:
            latents = latents.repeat(self.copies, 1, 1, 1)
        inputs = (latents,) if self.conditioning.concat is None else (latents, self.conditioning.concat)
        if self.cache is not None:
            fraction = self.cache.begin(fraction)  # features are of the windows that they were computed in

        def predict(*parts: Tensor) -> Tensor:
            sample = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            return self._evaluate(sample, timestep)

        if self.windows is None:
            return predict(*inputs)
        # The borders move from step to step, so that what one step leaves there is mended by the next. Multiples of an
        # irrational number keep away from each other; 89 only makes them differ between neighbouring steps.
        return self.windows.apply(predict, *inputs, phase=fraction * 89 * GOLDEN_RATIO % 1)

    def _evaluate(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The network's prediction, by features that are kept, or keeping them, if there is a cache."""
        if self.own is None:
            return self.unet(sample, timestep, **self.inputs).sample
        prepared = self.prepared.get(timestep.data_ptr(), timestep) if self.prepared else timestep
        if self.cache is None:
            return self.own(sample, prepared, **self.inputs).sample
        features, branch = self.cache.take(), self.cache.schedule.branch
        output = self.own(sample, prepared, cache_branch=branch, cached_features=features, **self.inputs)
        if features is None:
            self.cache.keep(output.features)
        return output.sample


@dataclass(frozen=True)
class KnownRegion:
    """Latents that are known in a part of the image: before each step that part is set to them, noised anew.

    Args:
        latents: The known latents (B, C, H, W), scaled.
        mask: A mask (B or 1, 1, H, W), 1 where the latents are known, 0 where they are to be made.
        generator: Source of the noise, one per image or one for all.
    """

    latents: Tensor
    mask: Tensor
    generator: Generators = None

    def noise(self) -> Tensor:
        """Draw fresh noise (B, C, H, W)."""
        drawn: Tensor = randn_tensor(
            self.latents.shape, generator=self.generator, device=self.latents.device, dtype=self.latents.dtype
        )
        return drawn

    def __call__(self, scheduler: Scheduler, latents: Tensor, timestep: Tensor) -> Tensor:
        """The latents (B, C, H, W) with the known part set to what is known, noised to `timestep`."""
        known = scheduler.add_noise(self.latents, self.noise(), timestep.expand(len(latents)))
        return torch.lerp(latents, known, self.mask)


@dataclass(frozen=True)
class SamplingContext:
    """What guidance may use beside the predictor.

    Attributes:
        denoiser: The network with its conditioning, which is also what the first of a list of guidance receives.
        parametrization: What the network's output says of the latents.
        scheduler: The solver; None outside of a run.
        replace_x0: Functions that make of each step's estimate of the clean latents (B, C, H, W) the one that it goes
            from, along the noise that was predicted. A guidance may add its own, if the solver has such steps.
    """

    denoiser: Denoiser
    parametrization: Parametrization
    scheduler: Scheduler | None = None
    replace_x0: list[Callable[[Tensor], Tensor]] = field(default_factory=list)


Guidance = Callable[[Predictor, SamplingContext], Predictor]
"""Turns a predictor into another."""

Callback = Callable[[int, Tensor, Tensor], Tensor]
"""Called after each step with (step, timestep, latents); returns the latents to go on with."""


def step_options(
    scheduler: Scheduler,
    generator: Generators = None,
    eta: float = 0.0,
    temperature: float = 1.0,
    replace_x0: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, object]:
    """Choose those of the options of a step that `scheduler.step` takes; see `sample` for what they are.

    Raises:
        InputError: If one that asks for something has no effect with this scheduler.
    """
    name, known = type(scheduler).__name__, inspect.signature(scheduler.step).parameters
    own = scheduler if isinstance(scheduler, TableScheduler) else None
    options: dict[str, object] = {"generator": generator} if "generator" in known else {}
    if "eta" in known:
        options["eta"] = eta
    elif eta:
        raise InputError(f"eta is {eta}, but {name} takes none; set it to 0 or use 'ddim'")
    if temperature != 1:
        if own is None or not own.adds_noise(eta):
            raise InputError(
                f"temperature is {temperature}, but the steps of {name} add no noise that it could scale; leave it at "
                "1, or use 'ddpm', or 'ddim' with eta"
            )
        options["temperature"] = temperature
    if replace_x0 is not None:
        if own is None or not own.has_x0_weight:
            raise InputError(
                f"quantize_denoised has no meaning for {name}; leave it out, or use 'ddim', 'plms' or 'ddpm'"
            )
        options["replace_x0"] = replace_x0
    return options


def _one_after_the_other(functions: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor] | None:
    """The function that applies several in order; None if there is none."""
    return (lambda x0: functools.reduce(lambda value, function: function(value), functions, x0)) if functions else None


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    scheduler: Scheduler,
    latents: Tensor,
    *,
    first: int = 0,
    guidance: Sequence[Guidance] = (),
    known: KnownRegion | None = None,
    generator: Generators = None,
    eta: float = 0.0,
    temperature: float = 1.0,
    replace_x0: Callable[[Tensor], Tensor] | None = None,
    observe_x0: Callable[[Tensor], object] | None = None,
    callback: Callback | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[], object] = lambda: None,
) -> Tensor:
    """Denoise `latents` along `scheduler.timesteps`.

    Args:
        denoiser: The network and what it is conditioned on.
        scheduler: A scheduler of this package or of diffusers, its timesteps set.
        latents: Initial noise (B, C, H, W), scaled by `scheduler.init_noise_sigma`; or noised images, at the level of
            timestep number `first`.
        first: Number of the timestep to begin with.
        guidance: Guidance objects, which are applied in order, each on the result of the one before.
        known: A part of the image that is given.
        generator: Noise of stochastic solvers, one per image or one for all.
        eta: DDIM's stochasticity (eq. 16 of Song et al. 2021), in [0, 1].
        temperature: Factor on the noise of stochastic solvers.
        replace_x0: Makes of each step's estimate of the clean latents (B, C, H, W) the one that it goes from, such as
            their nearest codes.
        observe_x0: Called after each step, before `callback`, with the step's estimate of the clean latents
            (B, C, H, W).
        callback: Called after each step; its result is what the next step starts from.
        stop: Asked after each step whether to leave out those that remain.
        progress: Called after each step, without arguments.

    Returns:
        The denoised latents (B, C, H, W).

    Raises:
        InputError: If eta, temperature or replace_x0 has no effect with this scheduler.
    """
    predict: Predictor = denoiser
    own = isinstance(scheduler, TableScheduler)
    if guidance or (observe_x0 is not None and not own):
        context = SamplingContext(denoiser, Parametrization.of(scheduler, latents.device), scheduler)
        for guide in guidance:
            predict = guide(predict, context)
        replace_x0 = _one_after_the_other([*context.replace_x0, *([] if replace_x0 is None else [replace_x0])])
    options = step_options(scheduler, generator, eta, temperature, replace_x0)
    take_step: Callable[..., tuple[Tensor, ...]] = scheduler.step
    timesteps = scheduler.timesteps[first:]
    for step, timestep in enumerate(timesteps):
        if known is not None:
            latents = known(scheduler, latents, timestep)
        scaled = scheduler.scale_model_input(latents, timestep)
        prediction = predict(scaled, timestep, step / len(timesteps))
        latents, *estimates = take_step(prediction, timestep, latents, **options, return_dict=False)
        if observe_x0 is not None:  # stock schedulers return different things after the latents, or nothing
            observe_x0(estimates[0] if own else context.parametrization.x0(scaled, prediction, timestep))
        if callback is not None:
            latents = callback(step, timestep, latents)
        progress()
        if stop():
            break
    return latents
