"""The numbers of a study: the interval of a share, and how far participants agree."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist

CONFIDENCE = 0.95


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927, without continuity correction), within [0, 1].

    It takes the trials as independent.

    Args:
        successes: How many trials succeeded.
        trials: How many there were; of none, the share can be anything.
        confidence: The confidence, two-sided.
    """
    if trials == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # At the ends the bound is exact; rounding would leave a share outside of its interval.
    low = 0.0 if successes == 0 else middle - half
    return low, 1.0 if successes == trials else middle + half


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Krippendorff's alpha for nominal values: 1 is full agreement, 0 that of chance.

    Unlike Fleiss' kappa it takes any number of answers per unit, as of participants who see different pairs or stop
    early (Krippendorff, Content Analysis, 2nd ed. 2004, section 11.3; Hayes and Krippendorff 2007).

    Args:
        units: The answers to each question; those with fewer than two say nothing and are left out.

    Returns:
        alpha; None where it is undefined: no question has two answers, or all answers are the same.
    """
    counts = [Counter(answers) for answers in units if len(answers) > 1]
    totals: Counter[str] = sum(counts, Counter())
    count = totals.total()
    expected = count * count - sum(number**2 for number in totals.values())
    if expected == 0:
        return None
    # Pairs of different answers to one question, each question weighted so that its answers count once.
    observed = sum((of.total() ** 2 - sum(n**2 for n in of.values())) / (of.total() - 1) for of in counts)
    return 1 - (count - 1) * observed / expected
