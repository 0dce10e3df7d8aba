"""What the system may refuse, such as by a full disk, without the end of a run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from latentdiff.errors import LatentDiffWarning
from latentdiff.io.files import system_errno


@contextmanager
def outlived(what: str, then: Callable[[], str]) -> Iterator[None]:
    """Turn an error of the system in the block into a warning.

    Args:
        what: Was tried.
        then: What is the case now, said in case of an error.
    """
    try:
        yield
    except Exception as error:
        number = system_errno(error)
        if not number:
            raise
        warnings.warn(LatentDiffWarning(f"{what} failed ({os.strerror(number)}); {then()}"), stacklevel=3)
