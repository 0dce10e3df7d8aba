"""`TableScheduler`, the base of the solvers: a scheduler is a table of coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from latentdiff.errors import ConfigError
from latentdiff.schedulers.forward import ForwardProcess, indices_of_view, step_noise
from latentdiff.schedulers.linear_combination import (
    OUT,
    LinearCombination,
    Terms,
    X,
    evaluate,
    without_aliases,
)
from latentdiff.schedulers.noise_schedule import NOISE_FIELDS, NoiseGrid, NoiseSchedule, as_numbers
from latentdiff.schedulers.options import COMPATIBLE_CLASSES, check_options
from latentdiff.schedulers.predictions import FLOW, estimates, network_scale
from latentdiff.seeding import Generators
from latentdiff.types import JSON, Float64Array

Row = dict[str, LinearCombination]
"""One row of a solver's table; see `TableScheduler._row`."""


@dataclass
class SchedulerOutput(BaseOutput):  # type: ignore[misc]
    """The result of a step.

    Attributes:
        prev_sample: The sample (B, C, H, W) at the next timestep.
        pred_original_sample: The estimate of x0 (B, C, H, W) at this timestep.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


class TableScheduler(ForwardProcess, SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Base of the package's own solvers.

    Every solver is linear in the sample, the model's output, what it remembers of earlier steps, and noise. A subclass
    therefore only states one row of its table of coefficients (`_row`). The rows are computed in float64 on the host
    before the run, and `step` evaluates one of them with a few fused operations. Nothing is ever read back from the
    device: the position in the run is a counter on the host.

    Configs have diffusers' names, so folders load in both packages. Options that have one possible value here are
    written into the config as well. A config that asks for another value is refused, see `extract_init_dict`.

    Attributes:
        order: Number of model calls per step.
        counterpart: The name of the class of diffusers that samples alike.
        allowed_values: Options that mean the same in every solver, with the only value that is offered here.
        solver_values: Options of the counterpart that tell this solver from the counterpart's others.
        has_eta: Whether `step` takes `eta`.
        has_x0_weight: Whether `step` takes `replace_x0`.
        variance_exploding: Whether the sample is kept at unit image scale, x / alpha (Karras et al. 2022).
        rises: Whether the noise of a run may rise on its way, as in restart sampling.
        visits_all_timesteps: Whether a run without `set_timesteps` visits all training timesteps, as diffusers' DDPM.
        floor: The value that replaces an alpha_bar of exactly 0, for solvers that need a finite sigma.
    """

    _compatibles: ClassVar[list[str]] = COMPATIBLE_CLASSES
    order: int = 1
    counterpart: ClassVar[str] = ""
    allowed_values: ClassVar[Mapping[str, object]] = {
        "clip_sample": False,
        "thresholding": False,
        "use_flow_sigmas": False,
    }
    solver_values: ClassVar[Mapping[str, object]] = {}
    has_eta: ClassVar[bool] = False
    has_x0_weight: ClassVar[bool] = False
    variance_exploding: ClassVar[bool] = False
    rises: ClassVar[bool] = False
    visits_all_timesteps: ClassVar[bool] = False
    floor: ClassVar[float] = 0.0

    # -- what a solver defines ---------------------------------------------------------------------------------------

    def _row(self, call: int, history: int, eta: float) -> Row:
        """The update after a model call, as linear combinations of `X`, `OUT`, `NOISE` and remembered tensors.

        Args:
            call: The number of the model call in the run, from 0.
            history: The number of model calls since the run began or was entered in its middle.
            eta: The share of fresh noise, for solvers that have it.

        Returns:
            "prev", the sample at the next level; "x0", the estimate of the clean sample; and, under any other name,
            what the next row may use as `memory(name)`.
        """
        raise NotImplementedError

    def _x0_weight(self, call: int) -> float:
        """The weight of x0 in "prev" where the noise estimate is kept, for solvers with `has_x0_weight`."""
        raise NotImplementedError

    def _grid(self, steps: int | None, timesteps: Float64Array | None, sigmas: Float64Array | None) -> NoiseGrid:
        """The run's noise levels; exactly one argument is given. In this class they are whole training timesteps."""
        if sigmas is not None:
            raise ConfigError(f"{type(self).__name__} visits training timesteps; give timesteps instead of sigmas")
        if timesteps is None:
            timesteps = self.schedule.visited(self.config.timestep_spacing, steps or 0, self.config.steps_offset)
        return self._training_grid(self._check_timesteps(timesteps.round() if self.schedule.whole else timesteps))

    def _final_alpha_bar(self) -> float:
        """The alpha_bar of the level on which the last step lands."""
        return 1.0

    def _training_grid(self, timesteps: Float64Array) -> NoiseGrid:
        alpha_bar = np.append(self.schedule.alpha_bar_at(timesteps), self._final_alpha_bar())
        return NoiseGrid(timesteps, np.sqrt(alpha_bar).tolist(), np.sqrt(1 - alpha_bar).tolist())

    def _call_levels(self, count: int) -> Sequence[int]:
        """The grid level of each model call, for a grid of `count` timesteps."""
        return range(count)

    # -- what solvers are given --------------------------------------------------------------------------------------

    def _setup(self) -> None:
        """Make the noise schedule of the config; every constructor ends with this call."""
        check_options(type(self), self.config)
        fixed = {**self.allowed_values, **self.solver_values, "use_flow_sigmas": self.config.prediction_type == FLOW}
        self.register_to_config(**fixed, **{"_class_name": type(self).__name__})
        self.schedule = NoiseSchedule.from_config(self.config, self.floor)
        self.betas = torch.from_numpy(self.schedule.betas).float()
        self.alphas_cumprod = torch.from_numpy(self.schedule.alphas_cumprod).float()
        self.num_inference_steps: int | None = None
        trained = np.arange(self.schedule.first, len(self.schedule), dtype=np.float64)
        self._begin_run(self._training_grid(trained[::-1]), None)
        alpha_bar = self.schedule.alphas_cumprod
        self._training_levels = torch.from_numpy(np.sqrt([alpha_bar, 1 - alpha_bar])).float()

    def _predict(
        self, level: int, x: LinearCombination = X, out: LinearCombination = OUT, kind: str = ""
    ) -> tuple[LinearCombination, LinearCombination]:
        """The estimates of x0 and of the noise at a grid level.

        Args:
            level: The index of the level in the grid.
            x: The sample.
            out: The model's output for it.
            kind: The prediction type of `out`, by default that of the config.
        """
        alpha, sigma = self.grid.alpha[level], self.grid.sigma[level]
        x = alpha * x if self.variance_exploding else x
        return estimates(kind or self.config.prediction_type, alpha, sigma, x, out)

    def _check_timesteps(self, timesteps: Float64Array) -> Float64Array:
        """Return `timesteps`, or raise a ConfigError where they leave the training range or do not fall."""
        last, clean = len(self.schedule) - 1, -1 if self.schedule.whole else 0
        if not len(timesteps) or timesteps.min() <= clean or timesteps.max() > last or (np.diff(timesteps) >= 0).any():
            shown, least = ", ".join(f"{t:g}" for t in timesteps[:4]), self.schedule.first
            raise ConfigError(
                f"timesteps begin with [{shown}]; they must fall strictly and lie within {least} .. {last}"
            )
        return timesteps

    # -- the run -----------------------------------------------------------------------------------------------------

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Choose the timesteps of a run, by exactly one of `num_inference_steps`, `timesteps` and `sigmas`.

        Args:
            num_inference_steps: Number of solver steps, spaced as the config says.
            device: Device of `self.timesteps`.
            timesteps: The training timesteps to visit, falling.
            sigmas: The noise levels to visit, falling and ending with the one to land on (usually 0).

        Raises:
            ConfigError: If not exactly one is given, or it is not valid for this solver.
        """
        if [num_inference_steps, timesteps, sigmas].count(None) != 2:
            raise ConfigError("give exactly one of num_inference_steps, timesteps and sigmas")
        grid = self._grid(
            num_inference_steps,
            None if timesteps is None else as_numbers("timesteps", timesteps),
            None if sigmas is None else as_numbers("sigmas", sigmas),
        )
        self.num_inference_steps = int((np.diff(grid.sigma) <= 0).sum())  # a restart rises, which is no step
        self._begin_run(grid, device)
        self._rows(0.0)

    def _begin_run(self, grid: NoiseGrid, device: str | torch.device | None) -> None:
        """Take a new grid and forget everything about the run before."""
        self.grid = grid
        self._calls = list(self._call_levels(len(grid.timesteps)))
        whole = self.schedule.whole and (grid.timesteps == grid.timesteps.round()).all() and not self.variance_exploding
        values = torch.from_numpy(grid.timesteps[self._calls]).to(torch.int64 if whole else torch.float32)
        self._host_timesteps: list[float] = values.tolist()
        self.timesteps = values.to(device)
        levels = torch.tensor([grid.alpha, grid.sigma], dtype=torch.float64)
        self._run_levels = levels[:, self._calls].float()
        self.sigmas = (levels[1] / levels[0])[[*self._calls, -1]].float()
        self._tables: dict[tuple[int, float], list[dict[str, Terms]]] = {}
        self._begin_index: int | None = None
        self._reset_history(0)
        self._step_index: int | None = None

    def _reset_history(self, index: int) -> None:
        self._first = self._step_index = index
        self._memory: dict[str, Tensor] = {}

    def _rows(self, eta: float) -> list[dict[str, Terms]]:
        """The rows from the run's first call on, computed once for each (first call, eta)."""
        key = self._first, eta
        if key not in self._tables:
            rows = [self._row(i, i - self._first, eta) for i in range(self._first, len(self._calls))]
            table = [{name: value.terms() for name, value in row.items()} for row in rows]
            self._tables = {**self._tables, key: table}  # a copy of the scheduler shares the old one
        return self._tables[key]

    def adds_noise(self, eta: float = 0.0) -> bool:
        """Whether a step of the run adds noise."""
        return any(name == "noise" for row in self._rows(eta) for name, _ in row["prev"])

    @property
    def init_noise_sigma(self) -> Tensor:
        """Standard deviation of the noise that a run starts from, a 0-d tensor on the CPU."""
        highest = self.grid.sigma[0] / self.grid.alpha[0] if self.variance_exploding else 1.0
        leading = self.variance_exploding and self.config.timestep_spacing == "leading"
        return torch.tensor(float(np.hypot(highest, 1)) if leading else highest)

    def previous_timestep(self, timestep: int | Tensor) -> Tensor:
        """The timestep that follows `timestep` in the run, with less noise; -1 after the last.

        Raises:
            ConfigError: If the timestep is not in this run.
        """
        following = (self._index_in_run(float(timestep), None) or 0) + 1
        return self.timesteps[following] if following < len(self.timesteps) else self.timesteps.new_tensor(-1)

    @property
    def step_index(self) -> int | None:
        """Index into `timesteps` of the next step; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Index into `timesteps` of the run's start, if it was set."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the run at `timesteps[begin_index]`, as image-to-image does.

        Raises:
            ConfigError: If there is no such timestep.
        """
        if not 0 <= begin_index < len(self._calls):
            raise ConfigError(f"begin_index is {begin_index}; choose 0 to {len(self._calls) - 1}")
        self._begin_index = begin_index
        self._step_index = None

    def _index_in_run(self, timestep: float | Tensor, expected: int | None) -> int | None:
        """Index of a timestep in `timesteps`; None if it can't be known without reading a device.

        An element of `timesteps` (`for t in scheduler.timesteps`) is recognised as a view of it.
        """
        if isinstance(timestep, Tensor):
            indices = indices_of_view(timestep, self.timesteps)
            if indices is not None:
                return indices[0]
            if torch.compiler.is_compiling() or timestep.device.type != "cpu":
                return None
            timestep = timestep.flatten()[0].item()
        if expected is not None and expected < len(self._calls) and self._host_timesteps[expected] == timestep:
            return expected
        found = [i for i, value in enumerate(self._host_timesteps) if value == timestep]
        if not found:
            raise ConfigError(f"timestep {timestep:g} is not in this run; pass the elements of scheduler.timesteps")
        return found[-1]

    def _index_of_call(self, timestep: float | Tensor) -> int:
        """Index in `timesteps` of this call; a jump to another place begins a new run there, without history."""
        index = self._index_in_run(timestep, self._next_index)
        if index is None:
            index = self._next_index or 0
        if index >= len(self._calls):
            raise ConfigError(f"all {len(self._calls)} timesteps of this run are used up; call set_timesteps again")
        if index != self._step_index:
            self._reset_history(index)
        return index

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor) -> Tensor:
        """The sample in the scale that the model takes: unit variance for data of unit variance, but for a flow."""
        level = self._calls[self._index_of_call(timestep)]
        alpha, sigma = self.grid.alpha[level], self.grid.sigma[level]
        scale = network_scale(self.config.prediction_type, alpha, sigma) * (alpha if self.variance_exploding else 1.0)
        return sample if scale == 1 else sample * scale

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators = None,
        *,
        eta: float = 0.0,
        variance_noise: Tensor | None = None,
        temperature: float = 1.0,
        replace_x0: Callable[[Tensor], Tensor] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """Go from `timestep` to the next.

        Args:
            model_output: The model's prediction (B, C, H, W) for the scaled sample.
            timestep: The element of `timesteps` that the prediction was made for.
            sample: The current sample (B, C, H, W), not scaled. Half precision is combined in float32.
            generator: Source of the noise, or one per image; a CPU generator serves every device.
            eta: Share of fresh noise, in [0, 1], for solvers that have it (DDIM).
            variance_noise: The noise (B, C, H, W) itself, in place of a generator. Both are unused where the step adds
                no noise.
            temperature: Factor on the noise.
            replace_x0: A function of the estimate of x0 (B, C, H, W) whose result is stepped with in its place, along
                the noise estimate that the model made; for solvers with `has_x0_weight`.
            return_dict: Whether to return a `SchedulerOutput`, or the tuple (prev_sample, pred_original_sample).

        Raises:
            ConfigError: If the timestep is not in this run, or an option does not fit this solver.
        """
        if self.num_inference_steps is None and not self.visits_all_timesteps:
            raise ConfigError("the scheduler has no timesteps yet; call set_timesteps first")
        if eta and not self.has_eta:
            raise ConfigError(f"{type(self).__name__} has no eta, but {eta} was given; leave it at 0 or use DDIM")
        if replace_x0 is not None and not self.has_x0_weight:
            raise ConfigError(f"{type(self).__name__} steps from more than x0; replace_x0 is for DDIM, PLMS and DDPM")
        index = self._index_of_call(timestep)
        row = self._rows(eta)[index - self._first]
        dtype = torch.float32 if sample.dtype.itemsize < 4 else sample.dtype
        known = {**self._memory, "x": sample.to(dtype), "out": model_output.to(dtype)}
        if any(name == "noise" for name, _ in row["prev"]):
            noise = step_noise(known["x"], generator, variance_noise)
            known["noise"] = noise if temperature == 1 else temperature * noise
        values = {terms: evaluate(terms, known) for terms in row.values()}
        self._memory = {
            name: without_aliases(values[terms], known) for name, terms in row.items() if name not in ("prev", "x0")
        }
        self._step_index = index + 1
        prev, x0 = values[row["prev"]], values[row["x0"]]
        if replace_x0 is not None:
            replaced = replace_x0(x0)
            prev, x0 = torch.add(prev, replaced - x0, alpha=self._x0_weight(index)), replaced
        result = SchedulerOutput(prev.to(sample.dtype), x0.to(sample.dtype))
        return result if return_dict else (result.prev_sample, result.pred_original_sample)

    def __len__(self) -> int:
        return len(self.schedule)

    # -- configs -----------------------------------------------------------------------------------------------------

    @classmethod
    def extract_init_dict(cls, config_dict: JSON, **kwargs: object) -> tuple[JSON, JSON, JSON]:
        """Used by `from_config`: keep the model's noise schedule, and refuse what this solver does not do.

        A field that diffusers marks as left at its class's default is replaced by this class's default, except those
        of the noise schedule, which would then describe another model. `allowed_values` bind any config;
        `solver_values` bind a config of this class or its counterpart, and are dropped from any other, which is another
        solver's.

        Raises:
            ConfigError: If the config or an argument asks for another value.
        """
        defaults = set(config_dict.get("_use_default_values", ())) - set(NOISE_FIELDS)
        config = {k: v for k, v in config_dict.items() if k not in defaults and k != "_use_default_values"}
        # A config that was never saved names no class. What it sets in so many words is asked for here, too.
        own = config.get("_class_name") in (None, cls.__name__, cls.counterpart)
        flow = {**config, **kwargs}.get("prediction_type") == FLOW
        for name, allowed in {**cls.allowed_values, "use_flow_sigmas": flow, **cls.solver_values}.items():
            stored = config.pop(name, allowed)
            asked = kwargs.pop(name, stored if own or name in cls.allowed_values else allowed)
            if asked != allowed:
                raise ConfigError(f"{name} is {asked!r} in the config; {cls.__name__} offers {allowed!r} only")
        split: tuple[JSON, JSON, JSON] = super().extract_init_dict(config, **kwargs)
        return split
