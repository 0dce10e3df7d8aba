"""Parts of a task that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from latentdiff.config import check
from latentdiff.registry import nearest


def freeze(task: nn.Module, patterns: Sequence[str]) -> None:
    """Take parameters out of training, by patterns of their names or of the names of modules around them.

    Args:
        task: What is trained.
        patterns: Names as a shell takes them, such as "unet.down_blocks.*"; a module stands for all in it.

    Raises:
        ConfigError: If a pattern names nothing that is trained, or nothing is left to train.
    """
    trained = {name: parameter for name, parameter in task.named_parameters() if parameter.requires_grad}
    places = {name: _around(name) for name in trained}
    for pattern in patterns:
        named = [name for name, around in places.items() if any(fnmatchcase(place, pattern) for place in around)]
        known = {place for around in places.values() for place in around}
        check(bool(named), f"freeze has {pattern!r}, which names nothing that is trained; {nearest(pattern, known)}")
        for name in named:
            trained[name].requires_grad_(False)
    check(
        any(parameter.requires_grad for parameter in trained.values()),
        f"freeze is {[*patterns]}, which leaves nothing to train; leave some of it out",
    )


def _around(name: str) -> list[str]:
    """The name of a parameter, and those of the modules around it: a, a.b and a.b.c of a.b.c."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
