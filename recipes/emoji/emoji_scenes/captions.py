"""Captions: many phrasings of one scene."""

import numpy as np

from .catalogue import Item
from .grammar import Scene, Thing

MEDIA = ("a picture of", "a drawing of", "an emoji of", "an icon of")
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
PLACES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}


def noun_phrase(item: Item, adjectives: tuple[str, ...] = (), articles: bool = True) -> str:
    """The item's name with adjectives and the article that fits the first word."""
    words = [*adjectives, item.name]
    if articles and item.article:
        # Every adjective of the grammar starts with the sound its letter suggests; names carry their own article.
        first = adjectives[0][0] in "aeiou" if adjectives else item.article == "an"
        words.insert(0, "an" if first else "a")
    return " ".join(words)


def canonical(scene: Scene, items: dict[str, Item]) -> str:
    """The plainest full description, which evaluation uses as the prompt."""
    phrases = [_describe(thing, scene, items, True) for thing in scene.things]
    text = f" {scene.relation} ".join(phrases)
    if scene.position:
        text += f" {scene.position}"
    article = "an" if scene.background[0] in "aeiou" else "a"
    return text if scene.background == "white" else f"{text} on {article} {scene.background} background"


def caption(scene: Scene, items: dict[str, Item], rng: np.random.Generator) -> str:
    """One of the ways to describe the scene."""
    articles = bool(rng.random() < 0.7)
    if scene.kind == "plain":
        text = _plain(items[scene.things[0].name], articles, rng)
    elif scene.relation is not None:
        text = _pair(scene, items, articles, rng)
    else:
        text = _describe(scene.things[0], scene, items, articles)
        if scene.position is not None:
            text += f" {_vary_position(scene.position, rng)}"
    if scene.background != "white" or rng.random() < 0.08:
        text += _background(scene.background, articles, rng)
    return text


def _describe(thing: Thing, scene: Scene, items: dict[str, Item], articles: bool) -> str:
    """An object with the adjectives that the scene gives it."""
    adjectives = tuple(word for word in (scene.size, thing.colour) if word)
    return noun_phrase(items[thing.name], adjectives, articles)


def _plain(item: Item, articles: bool, rng: np.random.Generator) -> str:
    """An object alone: its name, a synonym, or a name with keywords."""
    draw = rng.random()
    if draw < 0.10 and item.synonyms:
        return item.synonyms[rng.integers(len(item.synonyms))]
    if draw < 0.25 and item.keywords:
        count = min(len(item.keywords), int(rng.integers(1, 3)))
        chosen = rng.permutation(len(item.keywords))[:count]
        return ", ".join([item.name, *(item.keywords[i] for i in sorted(chosen))])
    if draw < 0.35:
        return f"{MEDIA[rng.integers(len(MEDIA))]} {noun_phrase(item, (), articles)}"
    return noun_phrase(item, (), articles)


def _pair(scene: Scene, items: dict[str, Item], articles: bool, rng: np.random.Generator) -> str:
    """Two objects and how they lie."""
    assert scene.relation is not None
    first, second = (_describe(thing, scene, items, articles) for thing in scene.things)
    if rng.random() < 0.2:
        here, there = PLACES[scene.relation]
        return f"{first} {here} and {second} {there}"
    words = RELATION_WORDS[scene.relation]
    return f"{first} {words[int(rng.random() < 0.35)]} {second}"


def _vary_position(position: str, rng: np.random.Generator) -> str:
    """Says "top left" for "top left corner" and "middle" for "center" now and then."""
    if rng.random() < 0.3:
        return position.removesuffix(" corner").replace("center", "middle")
    return position


def _background(colour: str, articles: bool, rng: np.random.Generator) -> str:
    """A phrase for the background."""
    article = ("an " if colour[0] in "aeiou" else "a ") if articles else ""
    draw = rng.random()
    if draw < 0.6:
        return f" on {article}{colour} background"
    if draw < 0.75:
        return f" on {colour}"
    return f" with {article}{colour} background" if draw < 0.9 else f", {colour} background"
