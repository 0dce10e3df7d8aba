"""The options of a scheduler's constructor: which there are, and of what kind each is."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from latentdiff.errors import ConfigError
from latentdiff.schedulers.predictions import FLOW, PREDICTION_TYPES

OTHERS = ("LCMScheduler", "TCDScheduler", "SASolverScheduler", "FlowMatchEulerDiscreteScheduler")
COMPATIBLE_CLASSES = [*(entry.name for entry in KarrasDiffusionSchedulers), *OTHERS]
"""The classes of diffusers whose configs have the fields of ours."""


def check_options(cls: type, config: Mapping[str, object]) -> None:
    """Check that a config names a prediction type, and holds a number where there is a number by default, and so on.

    Args:
        cls: The scheduler's class.
        config: The values of its constructor's parameters.

    Raises:
        ConfigError: If one is of another kind.
    """
    for name, parameter in inspect.signature(cls).parameters.items():
        value, default = config.get(name), parameter.default
        if value is None and "None" in str(parameter.annotation):
            continue
        if isinstance(default, bool):
            fits, what = isinstance(value, bool), "true or false"
        elif isinstance(default, int):
            fits, what = isinstance(value, int) and not isinstance(value, bool), "a whole number"
        elif isinstance(default, float):
            fits, what = isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
        elif isinstance(default, str):
            fits, what = isinstance(value, str), "a word"
        else:
            continue
        if not fits:
            raise ConfigError(f"{name} is {value!r:.80}; it must be {what}, such as {default!r}")
    if config["prediction_type"] not in PREDICTION_TYPES:
        given, known = config["prediction_type"], ", ".join(PREDICTION_TYPES)
        raise ConfigError(f"prediction_type is {given!r}; choose one of {known}")
    if config.get("flow_shift", 1.0) != 1.0 and config["prediction_type"] != FLOW:
        raise ConfigError(
            f"flow_shift is {config['flow_shift']}, but prediction_type is {config['prediction_type']!r}; leave it out"
        )
