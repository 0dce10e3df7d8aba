"""Measured order of convergence of every deterministic solver: python -m benchmarks scheduler-order."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measuring import parser_of
from latentdiff.bench.plot import COLOURS
from latentdiff.registry import SCHEDULERS
from latentdiff.testing import flow_error, measure_order

COUNTS = (20, 40, 80, 160)
STOCHASTIC = {"ddpm", "dpmpp_2m_sde", "er_sde", "euler_ancestral", "lcm"}
WITHOUT_NOISE = {"sa_solver": {"tau": 0.0}, "restart": {"num_restarts": 0}, "tcd": {"original_inference_steps": 1000}}
WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 20, 44  # margins


def plot(errors: Mapping[str, Sequence[float]]) -> str:
    """An SVG of the errors by the number of steps, both axes logarithmic: the slope is the order."""
    exponents = [math.log10(error) for row in errors.values() for error in row]
    low, high = math.floor(min(exponents)), math.ceil(max(exponents))

    def x(count: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(count / COUNTS[0]) / math.log(COUNTS[-1] / COUNTS[0])

    def y(error: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log10(error)) / (high - low)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" '
        'font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for count in COUNTS:
        lines.append(f'<path d="M{x(count):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x(count):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{count}</text>')
    for exponent in range(low, high + 1):
        level = y(10.0**exponent)
        lines.append(f'<path d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{level + 4:.1f}" text-anchor="end">1e{exponent}</text>')
    free = -math.inf  # below which a name may be written
    for name, row in sorted(errors.items(), key=lambda item: -item[1][-1]):
        colour = "#{:02x}{:02x}{:02x}".format(*COLOURS[list(errors).index(name) % len(COLOURS)])
        points = " ".join(f"{x(count):.1f},{y(error):.1f}" for count, error in zip(COUNTS, row, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        free = max(y(row[-1]) + 4, free + 14)
        lines.append(f'<text x="{WIDTH - RIGHT + 8}" y="{free:.1f}" fill="{colour}">{name}</text>')
    lines.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">steps</text>')
    return "\n".join([*lines, "</svg>", ""])


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the errors")
    options = parser.parse_args(words)
    print(f"{'error after':12}" + "".join(f"{count:>11}" for count in COUNTS) + f"{'order':>8}")
    errors = {}
    for name in SCHEDULERS.names():
        if name not in STOCHASTIC:
            make = partial(SCHEDULERS.get(name), **WITHOUT_NOISE.get(name, {}))
            errors[name] = [flow_error(make, count) for count in COUNTS]
            shown = "".join(f"{error:11.2e}" for error in errors[name])
            print(f"{name:12}{shown}{measure_order(make, COUNTS):8.2f}")
    if options.plot:
        options.plot.write_text(plot(errors), encoding="utf-8")
