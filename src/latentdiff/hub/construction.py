"""A bound on the networks that a configuration makes: they can't have more in them than the files of their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from latentdiff.errors import CheckpointError
from latentdiff.hub.component_folder import ComponentFolder

ROOM = 4  # a network is made up to twice, once as the stock class, and parameters that are tied count twice
SPARE_PARAMETERS, SPARE_ELEMENTS = 1000, 2**20


class Budget:
    """How many parameters, and elements of them, may still be made.

    Args:
        parts: The folders of the components that are loaded.
    """

    def __init__(self, parts: Iterable[ComponentFolder]) -> None:
        parts = list(parts)
        self.folder = parts[0].path.parent if parts else None
        self.parameters = ROOM * sum(len(part.tensors) for part in parts) + SPARE_PARAMETERS
        self.elements = ROOM * sum(part.parameters for part in parts) + SPARE_ELEMENTS

    def spend(self, parameter: nn.Parameter) -> None:
        """Count a parameter.

        Raises:
            CheckpointError: If there are too many.
        """
        self.parameters -= 1
        self.elements -= parameter.numel()
        if self.parameters < 0 or self.elements < 0:
            raise CheckpointError(
                f"{self.folder}: a configuration asks for a network that is many times larger than the weights; fetch "
                "or save the model again"
            )


_budget: ContextVar[Budget | None] = ContextVar("budget", default=None)


def _count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
    budget = _budget.get()
    if budget is not None and parameter is not None:
        budget.spend(parameter)


# It stays in place, since another thread may make networks while one is loaded; without a budget it does nothing.
register_module_parameter_registration_hook(_count)


@contextmanager
def bounded(parts: Iterable[ComponentFolder] | None) -> Iterator[None]:
    """Bound what this thread makes of networks by what the files of some components hold.

    Args:
        parts: The folders of the components; None for no bound, where networks that there are get their tensors.

    Raises:
        CheckpointError: If networks with many times as many parameters, or elements of them, are made.
    """
    token = _budget.set(None if parts is None else Budget(parts))
    try:
        yield
    finally:
        _budget.reset(token)
