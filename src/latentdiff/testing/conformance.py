"""`check_scheduler`, which checks whether a scheduler class does what pipelines rely on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from latentdiff.errors import LatentDiffError
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.noise_schedule import NoiseSchedule
from latentdiff.schedulers.predictions import FLOW
from latentdiff.testing.gaussian import GaussianData, noise_level, run_scheduler

Make = Callable[..., SchedulerMixin]
"""`make()` makes the scheduler under test, and `make(steps)` one whose timesteps are set for so many steps."""

SHAPE = (2, 4, 8, 8)


class ConformanceError(LatentDiffError, AssertionError):
    """A scheduler failed a check of `check_scheduler`."""


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: The name of the check.
        passed: Whether the scheduler passed.
        detail: What was measured or what went wrong; may be empty.
    """

    name: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        line = f"{'ok  ' if self.passed else 'FAIL'}  {self.name}"
        return f"{line}: {self.detail}" if self.detail else line


@dataclass(frozen=True)
class Report:
    """The results of `check_scheduler`; its text is one line for each check.

    Attributes:
        subject: The module and name of the scheduler class.
        checks: The results of all checks.
    """

    subject: str
    checks: tuple[Check, ...]

    @property
    def failures(self) -> list[str]:
        """The names of the checks that failed."""
        return [check.name for check in self.checks if not check.passed]

    def __str__(self) -> str:
        return "\n  ".join([self.subject, *map(str, self.checks)])

    def raise_for_failures(self) -> None:
        """Raise a ConformanceError with the whole report if any check failed."""
        if self.failures:
            raise ConformanceError(str(self))


def check_scheduler(cls: type[SchedulerMixin], *, consistency: bool = False, **options: object) -> Report:
    """Check a scheduler class.

    Args:
        cls: The class, which has diffusers' scheduler interface; `cls(**options)` must work.
        consistency: Whether it is a sampler of consistency models.
        **options: Arguments of the constructor.

    Returns:
        A report with one result per check. Nothing is raised, whatever the scheduler does.
    """

    def make(steps: int | None = None) -> SchedulerMixin:
        scheduler = cls(**options)
        if steps is not None:
            scheduler.set_timesteps(steps)
        return scheduler

    checks = []
    for name, check in CHECKS.items():
        try:
            checks.append(Check(name, True, check(make, consistency) or ""))
        except Exception as error:
            kind = "" if type(error) is AssertionError else f"{type(error).__name__}: "
            checks.append(Check(name, False, kind + " ".join(str(error).split())[:200]))
    return Report(f"{cls.__module__}.{cls.__qualname__}", tuple(checks))


def _require(condition: object, detail: str) -> None:
    if not condition:
        raise AssertionError(detail)


def _saves_and_loads(make: Make, consistency: bool) -> None:
    scheduler = make(7)
    with tempfile.TemporaryDirectory() as folder:
        scheduler.save_pretrained(folder)
        loaded = type(scheduler).from_pretrained(folder)
    differing = [k for k, v in scheduler.config.items() if k[0] != "_" and loaded.config.get(k, v) != v]
    _require(not differing, f"the loaded config differs in {', '.join(differing)}")
    loaded.set_timesteps(7)
    _require(torch.equal(loaded.timesteps, scheduler.timesteps), "the loaded scheduler has other timesteps")


def _keeps_noise_schedule(make: Make, consistency: bool) -> None:
    asked = {"beta_start": 0.0015, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "num_train_timesteps": 500}
    own = make().config
    kind = FLOW if own["prediction_type"] == FLOW else "v_prediction"
    config = {**own, **asked, "prediction_type": kind, "_use_default_values": []}
    scheduler = type(make()).from_config(config)
    floor = scheduler.floor if isinstance(scheduler, TableScheduler) else 0.0
    expected = torch.from_numpy(NoiseSchedule.from_config(config, floor).alphas_cumprod)
    _require(torch.allclose(scheduler.alphas_cumprod.double(), expected, rtol=1e-4), "other betas than the config's")
    _require(scheduler.config.prediction_type == kind, "another prediction type than the config's")


def _timesteps_fall(make: Make, consistency: bool) -> None:
    for steps in (1, 2, 5, 20, 50):
        scheduler = make(steps)
        timesteps = scheduler.timesteps
        falling = getattr(scheduler, "rises", False) or (timesteps.diff() <= 0).all()
        _require(falling, f"they rise in a run of {steps} steps")
        _require(len(timesteps.unique()) == steps, f"{len(timesteps.unique())} different ones for {steps} steps")
        config = make().config
        last = config.num_train_timesteps - (config.prediction_type != FLOW)
        _require(timesteps.min() >= 0 and timesteps.max() <= last, f"some are outside 0 .. {last}")


def _keeps_shape_and_dtype(make: Make, consistency: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = run_scheduler(make(5), lambda y, t: y / 2, torch.ones(SHAPE, dtype=dtype))
        _require(x.shape == SHAPE and x.dtype == dtype, f"{dtype} {SHAPE} became {x.dtype} {tuple(x.shape)}")
        _require(x.isfinite().all(), f"not finite in {dtype}")


def _batches_are_independent(make: Make, consistency: bool) -> None:
    def sample(seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x = torch.cat([torch.randn(1, *SHAPE[1:], generator=generator) for generator in generators])
        return run_scheduler(make(6), lambda y, t: torch.tanh(y), x, generator=generators)

    together = sample([1, 2, 3])
    _require(torch.equal(together, sample([1, 2, 3])), "two runs with the same generators differ")
    apart = torch.cat([sample([seed]) for seed in (1, 2, 3)])
    _require(torch.allclose(together, apart, rtol=1e-4, atol=1e-5), "an image depends on the others in its batch")


def _reads_no_device(make: Make, consistency: bool) -> None:
    """The run is on the meta device, whose tensors hold no data, so that reading one back is an error."""
    scheduler = make(6)
    scheduler.timesteps = scheduler.timesteps.to("meta")
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    run_scheduler(scheduler, lambda y, t: y / 2, torch.ones(SHAPE, device="meta"))


def _converges(make: Make, consistency: bool) -> str:
    few, many = (5, 40) if consistency else (20, 200)
    data, error = GaussianData(), {}
    for steps in (few, many):
        scheduler, generator = make(steps), torch.Generator().manual_seed(0)
        # The start is standardised, so that the error of the result is the solver's and not the sample's.
        x = torch.randn(1, 1, 96, 96, generator=generator)
        x = (x - x.mean()) / x.std() * scheduler.init_noise_sigma
        x = run_scheduler(scheduler, data.model(scheduler, consistency=consistency), x, generator=generator)
        error[steps] = max(abs(float(x.mean()) - data.mean), abs(float(x.std()) - data.std)) / data.std
    detail = f"mean and deviation of Gaussian data within {error[few]:.1%} in {few} steps, {error[many]:.1%} in {many}"
    _require(error[many] < 0.08 and error[many] < error[few] / 2 + 0.03, detail)
    return detail


def _noises_to_the_level(make: Make, consistency: bool) -> None:
    x0, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    for index in (0, 3, 6):
        scheduler = make(8)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
        timestep = scheduler.timesteps[index]
        got = scheduler.scale_model_input(scheduler.add_noise(x0, noise, timestep.repeat(len(x0))), timestep)
        alpha, sigma = noise_level(scheduler, timestep)
        error = float((got - alpha * x0 - sigma * noise).abs().max())
        _require(error < 1e-3, f"at timestep {float(timestep):g} it is off by {error:.2g}")


CHECKS: dict[str, Callable[[Make, bool], str | None]] = {
    "save and load": _saves_and_loads,
    "config keeps the noise schedule": _keeps_noise_schedule,
    "timesteps fall": _timesteps_fall,
    "shape and dtype": _keeps_shape_and_dtype,
    "determinism and batch independence": _batches_are_independent,
    "no device reads": _reads_no_device,
    "convergence on Gaussian data": _converges,
    "add_noise": _noises_to_the_level,
}
