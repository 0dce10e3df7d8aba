"""The progress bar of a run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from tqdm.auto import tqdm


class Progress(tqdm):  # type: ignore[type-arg]
    """A bar that no run ends by: stderr may be a file on a full disk."""

    def display(self, *args: Any, **kwargs: Any) -> Any:
        """Show it, if possible."""
        with suppress(OSError):
            return super().display(*args, **kwargs)

    def close(self) -> None:
        """Show it for the last time, if possible."""
        with suppress(OSError):
            super().close()
