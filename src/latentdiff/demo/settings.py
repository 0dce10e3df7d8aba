"""What an image is asked with, besides what is drawn: checked, and as the query of a link that restores it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from urllib.parse import urlencode

from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS, nearest
from latentdiff.seeding import check_seed
from latentdiff.tasks import NUM_INFERENCE_STEPS

DRAWING = "drawing"  # the name in a link of what was drawn, which the server keeps for a while
MOST_STEPS = 250
LARGEST_SCALE = 20.0
LONGEST_INTERVAL = 10  # steps
LONGEST_TEXT = 4000  # characters


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one image.

    Attributes:
        model: The name of the model.
        prompt: What to show.
        negative_prompt: What to lead away from; empty for nothing.
        label: The class to show; empty for none.
        seed: The seed.
        steps: Steps of the solver.
        scheduler: The solver's name; empty for the model's own.
        guidance_scale: Strength of guidance; None for a model without.
        cache_interval: The network is evaluated in full once in so many steps.

    Raises:
        InputError: If one is not valid; what depends on the model is checked where it is used.
    """

    model: str
    prompt: str = ""
    negative_prompt: str = ""
    label: str = ""
    seed: int = 0
    steps: int = NUM_INFERENCE_STEPS
    scheduler: str = ""
    guidance_scale: float | None = None
    cache_interval: int = 1

    def __post_init__(self) -> None:
        for name in ("prompt", "negative_prompt", "label"):
            if len(getattr(self, name)) > LONGEST_TEXT:
                raise InputError(f"{name} has more than {LONGEST_TEXT} characters; make it shorter")
        check_seed(self.seed)
        for name, most in (("steps", MOST_STEPS), ("cache_interval", LONGEST_INTERVAL)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}; it must be an integer from 1 to {most}")
        if self.scheduler and self.scheduler not in SCHEDULERS:
            raise InputError(f"unknown solver {self.scheduler!r}; {nearest(self.scheduler, SCHEDULERS.names())}")
        scale = self.guidance_scale
        if scale is not None and not 0 <= scale <= LARGEST_SCALE:  # true for NaN, too
            raise InputError(f"guidance_scale is {scale}; it must be a number from 0 to {LARGEST_SCALE:g}")

    def query(self, drawing: str | None = None) -> str:
        """The part of a link behind the question mark.

        Args:
            drawing: What the server keeps the drawing under, if there is one.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        given = {name: value for name, value in given.items() if value not in ("", None)}
        return urlencode({**given, **({} if drawing is None else {DRAWING: drawing})})


READERS: Mapping[str, Callable[[str], object]] = {
    "model": str,
    "prompt": str,
    "negative_prompt": str,
    "label": str,
    "seed": int,
    "steps": int,
    "scheduler": str,
    "guidance_scale": float,
    "cache_interval": int,
}


def read_query(query: Mapping[str, str]) -> tuple[dict[str, object], list[tuple[str, str]]]:
    """What a link says.

    Args:
        query: Names and values of its query; names that are no settings are passed over.

    Returns:
        The settings by name, and names and values of those that are not valid.
    """
    known: dict[str, object] = {}
    wrong = []
    for name, read in READERS.items():
        if name not in query:
            continue
        try:
            value = read(query[name])
            Settings(**{"model": "", name: value})  # type: ignore[arg-type]  # READERS has the types of the fields
        except (ValueError, OverflowError):  # InputError is a ValueError
            wrong.append((name, query[name][:100]))
        else:
            known[name] = value
    return known, wrong


def whole(value: object, name: str) -> int:
    """A number of the page as an integer.

    Raises:
        InputError: If it is none.
    """
    text = str(value).strip()
    try:
        number = float(text)
        if math.isfinite(number) and number == int(number):
            return int(text) if text.isdecimal() else int(number)
    except ValueError:
        pass
    raise InputError(f"{name} is {text[:100]!r}; it must be an integer")


def drawn_seed() -> int:
    """A seed that nobody has chosen."""
    return secrets.randbelow(2**32)
