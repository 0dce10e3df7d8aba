"""The best validation of a run so far, and how long it has been ago."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from latentdiff.training.engine.log import rounded
from latentdiff.training.engine.saved import BestState

LOSS = "loss"


@dataclass
class Best:
    """The best value that validations have found, which a checkpoint holds.

    Attributes:
        name: What is compared: the loss, or a metric by its whole name, since numbers of two protocols can't be.
        higher_is_better: Whether a higher value is the better one.
        stop_after: The number of validations in a row without gain after which the run ends; None for never.
        value: The best value; None before the first.
        step: The number of steps after which it was found.
        without_gain: The number of validations since then.
        keep: The number of the best checkpoints that are kept.
        kept: The steps of these checkpoints, with their values.
    """

    name: str = LOSS
    higher_is_better: bool = False
    stop_after: int | None = None
    value: float | None = None
    step: int = 0
    without_gain: int = 0
    keep: int = 0
    kept: dict[int, float] = field(default_factory=dict)

    @property
    def ends_run(self) -> bool:
        """Whether it has been so long ago that the run ends."""
        return self.stop_after is not None and self.without_gain >= self.stop_after

    @property
    def facts(self) -> dict[str, float]:
        """What the log says of it."""
        return {} if self.value is None else {"best_step": self.step, "without_gain": self.without_gain}

    @property
    def words(self) -> list[str]:
        """What a terminal says of it, if there is one."""
        if self.value is None:
            return []
        return ["the best so far" if not self.without_gain else f"the best was {self.value:.4g} at step {self.step}"]

    def gains(self, values: Mapping[str, float]) -> bool:
        """Whether a validation found a better value than all before."""
        value = rounded(values.get(self.name, math.nan))  # as the log has it
        if self.value is None or math.isnan(value):
            return not math.isnan(value)
        return value > self.value if self.higher_is_better else value < self.value

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Count a validation after `step` steps; one that could not measure the value counts for nothing."""
        if self.gains(values):
            self.value, self.step, self.without_gain = rounded(values[self.name]), step, 0
        elif self.name in values:
            self.without_gain += 1
        if self.keep and not math.isnan(value := rounded(values.get(self.name, math.nan))):
            ranked = sorted({**self.kept, step: value}.items(), key=self._rank)
            self.kept = dict(ranked[: self.keep])

    def _rank(self, entry: tuple[int, float]) -> tuple[float, int]:
        """The place of a step and its value, the best first; of equal ones the earlier."""
        step, value = entry
        return -value if self.higher_is_better else value, step

    def state(self) -> dict[str, object]:
        """What a checkpoint holds of it."""
        numbers = {"name": self.name, "value": self.value, "step": self.step, "without_gain": self.without_gain}
        return {**numbers, "kept": {str(step): value for step, value in self.kept.items()}}

    def load(self, state: BestState | None) -> None:
        """Go on from a checkpoint, unless its best is that of another number."""
        if state is not None and state.name == self.name:
            self.value, self.step, self.without_gain = state.value, state.step, state.without_gain
            self.kept = {int(step): value for step, value in state.kept.items()}

    def forget(self) -> None:
        """Begin anew, as the weights of the best are gone."""
        self.value, self.step, self.without_gain = None, 0, 0

    def why_it_ends(self, step: int) -> str:
        """The line about a run that ends after `step` steps since there was no gain."""
        best = "there was none" if self.value is None else f"best/ has that of step {self.step}, {self.value:g}"
        return f"ended after step {step}, as {self.name} has not gained in {self.without_gain} validations; {best}"
