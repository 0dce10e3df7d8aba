"""Timesteps that were tuned for a model: how its scheduler's config keeps them, and how a call asks for them.

`num_inference_steps="tuned:10"` takes those of 10 steps. They stand in the config in a field that begins with an
underscore, which diffusers' schedulers load and save without a word.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from latentdiff.errors import ConfigError, InputError, LatentDiffWarning
from latentdiff.schedulers.noise_schedule import NOISE_FIELDS, NoiseSchedule
from latentdiff.types import JSON, Scheduler

FIELD = "_tuned_timesteps"
SPACING_OPTIONS = {"timestep_spacing", "steps_offset", "use_karras_sigmas", "flow_shift"}
"""Options that tuned timesteps stand in place of; a solver's other options are part of what they are tuned for."""


@dataclass(frozen=True, kw_only=True)
class TunedTimesteps:
    """Timesteps and what they were tuned for.

    Attributes:
        solver: The name of the scheduler's class.
        options: Its options that change a step, such as `solver_order`.
        noise_schedule: What tells the model's noise schedule and prediction type from others, see `fingerprint`.
        guidance_scale: The strength of classifier-free guidance, 1 without.
        timesteps: The timesteps of the run, falling.
        method: What found them: "gits", "model-free" (each with "refined" where a descent on the solver's error went
            on from there), or the name of an untuned schedule where none was better.
        distance: The distance from the teacher's latents, for seeds that weren't tuned on: the mean over images of the
            root mean square over their latents.
        untuned: The same of the usual schedules, by name.
    """

    solver: str
    options: Mapping[str, object]
    noise_schedule: str
    guidance_scale: float
    timesteps: tuple[int, ...]
    method: str
    distance: float
    untuned: Mapping[str, float]

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.timesteps)

    def key(self) -> tuple[object, ...]:
        """What there is one set of timesteps for."""
        return self.solver, dict(self.options), self.noise_schedule, self.guidance_scale, self.steps


def fingerprint(config: JSON) -> str:
    """What changes with the noise schedule or the prediction type of a scheduler's config."""
    schedule = NoiseSchedule.from_config(config)
    text = json.dumps([config.get("prediction_type"), [f"{beta:.6e}" for beta in schedule.betas]])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def solver_options(scheduler: Scheduler) -> dict[str, object]:
    """The options of a scheduler that change its steps, without those that choose the timesteps."""
    known = inspect.signature(type(scheduler)).parameters
    return {name: scheduler.config[name] for name in known if name not in {*NOISE_FIELDS, *SPACING_OPTIONS}}


def tuned_count(text: str) -> int:
    """The number of steps that "tuned:N" asks for.

    Raises:
        InputError: If it is another text.
    """
    match = re.fullmatch(r"tuned:([1-9][0-9]{0,3})", text)
    if match is None:
        raise InputError(f"num_inference_steps is {text!r}; choose an integer from 1, or one like 'tuned:10'")
    return int(match[1])


def read_tuned(config: JSON) -> list[TunedTimesteps]:
    """All timesteps that a scheduler's config keeps.

    Raises:
        ConfigError: If what it keeps is damaged.
    """
    try:
        return [_read_entry(entry) for entry in config.get(FIELD) or []]
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            f"{FIELD} of the scheduler's config is damaged; take it out of scheduler_config.json, and tune again"
        ) from None


def _read_entry(entry: JSON) -> TunedTimesteps:
    """One entry of `FIELD`; KeyError, TypeError or ValueError unless each of its values is of its kind."""
    values = {field.name: entry[field.name] for field in fields(TunedTimesteps)}
    number = (int, float)
    kinds: dict[str, type | tuple[type, ...]] = {
        **{"options": dict, "untuned": dict, "timesteps": list},
        **{"guidance_scale": number, "distance": number},
    }
    for name, value in values.items():
        if not isinstance(value, kinds.get(name, str)):
            raise TypeError(f"{name} is {value!r}")
    if not values["timesteps"] or any(type(timestep) is not int for timestep in values["timesteps"]):
        raise ValueError(f"timesteps are {values['timesteps']!r}")
    return TunedTimesteps(**{**values, "timesteps": tuple(values["timesteps"])})


def with_tuned(config: JSON, tuned: TunedTimesteps) -> list[JSON]:
    """The value of `FIELD` with new timesteps, which replace those of the same solver, guidance and count."""
    kept = [entry for entry in read_tuned(config) if entry.key() != tuned.key()]
    return [{**asdict(entry), "timesteps": list(entry.timesteps)} for entry in [*kept, tuned]]


def find_tuned(scheduler: Scheduler, text: str) -> list[TunedTimesteps]:
    """The timesteps of "tuned:N" for a solver, one for each strength of guidance.

    Raises:
        InputError: If there are none; the message says which there are.
        ConfigError: If what the config keeps is damaged.
    """
    steps, entries = tuned_count(text), read_tuned(scheduler.config)
    advice = f"latentdiff tune-steps MODEL --steps {steps} makes some"
    if not entries:
        raise InputError(f"num_inference_steps is {text!r}, but this model has no tuned timesteps; {advice}")
    of_model = [entry for entry in entries if entry.noise_schedule == fingerprint(scheduler.config)]
    if not of_model:
        raise InputError(
            f"num_inference_steps is {text!r}, but the timesteps were tuned for another noise schedule or prediction "
            f"type; {advice}"
        )
    solver, options = type(scheduler).__name__, solver_options(scheduler)
    found = [
        entry for entry in of_model if (entry.solver, dict(entry.options), entry.steps) == (solver, options, steps)
    ]
    if not found:
        known = ", ".join(sorted({f"{entry.solver} {entry.steps}" for entry in of_model}))
        raise InputError(
            f"num_inference_steps is {text!r}, but there are no such timesteps for {solver} with these options; "
            f"tuned: {known}; latentdiff tune-steps MODEL --steps {steps} --scheduler NAME makes others"
        )
    return found


def planned(scheduler: Scheduler, schedule: Mapping[str, object], guidance_scale: float) -> Mapping[str, object]:
    """The argument of `set_timesteps`, in which tuned timesteps stand in place of "tuned:N".

    Of timesteps for several strengths of guidance those of the nearest are taken; a warning tells if it is another.

    Args:
        scheduler: The solver.
        schedule: The argument as a call gives it.
        guidance_scale: The strength of the call's classifier-free guidance, 1 without.

    Raises:
        InputError: If there are no such timesteps.
    """
    text = schedule.get("num_inference_steps")
    if not isinstance(text, str):
        return schedule
    found = min(find_tuned(scheduler, text), key=lambda entry: abs(entry.guidance_scale - guidance_scale))
    if found.guidance_scale != guidance_scale:
        warnings.warn(
            f"{text} was tuned at guidance scale {found.guidance_scale:g} and is used at {guidance_scale:g}; "
            f"latentdiff tune-steps MODEL --steps {found.steps} --guidance-scale {guidance_scale:g} tunes for it",
            LatentDiffWarning,
            stacklevel=2,
        )
    return schedule_of(scheduler, found.timesteps)


def schedule_of(scheduler: Scheduler, timesteps: Sequence[int]) -> Mapping[str, object]:
    """The argument of `set_timesteps` for whole timesteps: their levels for a solver that would choose others."""
    if not scheduler.config.get("use_karras_sigmas"):
        return {"timesteps": list(timesteps)}
    levels = NoiseSchedule.from_config(scheduler.config, getattr(scheduler, "floor", 0.0)).sigmas
    return {"sigmas": [*levels[list(timesteps)].tolist(), 0.0]}
