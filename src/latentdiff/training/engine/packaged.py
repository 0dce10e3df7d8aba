"""Optimisers: those of torch, and those of other packages, which a recipe names as "package.module:Class"."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import torch

from latentdiff.errors import ConfigError, one_line
from latentdiff.registry import nearest

SHORT = {"adamw": "AdamW", "adamw_fused": "AdamW"}
UNFIT = {"LBFGS", "SparseAdam", "Muon"}  # they need a closure, sparse gradients or matrices alone
ELSEWHERE = {  # what people call optimisers that are in packages of their own
    "adam8bit": "bitsandbytes.optim:Adam8bit",
    "adamw8bit": "bitsandbytes.optim:AdamW8bit",
    "lion8bit": "bitsandbytes.optim:Lion8bit",
    "prodigy": "prodigyopt:Prodigy",
    "schedulefree": "schedulefree:AdamWScheduleFree",
    "adamwschedulefree": "schedulefree:AdamWScheduleFree",
}

OptimizerClass = Callable[..., torch.optim.Optimizer]


def is_packaged(name: str) -> bool:
    """Whether a name is that of another package's optimiser."""
    return ":" in name


def optimizer_class(name: str) -> OptimizerClass:
    """The class that a recipe names.

    Raises:
        ConfigError: If there is none; the message says what to give, or what to install.
    """
    if is_packaged(name):
        return _of_package(name)
    classes = {found: kind for found, kind in _optimizers(torch.optim).items() if found not in UNFIT}
    own = SHORT.get(name, name)
    if own in classes:
        return classes[own]
    elsewhere = ELSEWHERE.get(name.lower().replace("_", "").replace("-", ""))
    if elsewhere is not None:
        package = _package(elsewhere)
        raise ConfigError(f"optimizer.name is {name!r}; pip install {package}, and give {elsewhere!r}")
    if name == "Muon":
        raise ConfigError("optimizer.name is 'Muon', which takes matrices alone; give another, or package.module:Class")
    raise ConfigError(f"optimizer.name is {name!r}; {nearest(name, [*SHORT, *classes])}; or give package.module:Class")


def _of_package(name: str) -> OptimizerClass:
    where, _, attribute = name.partition(":")
    package = _package(name)
    given = f"optimizer.name is {name!r}"
    try:
        module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name == package:
            raise ConfigError(f"{given}, but {package} is not installed; pip install {package}") from None
        raise ConfigError(f"{given}, but there is no module {error.name}; give package.module:Class") from None
    except Exception as error:  # whatever the package does as it is imported
        raise ConfigError(f"{given}, but {where} can't be imported ({one_line(error)}); give another") from None
    there = _optimizers(module)
    if attribute not in there:
        raise ConfigError(f"{given}, but {where} has no such optimiser; {nearest(attribute, there)}")
    return there[attribute]


def _package(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]


def _optimizers(module: object) -> dict[str, OptimizerClass]:
    """The optimisers in a module, by their names."""
    kinds = {name: kind for name, kind in vars(module).items() if inspect.isclass(kind)}
    base = torch.optim.Optimizer
    return {name: kind for name, kind in kinds.items() if issubclass(kind, base) and kind is not base}
