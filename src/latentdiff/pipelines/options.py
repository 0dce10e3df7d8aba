"""The options that every pipeline's call takes, said once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Generic, TypeVar, cast

import torch
from typing_extensions import TypedDict

from latentdiff.caching import CacheOptions
from latentdiff.errors import InputError
from latentdiff.guidance.common import finite_number
from latentdiff.pipelines.call_state import turn
from latentdiff.pipelines.outputs import OutputT, check_output_type
from latentdiff.registry import nearest
from latentdiff.sampling import Guidance
from latentdiff.seeding import Generators, Seed
from latentdiff.tasks import NUM_INFERENCE_STEPS
from latentdiff.windows import Windows

CALLBACK_TENSORS = ("latents", "pred_original_sample")

StepEndCallback = Callable[..., Mapping[str, torch.Tensor] | None]
Call = TypeVar("Call", bound=Callable[..., object])


class SamplingKeywords(TypedDict, Generic[OutputT], total=False):
    """The keyword arguments of every pipeline's call, for annotations: `**keywords: Unpack[SamplingKeywords]`.

    `SamplingOptions` describes them and has their defaults.
    """

    num_images_per_prompt: int
    num_inference_steps: int | str
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    eta: float
    temperature: float
    quantize_denoised: bool
    generator: Generators
    latents: torch.Tensor | None
    output_type: OutputT
    return_dict: bool
    callback_on_step_end: StepEndCallback | None
    callback_on_step_end_tensor_inputs: Sequence[str]
    seed: Seed
    guidance: Sequence[Guidance]
    windows: Windows | int | None
    cache_interval: int
    cache_branch: int | None
    cache_center: float | None
    cache_power: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingOptions(Generic[OutputT]):
    """The options of a call, completed: checked, and with a default where nothing was given.

    A pipeline makes them of its call's `SamplingKeywords`, once, and hands them to what makes the images. There the
    size of `windows`, which a call takes in pixels, is counted in latent pixels.

    Attributes:
        num_images_per_prompt: Images for each input, next to each other in the result.
        num_inference_steps: Steps of the solver; "tuned:10" takes the timesteps that were tuned for 10 (`tune_steps`).
        timesteps: The solver's timesteps, descending, in place of `num_inference_steps`.
        sigmas: The solver's noise levels, descending, in place of `num_inference_steps`.
        eta: Stochasticity of DDIM, in [0, 1].
        temperature: Factor on the noise that the steps add, at least 0; not on that which the run starts from.
        quantize_denoised: Whether each step goes from its estimate of the clean latents to their nearest codes, for
            models with a VQ first stage and the solvers "ddim", "plms" and "ddpm".
        generator: torch's generator(s), as in diffusers; `seed` is the simpler way.
        latents: Initial noise (B, C, h, w) from N(0, 1).
        output_type: "pil"; "np", (B, H, W, C) in [0, 1]; "pt", (B, C, H, W) in [0, 1]; or "latent", (B, C, h, w).
        return_dict: Whether to return an object with `images`, else a tuple of them alone. Type checkers always see the
            object; `[0]` gives the images of both.
        callback_on_step_end: Called as (pipeline, step, timestep, tensors), returns the tensors to go on with, or None
            to go on with those that it got. It may set `pipeline._interrupt = True` to end the run after this step.
        callback_on_step_end_tensor_inputs: Which tensors the callback receives: "latents", those of the next timestep,
            and "pred_original_sample", the step's estimate of the clean latents, both (B, C, h, w) and scaled.
        seed: An integer, or one for each image. Image i of seed s equals image 0 of seed s + i, in any batch.
        guidance: Guidance objects to be applied after the classifier-free guidance, in order.
        windows: Overlapped windows for images larger than memory or training allow: `Windows` in pixels, or their side
            in pixels, of which a quarter then overlaps.
        cache_interval: The network is evaluated in full at one of so many evaluations, and the others reuse its deep
            features (DeepCache), which is faster and less exact; 1 for none.
        cache_branch: How much a reusing evaluation computes: 0, the default, is the least, and each step up adds a
            layer on the way down and one on the way up.
        cache_center: The share of the run, in [0, 1], around which full evaluations lie close together, as many as
            without it; None for an even spread.
        cache_power: How much closer together, at least 1; 1.4 by default.

    Raises:
        InputError: If a value is not valid, whatever the model and the batch are.
    """

    num_images_per_prompt: int = 1
    num_inference_steps: int | str = NUM_INFERENCE_STEPS
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    eta: float = 0.0
    temperature: float = 1.0
    quantize_denoised: bool = False
    generator: Generators = None
    latents: torch.Tensor | None = None
    output_type: OutputT = "pil"  # type: ignore[assignment]  # the default of the type variable, too
    return_dict: bool = True
    callback_on_step_end: StepEndCallback | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)
    seed: Seed = None
    guidance: Sequence[Guidance] = ()
    windows: Windows | None = None
    cache_interval: int = 1
    cache_branch: int | None = None
    cache_center: float | None = None
    cache_power: float | None = None

    def __post_init__(self) -> None:
        check_output_type(self.output_type)
        check_count("num_images_per_prompt", self.num_images_per_prompt)
        unknown = {*self.callback_on_step_end_tensor_inputs, *getattr(self.callback_on_step_end, "tensor_inputs", ())}
        unknown -= set(CALLBACK_TENSORS)
        if unknown:
            raise InputError(
                f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; allowed: {list(CALLBACK_TENSORS)}"
            )
        if not 0 <= finite_number("eta", self.eta) <= 1:
            raise InputError(f"eta is {self.eta}; it must be in [0, 1]")
        if finite_number("temperature", self.temperature) < 0:
            raise InputError(f"temperature is {self.temperature}; it must be at least 0")
        if not isinstance(self.quantize_denoised, bool):
            raise InputError(f"quantize_denoised is {self.quantize_denoised!r}; it must be True or False")
        check_guidance(self.guidance)
        if self.seed is not None and self.generator is not None:
            raise InputError("seed and generator are both given; give one of them")
        if self.timesteps is not None and self.sigmas is not None:
            raise InputError("timesteps and sigmas are both given; give one of them")

    @property
    def caching(self) -> CacheOptions:
        """The options that are of feature caching."""
        return CacheOptions(self.cache_interval, self.cache_branch, self.cache_center, self.cache_power)

    @property
    def schedule(self) -> dict[str, object]:
        """The argument of a scheduler's `set_timesteps` that plans the run: one of the three that can."""
        custom = {"timesteps": self.timesteps, "sigmas": self.sigmas}
        given: dict[str, object] = {name: values for name, values in custom.items() if values is not None}
        return given or {"num_inference_steps": self.num_inference_steps}


def check_guidance(guidance: object) -> None:
    """Raise InputError unless `guidance` is a sequence of guidance objects."""
    if isinstance(guidance, (int, float)):
        raise InputError(f"guidance is {guidance!r}, but it takes a list of objects; did you mean guidance_scale?")
    if isinstance(guidance, str) or not isinstance(guidance, Sequence) or not all(map(callable, guidance)):
        raise InputError(
            f"guidance is {guidance!r:.60}; give a list of guidance objects, such as [ClassifierFreeGuidance(...)]"
        )


def check_count(name: str, value: object) -> int:
    """Return `value`; InputError unless it is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be an integer of at least 1")
    return value


def sampling_call(call: Call) -> Call:
    """Decorate a method `(self, ..., **keywords: Unpack[SamplingKeywords])` that makes images.

    It runs without gradients, its signature and docstring show the shared options in place of `**keywords`, and a
    keyword that neither knows is an InputError that names the nearest.
    """
    signature = inspect.signature(call)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [*own, *shared_parameters()]
    known = {parameter.name for parameter in parameters[1:]}

    @functools.wraps(call)
    @torch.no_grad()
    def checked(self: object, *args: object, **keywords: object) -> object:
        for name in keywords:
            if name not in known:
                raise InputError(f"{type(self).__name__} takes no {name!r}; {nearest(name, known)}")
        with turn(self):
            return call(self, *args, **keywords)

    checked.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    checked.__doc__ = _with_shared_arguments(call.__doc__)
    return cast(Call, checked)


def shared_parameters() -> list[inspect.Parameter]:
    """The shared options as parameters, with the types that a call takes and the defaults."""
    hints = {name: getattr(hint, "__forward_arg__", hint) for name, hint in SamplingKeywords.__annotations__.items()}
    hints["output_type"] = "OutputType"
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(SamplingOptions)
    ]


def _with_shared_arguments(doc: str | None) -> str | None:
    """A docstring in which the shared options' lines stand in place of that of `**keywords`."""
    shared = inspect.cleandoc(SamplingOptions.__doc__ or "").partition("Attributes:\n")[2].partition("\n\nRaises:")[0]
    lines = (doc or "").splitlines()
    place = next((i for i, line in enumerate(lines) if line.strip().startswith("**keywords:")), None)
    if place is None:
        return doc
    margin = lines[place][: -len(lines[place].lstrip())]
    lines[place : place + 1] = [margin + line.removeprefix("    ") for line in shared.splitlines()]
    return "\n".join(lines)
