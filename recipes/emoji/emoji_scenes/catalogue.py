"""The objects that scenes are made of, as the committed ``catalogue.json`` lists them."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).with_name("catalogue.json")
CORE = Path(__file__).with_name("core.json")


@dataclass(frozen=True)
class Item:
    """One object.

    Attributes:
        name: What captions call it; unique.
        icon: Its icon in the Noto set.
        group: Its Unicode group.
        article: ``"a"``, ``"an"``, or ``""`` for plurals, mass nouns and proper names.
        synonyms: Other names that mean this object and no other.
        keywords: Looser words, each shared by a few objects ("fruit").
        shade: The named background nearest to its mean colour, on which it would be hard to see.
    """

    name: str
    icon: str
    group: str
    article: str
    synonyms: tuple[str, ...]
    keywords: tuple[str, ...]
    shade: str


@cache
def load(path: Path = PATH) -> dict[str, Item]:
    """The catalogue by name, in Unicode's order."""
    rows = json.loads(path.read_text(encoding="utf-8"))
    items = [Item(**{**row, "synonyms": tuple(row["synonyms"]), "keywords": tuple(row["keywords"])}) for row in rows]
    return {item.name: item for item in items}


@cache
def core() -> dict[str, Item]:
    """The part of the catalogue that the built-in model draws: well-known things that differ from each other."""
    return {name: load()[name] for name in json.loads(CORE.read_text(encoding="utf-8"))}


SETS = {"core": core, "all": load}
