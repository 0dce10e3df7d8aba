"""The arguments that every pipeline takes, said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, TypeVar, cast

import torch

from latentdiff.errors import InputError
from latentdiff.pipelines.outputs import check_output_type
from latentdiff.registry import nearest
from latentdiff.sampling import Guidance
from latentdiff.seeding import Generators, check_seed, generator
from latentdiff.tasks import NUM_INFERENCE_STEPS
from latentdiff.windows import Windows

Seed = int | Sequence[int] | None
Call = TypeVar("Call", bound=Callable[..., Any])


class SamplingOptions(TypedDict, total=False):
    """Keyword arguments of every pipeline's call.

    Attributes:
        num_images_per_prompt: Images for each input, next to each other in the result.
        num_inference_steps: Steps of the solver.
        timesteps: The solver's timesteps, descending, in place of `num_inference_steps`.
        sigmas: The solver's noise levels, descending, in place of `num_inference_steps`.
        eta: Stochasticity of DDIM, in [0, 1].
        generator: torch's generator(s), as in diffusers; `seed` is the simpler way.
        latents: Initial noise (B, C, h, w) from N(0, 1).
        output_type: "pil"; "np", (B, H, W, C) in [0, 1]; "pt", (B, C, H, W) in [0, 1]; or "latent".
        return_dict: Return an object with `images`, else a tuple.
        callback_on_step_end: Called as (pipeline, step, timestep, tensors), returns the tensors to go on with.
        callback_on_step_end_tensor_inputs: Which tensors it receives: "latents".
        seed: An integer, or one for each image. Image i of seed s equals image 0 of seed s + i, in any batch.
        guidance: Guidance objects to be applied after the classifier-free guidance, in order.
        windows: Overlapped windows for images larger than memory or training allow, or their side in pixels, which
            then overlap by a quarter.
    """

    num_images_per_prompt: int
    num_inference_steps: int
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    eta: float
    generator: Generators
    latents: torch.Tensor | None
    output_type: str
    return_dict: bool
    callback_on_step_end: Callable[..., dict[str, Any]] | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    seed: Seed
    guidance: Sequence[Guidance]
    windows: Windows | int | None


DEFAULTS = SamplingOptions(
    num_images_per_prompt=1,
    num_inference_steps=NUM_INFERENCE_STEPS,
    timesteps=None,
    sigmas=None,
    eta=0.0,
    generator=None,
    latents=None,
    output_type="pil",
    return_dict=True,
    callback_on_step_end=None,
    callback_on_step_end_tensor_inputs=("latents",),
    seed=None,
    guidance=(),
    windows=None,
)


def sampling_call(call: Call) -> Call:
    """Decorator of a pipeline's `__call__(self, ..., **options)`: no gradients, and its options checked.

    The options appear in the signature with their defaults; an unknown or invalid one is an InputError before
    anything is computed.
    """
    signature = inspect.signature(call)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = SamplingOptions.__annotations__
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=hints[name])
        for name, value in DEFAULTS.items()
    ]
    known = {parameter.name for parameter in (*own, *shared)}

    @functools.wraps(call)
    @torch.no_grad()
    def checked(self: Any, *args: Any, **options: Any) -> Any:
        for name in options:
            if name not in known:
                raise InputError(f"{type(self).__name__} takes no {name!r}; {nearest(name, known - {'self'})}")
        check_sampling_options(
            cast(SamplingOptions, {**DEFAULTS, **{k: v for k, v in options.items() if k in DEFAULTS}})
        )
        return call(self, *args, **options)

    checked.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]
    return cast(Call, checked)


def check_sampling_options(options: SamplingOptions) -> None:
    """InputError for what is wrong whatever the model and the batch are."""
    check_output_type(options["output_type"])
    check_count("num_images_per_prompt", options["num_images_per_prompt"])
    unknown = set(options["callback_on_step_end_tensor_inputs"]) - {"latents"}
    if unknown:
        raise InputError(f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; allowed: ['latents']")
    if options["seed"] is not None and options["generator"] is not None:
        raise InputError("seed and generator are both given; give one of them")
    if options["timesteps"] is not None and options["sigmas"] is not None:
        raise InputError("timesteps and sigmas are both given; give one of them")


def check_count(name: str, value: object) -> int:
    """`value`, or an InputError unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
    return value


def image_generators(seed: Seed, given: Generators, batch_size: int) -> Generators:
    """One CPU generator an image: image i of seed s draws what image 0 of seed s + i draws.

    Args:
        seed: An int, one int an image, or None for fresh noise.
        given: diffusers' `generator` argument, used as it is.
        batch_size: Images in the call.

    Raises:
        InputError: If a seed is out of range, or the number of seeds or generators is not the batch's.
    """
    if given is not None:
        if isinstance(given, list) and len(given) != batch_size:
            raise InputError(f"{len(given)} generators are given for {batch_size} images; give one each, or one")
        return given
    if seed is None:
        return None
    if isinstance(seed, (list, tuple)):
        seeds = [check_seed(number) for number in seed]
    else:
        first = check_seed(seed)
        seeds = [check_seed(first + i) for i in range(batch_size)]
    if len(seeds) != batch_size:
        raise InputError(f"{len(seeds)} seeds are given for {batch_size} images; give one each, or one int")
    return [generator(number) for number in seeds]
