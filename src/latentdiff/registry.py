"""Names to classes.

Names in files are registry names, never import paths, so loading a model runs no code that it brings.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from latentdiff.errors import ConfigError
from latentdiff.tasks import TASKS

T = TypeVar("T")
LISTED = 20  # names in a message


def nearest(name: object, known: Iterable[str]) -> str:
    """The tail of an error message about an unknown `name`: its nearest neighbours, else what is known."""
    text, known = str(name), sorted(known)
    close = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    close = close or [entry for entry in known if text and text.lower() in entry.lower()][:3]
    if close:
        return f"did you mean {' or '.join(map(repr, close))}?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"known: {', '.join(known[:LISTED]) or 'none'}{more}"


class Registry(Generic[T]):
    """A table of one kind of thing.

    Args:
        kind: What the entries are, for messages ("scheduler").
        builtin: Name to "module:attribute" of the package's own entries, imported when first asked for.
    """

    def __init__(self, kind: str, builtin: Mapping[str, str] | None = None) -> None:
        self.kind = kind
        self._builtin = dict(builtin or {})
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an entry; a name that is taken is a ConfigError."""

        def add(entry: T) -> T:
            if name in self:
                raise ConfigError(f"{self.kind} {name!r} is registered already; choose another name")
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str) -> T:
        """The entry called `name`; an unknown name is a ConfigError that lists its nearest neighbours."""
        if name not in self._entries:
            if name not in self._builtin:
                raise ConfigError(f"unknown {self.kind} {name!r}; {nearest(name, self.names())}")
            module, attribute = self._builtin[name].split(":")
            self._entries[name] = getattr(importlib.import_module(module), attribute)
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        return sorted({*self._builtin, *self._entries})

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entries


def load_plugins() -> list[str]:
    """Import what is installed in the entry-point group `latentdiff.plugins`; returns the names of the entry points."""
    import importlib.metadata  # takes a tenth of the time of `latentdiff --help`

    points = list(importlib.metadata.entry_points(group="latentdiff.plugins"))
    for point in points:
        point.load()
    return [point.name for point in points]


SCHEDULERS: Registry[type] = Registry(
    "scheduler",
    {
        "ddpm": "latentdiff.schedulers.ddpm:DDPMScheduler",
        "ddim": "latentdiff.schedulers.ddim:DDIMScheduler",
        "plms": "latentdiff.schedulers.plms:PLMSScheduler",
        "euler": "latentdiff.schedulers.euler:EulerScheduler",
        "euler_ancestral": "latentdiff.schedulers.euler:EulerAncestralScheduler",
        "heun": "latentdiff.schedulers.heun:HeunScheduler",
        "dpmpp_2m": "latentdiff.schedulers.dpmpp:DPMSolverPP2MScheduler",
        "dpmpp_2m_sde": "latentdiff.schedulers.dpmpp:DPMSolverPP2MSDEScheduler",
        "unipc": "latentdiff.schedulers.unipc:UniPCScheduler",
        "lcm": "latentdiff.schedulers.lcm:LCMScheduler",
    },
)

PIPELINES: Registry[type] = Registry("pipeline", {name: spec.pipeline for name, spec in TASKS.items()})

DEGRADATIONS: Registry[Callable[..., Any]] = Registry(
    "degradation",
    {
        "bicubic": "latentdiff.data.degradations.bicubic:bicubic",
        "bsr": "latentdiff.data.degradations.bsr:BSR_FULL",
        "bsr_light": "latentdiff.data.degradations.bsr:BSR_LIGHT",
    },
)

MASKS: Registry[Callable[..., Any]] = Registry(
    "mask generator",
    {
        "box": "latentdiff.data.masks:BOX",
        "medium": "latentdiff.data.masks:MEDIUM",
        "segment": "latentdiff.data.masks:SEGMENT",
        "thick": "latentdiff.data.masks:THICK",
        "thin": "latentdiff.data.masks:THIN",
    },
)

CONDITIONERS: Registry[Any] = Registry(
    "conditioning", {name: spec.conditioner for name, spec in TASKS.items() if spec.conditioner is not None}
)

METRICS: Registry[Callable[..., Any]] = Registry(
    "metric",
    {"psnr": "latentdiff.evaluation.metrics:psnr", "ssim": "latentdiff.evaluation.metrics:ssim"},
)
"""Metrics of images against targets, both (B, C, H, W) in [0, 1], that give a number for each image, (B,)."""
