"""Feature caching, which evaluates the deep layers of a UNet at a part of the steps only (DeepCache).

Deep features change little from one step to the next, so a step may take those of an earlier one (Ma et al. 2024, arXiv
2312.00858).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol, runtime_checkable

from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.nn.context import TimeEmbedding

POWER = 1.4  # of a schedule with a center, as in the paper's experiments


class HasFeatures(Protocol):
    """The output of a network whose features can be reused."""

    sample: Tensor
    features: Tensor


@runtime_checkable
class CachingNetwork(Protocol):
    """A denoising network that prepares timesteps and whose features can be reused: `UNet2DConditionModel`."""

    @property
    def cache_branches(self) -> int:
        """The number of branches from which features can be taken."""
        ...

    def prepare_timesteps(self, timesteps: Tensor) -> Sequence[TimeEmbedding]:
        """What the network takes in place of each of the timesteps (N,) of a run."""
        ...

    def __call__(self, sample: Tensor, timestep: TimeEmbedding, **inputs: object) -> HasFeatures:
        """The prediction (B, C, H, W), and features where `inputs` has a `cache_branch`."""
        ...


@dataclass(frozen=True)
class CacheOptions:
    """The options of a call that ask for feature caching: `cache_interval` and so on.

    Attributes:
        interval: One of so many evaluations is full; 1 for all.
        branch: The branch of the network, 0 by default.
        center: Around which share of the run the full evaluations lie close together; None for an even spread.
        power: How much closer than elsewhere, `POWER` by default.
    """

    interval: int = 1
    branch: int | None = None
    center: float | None = None
    power: float | None = None

    def check(self, unet: object) -> None:
        """Check the options against a network.

        Raises:
            InputError: If one is not valid, has no effect, or the network has no such branch.
        """
        if isinstance(self.interval, bool) or not isinstance(self.interval, int) or self.interval < 1:
            raise InputError(f"cache_interval is {self.interval!r}; it must be an integer of at least 1")
        given = [name for name in ("branch", "center", "power") if getattr(self, name) is not None]
        if self.interval == 1 and given:
            raise InputError(
                f"cache_{given[0]} is {getattr(self, given[0])!r}, but cache_interval is 1, which caches nothing; "
                f"raise it, or leave cache_{given[0]} out"
            )
        if self.interval == 1:
            return
        check_branch(unet, 0 if self.branch is None else self.branch)
        if self.center is not None and not (_is_finite(self.center) and 0 <= self.center <= 1):
            raise InputError(f"cache_center is {self.center!r}; it must be a share of the run, in [0, 1]")
        if self.power is not None and self.center is None:
            raise InputError(f"cache_power is {self.power!r}, but there is no cache_center; give both or none")
        if self.power is not None and not (_is_finite(self.power) and self.power >= 1):
            raise InputError(f"cache_power is {self.power!r}; it must be at least 1, which is an even spread")

    def schedule(self, timesteps: Tensor) -> CacheSchedule | None:
        """The schedule of a run of these timesteps (N,), which are read once; None if nothing is cached."""
        if self.interval == 1:
            return None
        if self.center is None:
            return CacheSchedule.uniform(timesteps, self.interval, self.branch or 0)
        power = POWER if self.power is None else self.power
        return CacheSchedule.centered(timesteps, self.interval, self.center, power, self.branch or 0)


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_branch(unet: object, branch: object, name: str = "this network") -> None:
    """Raise InputError, which calls the network `name`, unless it can reuse features at `branch`."""
    count = getattr(unet, "cache_branches", 0)
    if not count:
        kind = f"{type(unet).__name__} of {type(unet).__module__.partition('.')[0]}"
        raise InputError(f"{name}, {kind}, has no feature caching; leave cache_interval out")
    if isinstance(branch, bool) or not isinstance(branch, int) or not 0 <= branch < count:
        raise InputError(f"cache_branch is {branch!r}, but {name} has the branches 0 to {count - 1}")


@dataclass(frozen=True)
class CacheSchedule:
    """Which evaluations of the network along a run are full, and whose features the others take.

    An evaluation is an element of the scheduler's `timesteps`, so that a solver that calls the network twice in a step,
    such as Heun's, has two of them there.

    Attributes:
        branch: The branch of the network, see `UNet2DConditionModel.forward`.
        sources: For every evaluation the number of the full one whose features it takes: its own, if it is full.
    """

    branch: int
    sources: tuple[int, ...]

    @classmethod
    def uniform(cls, timesteps: Tensor, interval: int, branch: int = 0) -> CacheSchedule:
        """Make every `interval`-th evaluation a full one, and each before which noise was added, as in restarts.

        Args:
            timesteps: The timesteps of the run (N,), which are read once.
            interval: One of so many evaluations is full.
            branch: The branch of the network.
        """
        renewed = _noise_is_added(timesteps)
        sources: list[int] = []
        for number, renew in enumerate(renewed):
            source = sources[-1] if sources else number
            sources.append(number if renew or number - source == interval else source)
        return cls(branch, tuple(sources))

    @classmethod
    def centered(
        cls, timesteps: Tensor, interval: int, center: float, power: float = POWER, branch: int = 0
    ) -> CacheSchedule:
        """Make as many evaluations full as `uniform` does, the closer together the nearer they are to a center.

        They are at c + sign(x) |x|^p, rounded down, for evenly spread x between those of the first evaluation and of
        the end of the run (the non-uniform schedule of section 3.3 of the paper). Where two would be the same, the
        later one moves on. Each before which noise was added is full, too.

        Args:
            timesteps: The timesteps of the run (N,), which are read once.
            interval: One of so many evaluations is full.
            center: c, as a share of the run, in [0, 1].
            power: p, at least 1, which is an even spread.
            branch: The branch of the network.
        """
        renewed = _noise_is_added(timesteps)
        count = len(renewed)
        full = {number for number, renew in enumerate(renewed) if renew}
        full.update(_spread(count, math.ceil(count / interval), center * count, power))
        sources: list[int] = []
        for number in range(count):
            sources.append(number if number in full else sources[-1])
        return cls(branch, tuple(sources))


def _noise_is_added(timesteps: Tensor) -> list[bool]:
    """For every evaluation whether noise was added before it, so that features of before are of another image."""
    levels: list[float] = timesteps.tolist()
    return [number > 0 and level > levels[number - 1] for number, level in enumerate(levels)]


def _spread(count: int, full: int, center: float, power: float) -> list[int]:
    """The numbers of `full` of `count` evaluations, from 0 on, closest together around `center`."""
    first, last = -(center ** (1 / power)), (count - center) ** (1 / power)
    found = [0]
    for number in range(1, full):
        x = first + (last - first) * number / full
        place = math.floor(center + math.copysign(abs(x) ** power, x) + 1e-9)  # which rounding may be off by
        # It lies after the one before, and leaves room for those that follow.
        found.append(min(max(place, found[-1] + 1), count - full + number))
    return found


class FeatureCache:
    """The features of one network in one call: of the whole image, or of each of the windows that it is seen in.

    A network that was not asked at a full evaluation, such as one that guidance leaves out in a part of the steps, is
    evaluated in full when it is asked again.
    """

    def __init__(self, schedule: CacheSchedule) -> None:
        self.schedule = schedule
        self._source = -1  # the evaluation that the features are of
        self._parts: list[Tensor] = []
        self._next = 0

    def begin(self, fraction: float) -> float:
        """Turn to the evaluation before which `fraction` of the run is done.

        Returns:
            The fraction at which the features are, or will be, computed.
        """
        sources = self.schedule.sources
        number = min(round(fraction * len(sources)), len(sources) - 1)
        if self._source < sources[number] or sources[number] == number:
            self._source, self._parts = number, []
        self._next = 0
        return self._source / len(sources)

    def take(self) -> Tensor | None:
        """The features of the next part of the image; None if they are to be computed, and then kept."""
        self._next += 1
        return self._parts[self._next - 1] if self._next <= len(self._parts) else None

    def keep(self, features: Tensor) -> None:
        """Keep the features of the part that `take` had none of."""
        self._parts.append(features.detach())
