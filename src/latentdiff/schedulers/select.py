"""Changing the solver of a model without changing the model's noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from latentdiff.errors import ConfigError
from latentdiff.registry import SCHEDULERS
from latentdiff.schedulers.noise_schedule import NOISE_FIELDS, NoiseSchedule
from latentdiff.schedulers.predictions import FLOW
from latentdiff.schedulers.tuned import FIELD as TUNED
from latentdiff.types import JSON, Float64Array, Scheduler

# Options of the model or of its use, which the next solver takes over; a solver's own options must not turn up in it.
CARRIED = {*NOISE_FIELDS, "timestep_spacing", "steps_offset", "use_karras_sigmas", "set_alpha_to_one", "clip_sample"}
CARRIED |= {"flow_shift", TUNED}  # which says itself for which solver it is
DIFFUSERS_BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
WANTED = "give a name, a scheduler class or an instance"


def make_scheduler(spec: str | type[SchedulerMixin] | Scheduler, config: JSON, **options: object) -> SchedulerMixin:
    """A scheduler for the model that `config` belongs to.

    Options that both solvers have and that `config` sets (spacing, offset, Karras levels, set_alpha_to_one) carry over;
    options left at the old class's default become the new class's. Latents are not clipped, so a class that clips by
    default (diffusers' DDIM and DDPM) is told not to, unless `config` says otherwise.

    Args:
        spec: A name in the scheduler registry, a scheduler class (of this package or of diffusers), or an instance,
            which is returned unchanged.
        config: The config of the model's current scheduler.
        **options: Options of the new scheduler; they take precedence over the config's.

    Raises:
        ConfigError: For an unknown name or option, for an instance with another noise schedule or prediction type than
            the model's, for options beside an instance, and for a spacing that a class of diffusers doesn't know.
    """
    if not isinstance(spec, (str, type)):
        _check_instance(spec, config, options)
        return spec
    scheduler_class: type[SchedulerMixin] = SCHEDULERS.get(spec) if isinstance(spec, str) else spec
    if not hasattr(scheduler_class, "from_config"):
        raise ConfigError(f"{scheduler_class.__name__} is not a scheduler; {WANTED}")
    carried = CARRIED - (set(config.get("_use_default_values", ())) - set(NOISE_FIELDS))
    kept = {"clip_sample": False, **{name: value for name, value in config.items() if name in carried}}
    stock = scheduler_class.__module__.startswith("diffusers.")
    if stock and (options.get("timestep_spacing") or kept.get("timestep_spacing")) == "original":
        raise ConfigError(
            f"timestep_spacing 'original' is unknown to diffusers' {scheduler_class.__name__}; give timestep_spacing, "
            "such as 'leading'"
        )
    if not hasattr(scheduler_class, "scale_model_input"):
        raise ConfigError(
            f"{scheduler_class.__name__} has no scale_model_input, which pipelines call; choose a solver of this "
            "package, such as 'ddim'"
        )
    if stock and kept.get("prediction_type") == FLOW:
        if "use_flow_sigmas" not in inspect.signature(scheduler_class).parameters:
            raise ConfigError(
                f"diffusers' {scheduler_class.__name__} is not made for {FLOW}; choose a solver of this package, such "
                "as 'ddim' or 'dpmpp_2m'"
            )
        kept["use_flow_sigmas"] = True
    elif stock and kept.get("beta_schedule") not in DIFFUSERS_BETAS:
        kept["trained_betas"] = NoiseSchedule.from_config({**kept, "rescale_betas_zero_snr": False}).betas.tolist()
        kept["beta_schedule"] = "linear"
    scheduler, unused = scheduler_class.from_config(kept, return_unused_kwargs=True, **options)
    unknown = set(options) & set(unused)
    if unknown:
        raise ConfigError(f"{scheduler_class.__name__} has no option {', '.join(sorted(unknown))}")
    return scheduler


def scheduler_name(scheduler: object) -> str:
    """The scheduler's name in the registry; for others, their class's."""
    known = [name for name in SCHEDULERS.names() if type(scheduler) is SCHEDULERS.get(name)]
    return known[0] if known else type(scheduler).__name__


def _check_instance(scheduler: Scheduler, config: JSON, options: Iterable[str]) -> None:
    """ConfigError unless an instance has the model's noise schedule and prediction type, and no options are given."""
    if not hasattr(scheduler, "config"):
        raise ConfigError(f"a {type(scheduler).__name__} is not a scheduler; {WANTED}")
    if options:
        raise ConfigError(f"{', '.join(sorted(options))} cannot be set on an instance; set it when making the instance")
    for name in ("num_train_timesteps", "prediction_type"):
        theirs, ours = scheduler.config.get(name), config.get(name)
        if theirs != ours:
            raise ConfigError(f"the scheduler's {name} is {theirs!r}, the model's {ours!r}; pass the class instead")
    if "beta_schedule" not in scheduler.config or not np.allclose(_betas(scheduler.config), _betas(config), rtol=1e-4):
        fields = [name for name in NOISE_FIELDS if scheduler.config.get(name) != config.get(name)]
        raise ConfigError(
            f"the scheduler's noise schedule is not the model's ({', '.join(fields)}); pass the class instead"
        )


def _betas(config: JSON) -> Float64Array:
    return NoiseSchedule.from_config(config).betas
