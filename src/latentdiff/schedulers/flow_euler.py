"""Euler's method along a rectified flow (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from diffusers.configuration_utils import register_to_config

from latentdiff.errors import ConfigError
from latentdiff.models.stock_options import with_stock_options
from latentdiff.schedulers.base import Row, TableScheduler
from latentdiff.schedulers.noise_schedule import NoiseGrid, shifted
from latentdiff.schedulers.predictions import FLOW
from latentdiff.types import JSON, Float64Array


class FlowMatchEulerScheduler(TableScheduler):
    """First order, deterministic, for models of a flow; its config has the names of diffusers' class of that purpose.

    A step keeps the estimates of x0 and of the noise and lowers s, the share of noise, which is dx = prediction ds of
    x = (1 - s) x0 + s noise. Samples are variance-preserving, as in the package's other solvers: what the network sees
    is `scale_model_input` of them.

    Args:
        num_train_timesteps: Number T of timesteps; that of s is s T.
        shift: Moves the timesteps of a run towards the noise (above 1) or away from it.
        timestep_spacing: "linspace", which is diffusers': from 1 to the shifted 1 / T, then 0; or "trailing", from 1
            in even steps to 0, or another of `noise_schedule.SPACINGS`.
        prediction_type: "flow_prediction".
    """

    counterpart = "FlowMatchEulerDiscreteScheduler"
    solver_values: ClassVar[dict[str, object]] = {
        "use_dynamic_shifting": False,
        "invert_sigmas": False,
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "stochastic_sampling": False,
    }

    @with_stock_options
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        shift: float = 1.0,
        *,
        timestep_spacing: str = "linspace",
        prediction_type: str = FLOW,
    ) -> None:
        if prediction_type != FLOW:
            raise ConfigError(
                f"prediction_type is {prediction_type!r}, and FlowMatchEulerScheduler is for {FLOW}; choose 'euler'"
            )
        self.register_to_config(flow_shift=shift)  # by which other solvers know it
        self._setup()

    @classmethod
    def extract_init_dict(cls, config_dict: JSON, **kwargs: object) -> tuple[JSON, JSON, JSON]:
        """As `TableScheduler.extract_init_dict`; another solver's `flow_shift` is the shift."""
        config = {name: value for name, value in config_dict.items() if name != "flow_shift"}
        if "shift" not in config and "flow_shift" in config_dict:
            config["shift"] = config_dict["flow_shift"]
        return super().extract_init_dict(config, **kwargs)

    def _grid(self, steps: int | None, timesteps: Float64Array | None, sigmas: Float64Array | None) -> NoiseGrid:
        """The run's noise levels; `sigmas` are shares of noise s, as diffusers calls them, and are shifted."""
        total, shift = self.config.num_train_timesteps, self.config.shift
        if sigmas is not None:
            if len(sigmas) < 2 or sigmas[-1] != 0:
                raise ConfigError("sigmas must fall strictly from at most 1, end at 0, and hold one more than steps")
            timesteps = total * shifted(sigmas[:-1], shift)
        elif timesteps is None:
            timesteps = self.schedule.visited(self.config.timestep_spacing, steps or 0)
            if self.config.timestep_spacing == "linspace":
                last = shifted(np.array(1 / total), shift)  # which diffusers shifts twice
                timesteps = total * shifted(np.linspace(1, last, len(timesteps)), shift)
        return super()._grid(None, timesteps, None)

    def _row(self, call: int, history: int, eta: float) -> Row:
        x0, noise = self._predict(call)
        return {"prev": self.grid.alpha[call + 1] * x0 + self.grid.sigma[call + 1] * noise, "x0": x0}
