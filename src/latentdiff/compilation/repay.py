"""Whether compiling a network repays itself, by how long its calls take and how many are planned."""

from __future__ import annotations

from collections.abc import Hashable

SAVED = 0.25
"""The share of a call's time that compiling saves at least: in trials it was 0.27 to 0.44, see docs/compile.md."""

TIMED_CALLS = 3
"""Calls after which it is decided; the fastest of them counts, so that the first, which warms up, does not."""


class PlannedCalls:
    """The calls of a network that are planned, and how long they take uncompiled.

    Args:
        calls: How many are planned, of all shapes together.
    """

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.timed: dict[Hashable, list[tuple[int, float]]] = {}  # how many were left after a call, and its seconds

    def spend(self) -> None:
        """Count a call that was made compiled."""
        self.calls -= 1

    def add(self, signature: Hashable, seconds: float) -> None:
        """Count a call that was made uncompiled, and how long it took."""
        self.calls -= 1
        timed = self.timed.setdefault(signature, [])
        if len(timed) < TIMED_CALLS:
            timed.append((self.calls, seconds))

    def is_settled(self, signature: Hashable) -> bool:
        """Whether enough calls of a kind have been timed."""
        return len(self.timed.get(signature, ())) == TIMED_CALLS

    def repays(self, signature: Hashable, parameters: int) -> bool:
        """Whether the calls that are left save more time than compiling takes; False until it is settled.

        Of calls of several kinds in turn, such as those of feature caching, each kind has the share of those that are
        left that it had of those from its first timed call to its last.

        Args:
            signature: The kind of call.
            parameters: The number of the network's parameters.
        """
        if not self.is_settled(signature):
            return False
        timed = self.timed[signature]
        share = (TIMED_CALLS - 1) / max(timed[0][0] - timed[-1][0], TIMED_CALLS - 1)
        return self.calls * share * min(seconds for _, seconds in timed) * SAVED > compile_seconds(parameters)


def compile_seconds(parameters: int) -> float:
    """How long it takes about to compile a network on two cores, by 62 s at 6 million parameters, 141 s at 872 million.

    Args:
        parameters: The number of its parameters.
    """
    return 60 + 95e-9 * parameters
