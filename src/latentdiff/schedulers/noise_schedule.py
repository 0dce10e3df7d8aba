"""Noise schedules: the noise levels that follow from betas, and the timesteps that a run visits.

Everything here is computed in numpy float64 on the host, once per run. Notation: alpha_bar_t is the product of
(1 - beta) up to t (Ho et al. 2020, arXiv 2006.11239, eq. 4), and sigma_t = sqrt((1 - alpha_bar_t) / alpha_bar_t) is the
same level when the image is kept at unit scale (Karras et al. 2022, arXiv 2206.00364).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from latentdiff.errors import ConfigError
from latentdiff.registry import nearest
from latentdiff.schedulers.predictions import FLOW
from latentdiff.types import JSON, Float64Array

if TYPE_CHECKING:
    from torch import Tensor

NOISE_FIELDS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
)
"""The config fields that belong to the trained model, whichever solver samples it."""

MAX_BETA = 0.999
TINY_ALPHA_BAR = 2.0**-24
MIN_ALPHA_BAR = 1e-18  # float32, of 24 bits, can't tell such an image from the noise on it


def _cosine(t: float) -> float:
    """The cosine schedule of Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17."""
    return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2


def _laplace(t: float) -> float:
    """The Laplace schedule of Hang et al. 2024 (arXiv 2407.03297) with mean 0 and scale 1/2, as diffusers has it."""
    log_snr = -0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    return 1 / math.sqrt(1 + math.exp(-log_snr))


def _from_alpha_bar(alpha_bar: Callable[[float], float]) -> Callable[[float, float, int], Float64Array]:
    """Betas for an alpha_bar that is a given function of t in [0, 1]; beta_start and beta_end play no part."""

    def betas(start: float, end: float, count: int) -> Float64Array:
        levels = np.array([alpha_bar(i / count) for i in range(count + 1)])
        return np.asarray(np.minimum(1 - levels[1:] / levels[:-1], MAX_BETA))

    return betas


BETA_SCHEDULES: Mapping[str, Callable[[float, float, int], Float64Array]] = {
    # The original code's names for the first three are "sqrt_linear", "linear" and "sqrt".
    "linear": np.linspace,
    "scaled_linear": lambda start, end, count: np.linspace(start**0.5, end**0.5, count) ** 2,
    "sqrt": lambda start, end, count: np.linspace(start, end, count) ** 0.5,
    "sigmoid": lambda start, end, count: start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, count))),
    "squaredcos_cap_v2": _from_alpha_bar(_cosine),
    "laplace": _from_alpha_bar(_laplace),
    "exp": _from_alpha_bar(lambda t: math.exp(-12 * t)),
}


def rescale_zero_snr(betas: Float64Array) -> Float64Array:
    """Shift and scale sqrt(alpha_bar) so that the last is 0: pure noise (Lin et al. 2023, arXiv 2305.08891, alg. 1)."""
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    return 1 - np.concatenate([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise level of every training timestep.

    Args:
        betas: The betas (T,), each in (0, 1].
        floor: The value that replaces an alpha_bar of exactly 0, for solvers that need a finite sigma.

    Attributes:
        first: The timestep of the cleanest level that a model is trained on.
        whole: Whether a model is trained on whole timesteps alone.
    """

    betas: Float64Array
    floor: float = 0.0
    first: ClassVar[int] = 0
    whole: ClassVar[bool] = True

    @classmethod
    def from_config(cls, config: JSON, floor: float = 0.0) -> NoiseSchedule:
        """The noise schedule of the `NOISE_FIELDS` in a scheduler's config.

        Raises:
            ConfigError: If the beta schedule is unknown, or a beta or the number of timesteps is not valid.
        """
        if config.get("prediction_type") == FLOW:
            return FlowSchedule.of_length(_count(config["num_train_timesteps"]), config.get("flow_shift", 1.0), floor)
        if config.get("trained_betas") is not None:
            betas: Float64Array = np.asarray(config["trained_betas"], dtype=np.float64)
        else:
            name = config["beta_schedule"]
            if name not in BETA_SCHEDULES:
                raise ConfigError(f"unknown beta_schedule {name!r}; {nearest(name, BETA_SCHEDULES)}")
            steps = _count(config["num_train_timesteps"])
            betas = BETA_SCHEDULES[name](config["beta_start"], config["beta_end"], steps)
        if len(betas) != config["num_train_timesteps"]:
            raise ConfigError(
                f"trained_betas has {len(betas)} values for num_train_timesteps {config['num_train_timesteps']}; "
                "give one per timestep"
            )
        kept = 1 - betas  # of the signal's variance by each step; a beta that rounds away would add no noise at all
        if not ((kept > 0) & (kept < 1)).all():
            wrong = betas[~((kept > 0) & (kept < 1))][0]
            raise ConfigError(f"the betas have a {wrong:g}; each must lie above 1e-16 and below 1, choose other betas")
        left = kept.prod()
        if left < MIN_ALPHA_BAR:
            raise ConfigError(
                f"the betas leave {left:g} of the signal's variance at the last timestep; at least "
                f"{MIN_ALPHA_BAR:g} must be left for the solvers, choose smaller betas"
            )
        return cls(rescale_zero_snr(betas) if config.get("rescale_betas_zero_snr") else betas, floor)

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Float64Array:
        """The alpha_bar of every training timestep, (T,), in [0, 1)."""
        alpha_bar = np.cumprod(1 - self.betas)
        return np.where(alpha_bar == 0, self.floor, alpha_bar)

    @cached_property
    def sigmas(self) -> Float64Array:
        """The sigma of every training timestep, (T,), rising; infinite where alpha_bar is 0."""
        with np.errstate(divide="ignore"):
            return np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod)

    def sigma_at(self, timesteps: Float64Array) -> Float64Array:
        """The sigma of real-valued timesteps in [0, T - 1], interpolated linearly between the training levels."""
        return np.interp(timesteps, np.arange(len(self)), self.sigmas)

    def timestep_at(self, sigmas: Float64Array) -> Float64Array:
        """The real-valued timestep of each sigma, interpolated linearly in log sigma.

        A sigma outside the training range gives the nearer end of it.
        """
        return np.interp(np.log(np.maximum(sigmas, 1e-10)), np.log(self.sigmas), np.arange(len(self)))

    def alpha_bar_at(self, timesteps: Float64Array) -> Float64Array:
        """The alpha_bar of timesteps that are visited, which are whole ones."""
        return np.asarray(self.alphas_cumprod[timesteps.astype(int)])

    def visited(self, spacing: str, steps: int, offset: int = 0, *, spare: int = 0) -> Float64Array:
        """The timesteps (steps,) of a run, falling; see `spaced_timesteps`."""
        return spaced_timesteps(spacing, steps, len(self), offset, spare=spare)

    def timestep_of(self, share: Tensor) -> Tensor:
        """The timestep (B,), int64, at shares (B,) in [0, 1] of the way from the cleanest level to the noisiest."""
        return (share * len(self)).long().clamp(max=len(self) - 1)


@dataclass(frozen=True, eq=False)
class FlowSchedule(NoiseSchedule):
    """The straight paths of rectified flow (Liu et al. 2022, arXiv 2209.03003): x = (1 - s) x0 + s noise.

    The timestep is s T and may be any number in [0, T]. Its table has the T + 1 whole ones. alpha_bar and sigma are
    those of the variance-preserving latents x / sqrt((1 - s)^2 + s^2), which have the same share of noise.

    Args:
        shift: Moves what is visited and trained on towards the noise, s -> shift s / (1 + (shift - 1) s) (Esser et al.
            2024, arXiv 2403.03206, eq. 23). The level of a timestep stays what it is.
    """

    shift: float = 1.0
    first: ClassVar[int] = 1
    whole: ClassVar[bool] = False

    @classmethod
    def of_length(cls, steps: int, shift: float, floor: float = 0.0) -> FlowSchedule:
        """The schedule of T timesteps.

        Raises:
            ConfigError: If the shift is not above 0.
        """
        if not 0 < shift < math.inf:
            raise ConfigError(f"the flow's shift is {shift!r}; it must be a number above 0, such as 1.0")
        alpha_bar = _flow_alpha_bar(np.arange(steps + 1) / steps)
        return cls(1 - np.append(1.0, alpha_bar[1:] / alpha_bar[:-1]), floor, shift)

    @cached_property
    def alphas_cumprod(self) -> Float64Array:
        """The alpha_bar of timesteps 0 to T, (T + 1,), from 1 down to 0 or the floor."""
        return np.maximum(_flow_alpha_bar(np.linspace(0, 1, len(self))), self.floor)

    def sigma_at(self, timesteps: Float64Array) -> Float64Array:
        """The sigma of real-valued timesteps, s / (1 - s), up to that of the floor."""
        share = timesteps / (len(self) - 1)
        with np.errstate(divide="ignore"):
            return np.asarray(np.minimum(share / (1 - share), self.sigmas[-1]))

    def timestep_at(self, sigmas: Float64Array) -> Float64Array:
        """The real-valued timestep of each sigma."""
        return (len(self) - 1) * np.where(sigmas < self.sigmas[-1], sigmas / (1 + sigmas), 1.0)

    def alpha_bar_at(self, timesteps: Float64Array) -> Float64Array:
        """The alpha_bar of real-valued timesteps."""
        return np.maximum(_flow_alpha_bar(timesteps / (len(self) - 1)), self.floor)

    def visited(self, spacing: str, steps: int, offset: int = 0, *, spare: int = 0) -> Float64Array:
        """The timesteps (steps,) of a run, falling, evenly spaced before the shift; there is no offset."""
        total = len(self) - 1
        share = (spaced_timesteps(spacing, steps, total, spare=spare) + 1) / total
        return total * np.asarray(shifted(share, self.shift))

    def timestep_of(self, share: Tensor) -> Tensor:
        """The timestep (B,), float32, at shares (B,) in [0, 1] of the way, shifted."""
        return (len(self) - 1) * shifted(share.float(), self.shift)


ShareT = TypeVar("ShareT", "Tensor", Float64Array)


def shifted(share: ShareT, shift: float) -> ShareT:
    """Shares of noise s moved towards 1 for a shift above 1 (Esser et al. 2024, eq. 23)."""
    return shift * share / (1 + (shift - 1) * share)


def _flow_alpha_bar(share: Float64Array) -> Float64Array:
    return np.asarray((1 - share) ** 2 / ((1 - share) ** 2 + share**2))


def _count(steps: object) -> int:
    if not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"num_train_timesteps is {steps!r}; it must be a whole number of at least 1")
    return steps


@dataclass(frozen=True)
class NoiseGrid:
    """The N + 1 noise levels of a run; at level i the sample is x_i = alpha[i] x0 + sigma[i] noise.

    Attributes:
        timesteps: The timesteps (N,) of all levels but the last, on which the run lands.
        alpha: The scale of the image at each level.
        sigma: The standard deviation of the noise at each level.
    """

    timesteps: Float64Array
    alpha: list[float]
    sigma: list[float]


def karras_sigmas(sigma_min: float, sigma_max: float, count: int, rho: float = 7.0) -> Float64Array:
    """The sigmas of Karras et al. (2022, eq. 5), `count` levels from `sigma_max` down to `sigma_min`, without the 0."""
    ramp = np.linspace(0, 1, count)
    return np.asarray((sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho)


@cache
def gauss_legendre(count: int) -> tuple[Float64Array, Float64Array]:
    """The points and weights, each (count,), of Gauss-Legendre quadrature on [-1, 1]."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights


def as_numbers(name: str, values: object) -> Float64Array:
    """Return a sequence (N,) of finite numbers as an array; ConfigError, which calls it `name`, if it is none."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {values!r}; give a sequence of numbers") from None
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ConfigError(f"{name} is {values!r}; give a sequence of finite numbers")
    return array


SPACINGS: Mapping[str, Callable[[int, int, int, float], Float64Array]] = {
    # The first `steps` timesteps of a grid of `points` over `total` training timesteps (Lin et al. 2023, table 2).
    "linspace": lambda steps, points, total, offset: np.linspace(0, total - 1, points)[::-1][:steps],
    "leading": lambda steps, points, total, offset: (
        np.arange(points)[::-1][:steps] * (total // points) + np.float64(offset)
    ),
    "trailing": lambda steps, points, total, offset: np.arange(total, 0, -total / steps)[:steps].round() - 1,
    # The steps of the original code, which are not as many as asked for where their number does not divide `total`.
    "original": lambda steps, points, total, offset: np.array(original_ddim_timesteps(steps, total), np.float64),
}


def spaced_timesteps(spacing: str, steps: int, total: int, offset: int = 0, *, spare: int = 0) -> Float64Array:
    """The timesteps that a run visits, falling.

    Args:
        spacing: A name in `SPACINGS`.
        steps: Number of timesteps, 1 to `total` - `spare`.
        total: Number of training timesteps T.
        offset: The config's `steps_offset`, which "leading" adds to every timestep, unless it visits all of them.
        spare: Number of grid points below the last timestep that are not visited; the multistep solvers leave one.

    Returns:
        The timesteps (steps,) in [0, T - 1]; "linspace" gives fractions, which solvers of whole timesteps round, and
        "original" gives more than `steps` where these do not divide T, see `original_ddim_timesteps`.

    Raises:
        ConfigError: If the spacing is unknown or there are too few or too many steps.
    """
    if spacing not in SPACINGS:
        raise ConfigError(f"unknown timestep_spacing {spacing!r}; {nearest(spacing, SPACINGS)}")
    if not 1 <= steps <= total - spare:
        raise ConfigError(f"num_inference_steps is {steps}; choose 1 to {total - spare}")
    # A grid of all training timesteps cannot be moved by an offset: its first would be one that was never trained.
    return SPACINGS[spacing](steps, steps + spare, total, 0.0 if steps + spare == total else float(offset))


def original_ddim_timesteps(num_inference_steps: int, num_train_timesteps: int = 1000) -> list[int]:
    """The timesteps that the original latent diffusion code visits for S steps: range(0, T, T // S) + 1, falling.

    Their number is not S where S does not divide T (7 gives 8 steps, 400 gives 500). A scheduler of
    `timestep_spacing="original"` takes them.

    Raises:
        ConfigError: For an S outside 1 to T, and where the first timestep would be T itself, which the model was never
            trained on (there the original code stops with an IndexError).
    """
    if not 1 <= num_inference_steps <= num_train_timesteps:
        raise ConfigError(f"num_inference_steps is {num_inference_steps}; choose 1 to {num_train_timesteps}")
    timesteps = [t + 1 for t in range(0, num_train_timesteps, num_train_timesteps // num_inference_steps)][::-1]
    if timesteps[0] >= num_train_timesteps:
        raise ConfigError(
            f"{num_inference_steps} original DDIM steps begin at timestep {timesteps[0]}, past the last one; "
            f"choose a number of steps that divides {num_train_timesteps}, and is smaller"
        )
    return timesteps
