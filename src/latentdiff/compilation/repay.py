"""Whether compiling a network repays itself, by how long its calls take and how many are planned."""

from __future__ import annotations

from collections.abc import Hashable

SAVED = 0.25
"""The share of a call's time that compiling saves at least: in trials it was 0.27 to 0.44, see docs/compile.md."""

TIMED_CALLS = 3
"""Calls after which it is decided; the fastest of them counts, so that the first, which warms up, does not."""


class Planned:
    """The calls of a network that are planned, and how long they take uncompiled.

    Args:
        calls: How many are planned, of all shapes together.
    """

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.seconds: dict[Hashable, list[float]] = {}

    def spend(self) -> None:
        """Count a call that was made compiled."""
        self.calls -= 1

    def add(self, signature: Hashable, seconds: float) -> None:
        """Count a call that was made uncompiled, and how long it took."""
        self.calls -= 1
        times = self.seconds.setdefault(signature, [])
        if len(times) < TIMED_CALLS:
            times.append(seconds)

    def is_settled(self, signature: Hashable) -> bool:
        """Whether enough calls of a kind have been timed."""
        return len(self.seconds.get(signature, ())) == TIMED_CALLS

    def repays(self, signature: Hashable, parameters: int) -> bool:
        """Whether the calls that are left save more time than compiling takes; False until it is settled.

        Args:
            signature: The kind of call.
            parameters: The number of the network's parameters.
        """
        if not self.is_settled(signature):
            return False
        return self.calls * min(self.seconds[signature]) * SAVED > compile_seconds(parameters)


def compile_seconds(parameters: int) -> float:
    """How long it takes about to compile a network on two cores, by 62 s at 6 million parameters, 141 s at 872 million.

    Args:
        parameters: The number of its parameters.
    """
    return 60 + 95e-9 * parameters
