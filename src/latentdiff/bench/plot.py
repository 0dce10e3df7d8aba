"""The picture of quality against time, on the axes of figure 7 of the paper: samples a second, Fréchet distance."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from latentdiff.bench.quality import Cell, Quality
from latentdiff.io.files import atomic_file
from latentdiff.io.palettes import Colour
from latentdiff.viz.drawing import font, text_width

WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 58, 48  # margins
FINE = 3  # the picture is drawn this many times larger and made smaller, which smooths its lines
SIZE = 12  # of the font
MARKER = 4  # the radius
INK, GREY, PALE = (30, 30, 30), (120, 120, 120), (228, 228, 228)
COLOURS: Sequence[Colour] = (
    (31, 119, 180), (214, 96, 22), (44, 140, 60), (190, 40, 50), (120, 80, 170),
    (130, 85, 70), (210, 90, 170), (20, 160, 170), (150, 150, 20), (90, 90, 90),
)  # fmt: skip
TENTHS = [number / 10 for number in range(10, 100)]
ROUND: Sequence[Sequence[float]] = (
    TENTHS, TENTHS[::2], TENTHS[::5], (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,),
)  # fmt: skip
"""The numbers in a decade that may stand at an axis, from the finest to the roundest."""
Scale = Callable[[float], float]


class Canvas:
    """A picture whose coordinates are pixels of the finished one."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", (WIDTH * FINE, HEIGHT * FINE), "white")
        self.draw = ImageDraw.Draw(self.image)

    def line(self, points: Sequence[tuple[float, float]], colour: Colour, width: float = 1) -> None:
        """Draw a line through points."""
        self.draw.line([(x * FINE, y * FINE) for x, y in points], colour, round(width * FINE), joint="curve")

    def dashes(self, left: float, right: float, y: float, colour: Colour) -> None:
        """Draw a dashed level line."""
        for number in range(int((right - left) / 10) + 1):
            start = left + 10 * number
            self.line([(start, y), (min(start + 6, right), y)], colour, 1.3)

    def dot(self, x: float, y: float, colour: Colour) -> None:
        """Draw a marker."""
        box = [(x - MARKER) * FINE, (y - MARKER) * FINE, (x + MARKER) * FINE, (y + MARKER) * FINE]
        self.draw.ellipse(box, colour, "white", FINE)

    def text(self, x: float, y: float, text: str, colour: Colour = INK, anchor: str = "lm") -> None:
        """Write a text; the anchor is Pillow's."""
        self.draw.text((x * FINE, y * FINE), text, colour, font(SIZE * FINE), anchor)

    def finished(self) -> Image.Image:
        """The picture in its own size."""
        return self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).quantize(
            256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )


def quality_plot(quality: Quality) -> Image.Image:
    """Draw a table: a line for each solver, a point for each number of steps, both axes logarithmic.

    Grey lines are numbers of steps, at the speed of solvers that call the network once a step. The target's distance is
    a dashed line. Distances of 0 and less, which only rounding makes, stand at the lower edge.
    """
    canvas, cells = Canvas(), list(quality.cells)
    shown = [*cells, *([quality.target] if quality.target else [])]
    across = _scale([cell.samples_per_second for cell in cells], LEFT, WIDTH - RIGHT)
    up = _scale([cell.distance for cell in shown], HEIGHT - BOTTOM, TOP)
    _axes(canvas, quality, across, up)
    solvers = list(dict.fromkeys(cell.solver for cell in cells))
    if quality.target is not None:
        y, label = up(quality.target.distance), f"{quality.target.solver} {quality.target.steps}"
        canvas.dashes(LEFT, WIDTH - RIGHT, y, INK)
        canvas.text(WIDTH - RIGHT - 4, y - 9, label, INK, "rm")
    for number, solver in enumerate(solvers):
        colour = COLOURS[number % len(COLOURS)]
        own = sorted((cell for cell in cells if cell.solver == solver), key=lambda cell: cell.steps)
        points = [(across(cell.samples_per_second), up(cell.distance)) for cell in own]
        if len(points) > 1:
            canvas.line(points, colour, 1.6)
        for point in points:
            canvas.dot(*point, colour)
    _legend(canvas, solvers)
    return canvas.finished()


def write_plot(path: str | Path, quality: Quality) -> None:
    """Write `quality_plot` as a PNG, completely or not at all."""
    with atomic_file(path) as aside:
        quality_plot(quality).save(aside, "PNG", optimize=True)


def _scale(values: Sequence[float], first: float, last: float) -> Scale:
    """The logarithmic scale that puts the values between two pixels, with a little room at both ends."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    room = max(0.06 * (high - low), 0.02)
    low, high = low - room, high + room

    def place(value: float) -> float:
        share = (math.log10(value) - low) / (high - low) if value > 0 else 0.0
        return first + share * (last - first)

    return place


def _ticks(scale: Scale, first: float, last: float, least: float) -> list[float]:
    """Round numbers on a scale between two pixels, as many as leave `least` pixels from one to the next."""
    low, high = sorted((first, last))
    for steps in ROUND:
        found = [step * 10.0**power for power in range(-9, 10) for step in steps]
        found = [value for value in found if low <= scale(value) <= high]
        places = [scale(value) for value in found]
        if all(abs(after - before) >= least for before, after in itertools.pairwise(places)):
            return found
    return found


def _axes(canvas: Canvas, quality: Quality, across: Scale, up: Scale) -> None:
    left, right, top, bottom = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM
    free = left  # where the next number of steps may be written
    for steps in sorted({cell.steps for cell in quality.cells}, reverse=True):
        once = [cell.samples_per_second for cell in _of_steps(quality.cells, steps)]
        x, label = across(statistics.median(once)), f"{steps} steps"
        canvas.line([(x, top), (x, bottom)], PALE)
        half = text_width(label, SIZE) / 2
        if x - half >= free:
            canvas.text(x, top - 10, label, GREY, "mm")
            free = round(x + half + 6)
    for value in _ticks(across, left, right, 44):
        x = across(value)
        canvas.line([(x, bottom), (x, bottom + 5)], INK)
        canvas.text(x, bottom + 14, f"{value:g}", INK, "mm")
    for value in _ticks(up, bottom, top, 22):
        y = up(value)
        canvas.line([(left - 5, y), (left, y)], INK)
        canvas.text(left - 9, y, f"{value:g}", INK, "rm")
    canvas.line([(left, top), (left, bottom), (right, bottom)], INK, 1.2)
    canvas.text((left + right) / 2, HEIGHT - 14, "samples a second", INK, "mm")
    canvas.text(12, 18, quality.metric)


def _of_steps(cells: Sequence[Cell], steps: int) -> list[Cell]:
    """The cells of a number of steps that call the network once a step; all of them if none does."""
    found = [cell for cell in cells if cell.steps == steps]
    return [cell for cell in found if cell.network_calls == steps] or found


def _legend(canvas: Canvas, solvers: Sequence[str]) -> None:
    for number, solver in enumerate(solvers):
        x, y, colour = WIDTH - RIGHT + 14, TOP + 8 + 20 * number, COLOURS[number % len(COLOURS)]
        canvas.line([(x - 8, y), (x + 8, y)], colour, 1.6)
        canvas.dot(x, y, colour)
        canvas.text(x + 14, y, solver)
