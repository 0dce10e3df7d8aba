"""The progress of a run: a bar where a terminal shows it, else a line from time to time."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm


class Progress(tqdm):  # type: ignore[type-arg]
    """A bar that no run ends by: stderr may be a file on a full disk. In a file it is lines.

    Commands keep libraries from writing to stderr; it then has the stream of before as its attribute `behind`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.stream = getattr(sys.stderr, "behind", sys.stderr)
        self.in_lines = not self.stream.isatty()
        super().__init__(*args, **kwargs)

    def display(self, *args: Any, **kwargs: Any) -> Any:
        """Show it, if possible."""
        with suppress(OSError):
            return None if self.in_lines else super().display(*args, **kwargs)

    def report(self, step: int, values: Mapping[str, float]) -> None:
        """Show values after a step."""
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        self.set_postfix(shown)
        if self.in_lines and not self.disable:
            text = ", ".join(f"{name} {value}" for name, value in shown.items())
            with suppress(OSError):
                print(f"step {step} of {self.total}: {text}", file=self.stream, flush=True)

    def close(self) -> None:
        """Show it for the last time, if possible."""
        with suppress(OSError):
            super().close()
