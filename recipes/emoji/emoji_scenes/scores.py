"""What is measured on an image that was asked to show a scene. Images are (H, W, 3) float32 in [0, 1]."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from .colours import BACKGROUNDS, TINTS
from .grammar import RELATIONS, Scene, Thing
from .render import Array, Sprites, compose

Embed = Callable[[Sequence[Array]], Array]
Outcome = dict[str, float]


def render(scene: Scene, sprites: Sprites, resolution: int) -> Array:
    """The scene as the data draw it, as a float image."""
    return np.asarray(compose(scene, sprites, resolution), dtype=np.float32) / 255


def nearest_colour(rgb: Array, table: Mapping[str, Array]) -> str:
    """The name whose RGB in [0, 1] is nearest in Euclidean distance."""
    return min(table, key=lambda name: float(np.square(table[name] - rgb).sum()))


def background_of(image: Array) -> str:
    """The named background nearest to the channel-wise median of the outermost two rows and columns."""
    border = np.concatenate([part.reshape(-1, 3) for part in (image[:2], image[-2:], image[:, :2], image[:, -2:])])
    table = {name: np.array(rgb, dtype=np.float32) / 255 for name, rgb in BACKGROUNDS.items()}
    return nearest_colour(np.median(border, axis=0), table)


def foreground_colour(image: Array, background: str) -> Array:
    """Mean RGB of the pixels at a distance over 0.15 from the background's colour; that colour if there are none."""
    ground = np.array(BACKGROUNDS[background], dtype=np.float32) / 255
    apart = np.linalg.norm(image - ground, axis=-1) > 0.15
    result: Array = image[apart].mean(0) if apart.any() else ground
    return result


def halves(image: Array, relation: str) -> tuple[Array, Array]:
    """The squares of half the frame's side around where the first and the second object of a pair belong."""
    side = image.shape[0] // 2
    x, y = RELATIONS[relation]
    corners = [(round(v * 2 * side - side / 2), round(u * 2 * side - side / 2)) for u, v in ((x, y), (1 - x, 1 - y))]
    first, second = (image[top : top + side, left : left + side] for top, left in corners)
    return first, second


@dataclass
class Judge:
    """Scores images against renders of every object of the catalogue under the condition that was asked for.

    Retrieval: the image's features are compared by cosine with those of all objects drawn with the asked colour,
    background and place; ``top1`` says whether the asked object is the most similar, ``top5`` whether it is among the
    five most similar. For a pair, each object's square (``halves``) is compared with squares cut out of drawn pairs.
    """

    sprites: Sprites
    embed: Embed
    resolution: int
    embed_gallery: Embed | None = None
    _galleries: dict[Scene, Array] = field(default_factory=dict)

    def score(self, scenes: Sequence[Scene], images: Sequence[Array]) -> list[Outcome]:
        """One outcome per image; ``score_single`` and ``score_pair`` define their keys."""
        if scenes[0].relation is not None:
            crops = [half for s, image in zip(scenes, images, strict=True) for half in halves(image, str(s.relation))]
            features = self.embed(crops).reshape(len(scenes), 2, -1)
            return [self.score_pair(*pair) for pair in zip(scenes, features, strict=True)]
        features = self.embed(images)
        return [self.score_single(*triple) for triple in zip(scenes, images, features, strict=True)]

    def score_single(self, scene: Scene, image: Array, feature: Array) -> Outcome:
        """``top1``, ``top5``; ``background``: the border has the asked colour (``background_of``).

        For a recoloured object also ``colour``: of the renders of this object in each colour, the one with the nearest
        mean foreground colour (``foreground_colour``) is the one in the asked colour.
        """
        rank = self._rank(feature, scene)[scene.things[0].name]
        outcome = {"top1": float(rank < 1), "top5": float(rank < 5)}
        outcome["background"] = float(background_of(image) == scene.background)
        thing = scene.things[0]
        if thing.colour is not None:
            table = {}
            for colour in TINTS:
                drawn = render(replace(scene, things=(Thing(thing.name, colour),)), self.sprites, self.resolution)
                table[colour] = foreground_colour(drawn, scene.background)
            found = nearest_colour(foreground_colour(image, scene.background), table)
            outcome["colour"] = float(found == thing.colour)
        return outcome

    def score_pair(self, scene: Scene, features: Array) -> Outcome:
        """``top1``, ``top5``: means over the two objects, each where it was asked for.

        ``both``: both are top 5 where they were asked for; ``swapped``: both are top 5 in each other's place;
        ``relation``: the sum of the two cosines as asked exceeds that of the objects in each other's place.
        """
        first, second = (thing.name for thing in scene.things)
        here, there = (self._rank(feature, scene) for feature in features)
        ranks, swapped = (here[first], there[second]), (here[second], there[first])
        gallery, index = self._gallery(scene), {name: i for i, name in enumerate(self.sprites)}
        cosine = features @ gallery[[index[first], index[second]]].T
        return {
            "top1": sum(rank < 1 for rank in ranks) / 2,
            "top5": sum(rank < 5 for rank in ranks) / 2,
            "both": float(max(ranks) < 5),
            "swapped": float(max(swapped) < 5),
            "relation": float(np.trace(cosine) > cosine[0, 1] + cosine[1, 0]),
        }

    def _rank(self, feature: Array, scene: Scene) -> dict[str, int]:
        """Each object's place in the order of similarity, 0 the most similar."""
        order = np.argsort(-(self._gallery(scene) @ feature), kind="stable")
        names = list(self.sprites)
        return {names[i]: rank for rank, i in enumerate(order.tolist())}

    def _gallery(self, scene: Scene) -> Array:
        """Features (N, 1280) of all objects under the scene's condition, computed once per condition."""
        one = (Thing("", scene.things[0].colour),)
        # Pairs are drawn in own colours, and a square looks the same wherever it is cut out: one gallery for all.
        pair = scene.relation is not None
        condition = replace(scene, kind="", things=one, relation="left of" if pair else None, jitter=())
        if condition not in self._galleries:
            embed = self.embed_gallery or self.embed
            self._galleries[condition] = embed([self._drawn(name, condition) for name in self.sprites])
        return self._galleries[condition]

    def _drawn(self, name: str, condition: Scene) -> Array:
        """One object under a condition."""
        thing = Thing(name, condition.things[0].colour)
        count = 1 if condition.relation is None else 2
        image = render(replace(condition, things=(thing,) * count), self.sprites, self.resolution)
        return image if condition.relation is None else halves(image, condition.relation)[0]
