"""The named colours of the scene grammar, with the exact RGB values (0..255) that stand for them."""

RGB = tuple[int, int, int]

BACKGROUNDS: dict[str, RGB] = {
    "white": (255, 255, 255),
    "black": (16, 16, 16),
    "gray": (140, 140, 140),
    "red": (222, 48, 48),
    "orange": (255, 150, 40),
    "yellow": (255, 228, 80),
    "green": (70, 176, 80),
    "blue": (60, 120, 228),
    "purple": (140, 74, 196),
    "pink": (255, 164, 204),
    "brown": (128, 82, 46),
}
"""The flat colour behind a scene. Any two are at least 70 apart in Euclidean RGB distance."""

# A tint is a ramp through three colours: shadows, the mid tone that gives the name, and highlights. Outlines therefore
# stay darker and reflections lighter than the body whatever the colour, which is what keeps an object recognisable.
TINTS: dict[str, tuple[RGB, RGB, RGB]] = {
    "red": ((70, 6, 10), (218, 34, 40), (255, 190, 186)),
    "orange": ((104, 44, 2), (246, 128, 18), (255, 222, 176)),
    "yellow": ((124, 84, 4), (250, 208, 34), (255, 248, 196)),
    "green": ((8, 54, 16), (52, 162, 60), (200, 242, 196)),
    "blue": ((8, 24, 88), (40, 102, 222), (192, 220, 255)),
    "purple": ((44, 10, 78), (134, 58, 196), (230, 204, 250)),
    "pink": ((128, 24, 84), (248, 116, 184), (255, 222, 240)),
    "brown": ((44, 22, 8), (126, 76, 40), (220, 186, 152)),
    "black": ((4, 4, 6), (42, 42, 46), (150, 150, 156)),
    "white": ((120, 120, 126), (232, 232, 236), (255, 255, 255)),
}
"""Object colours: ``(shadow, mid tone, highlight)``."""

WORDS = frozenset(BACKGROUNDS) | frozenset(TINTS) | {"grey"}
"""Words that mean a colour here, and so appear in no object's name."""
