"""Feature caching, which evaluates the deep layers of a UNet at a part of the steps only (DeepCache).

Deep features change little from one step to the next, so a step may take those of an earlier one (Ma et al. 2024, arXiv
2312.00858).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.nn.context import TimeEmbedding


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


def check_caching(unet: object, interval: object, branch: object) -> None:
    """Check a call's `cache_interval` and `cache_branch` against a network.

    Raises:
        InputError: If one is not valid, has no effect, or the network has no such branch.
    """
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise InputError(f"cache_interval is {interval!r}; it must be an integer of at least 1")
    if interval == 1:
        if branch is not None:
            raise InputError(
                f"cache_branch is {branch!r}, but cache_interval is 1, which caches nothing; raise it, or leave "
                "cache_branch out"
            )
        return
    check_branch(unet, 0 if branch is None else branch)


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
        levels: list[float] = timesteps.tolist()
        sources: list[int] = []
        for number, level in enumerate(levels):
            source = sources[-1] if sources else number
            rises = number > 0 and level > levels[number - 1]
            sources.append(number if rises or number - source == interval else source)
        return cls(branch, tuple(sources))


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
