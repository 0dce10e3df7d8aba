"""Reports of measurements as JSON, as Markdown and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from latentdiff.bench.against import Against
from latentdiff.bench.quality import Cell, Quality
from latentdiff.bench.run import BenchReport
from latentdiff.bench.speed import Speed
from latentdiff.types import JSON

Row = Sequence[str]

PARTS = {"step": "UNet, one step", "decode": "decoder", "total": "a whole call"}
CONDITIONS = {
    "text-to-image": "text encoder, keys of the context",
    "layout-to-image": "layout encoder, keys of the context",
    "class-to-image": "class embedder, keys of the context",
}
"""What is computed once a call, by task."""


def as_json(report: BenchReport) -> JSON:
    """The report as a JSON object: `facts`, `speed`, `against`, `quality`; the last two may be null."""
    quality = report.quality
    return {
        "facts": dict(report.facts),
        "speed": {**asdict(report.speed), "shares_of_peak": report.speed.shares()},
        "against": None if report.against is None else asdict(report.against),
        "quality": None
        if quality is None
        else {
            **asdict(quality),
            "fewest_steps": None
            if quality.target is None
            else {solver: None if cell is None else cell.steps for solver, cell in quality.fewest().items()},
        },
    }


def as_lines(report: BenchReport) -> Iterator[str]:
    """The report for a terminal."""
    for rows in _tables(report):
        yield from _aligned(rows)
        yield ""
    yield from _sentences(report)


def as_markdown(report: BenchReport) -> str:
    """The report as tables in Markdown, with what was measured below them."""
    lines: list[str] = []
    for head, *rows in _tables(report):
        lines += [_markdown_row(head), _markdown_row(["---"] * len(head)), *map(_markdown_row, rows), ""]
    facts = [f"- {name.replace('_', ' ')}: {value}" for name, value in report.facts.items() if value is not None]
    return "\n".join([*lines, *(f"- {sentence}" for sentence in _sentences(report)), *facts, ""])


def _tables(report: BenchReport) -> Iterator[list[Row]]:
    """The tables, each with its head."""
    yield _speed_rows(report)
    yield _flops_rows(report.speed, CONDITIONS.get(str(report.facts["task"]), "condition"))
    if report.against is not None:
        yield _against_rows(report.against)
    if report.quality is not None:
        yield _matrix(report.quality, report.quality.metric, lambda cell: f"{cell.distance:.5g}")
        yield _matrix(report.quality, "samples a second", lambda cell: f"{cell.samples_per_second:.4g}")


def _speed_rows(report: BenchReport) -> list[Row]:
    speed, facts = report.speed, report.facts
    load = [] if speed.load_seconds is None else [("loading the model", f"{speed.load_seconds:.3g} s")]
    return [
        (f"{facts['model']}, {facts['size']}, {facts['solver']} {facts['steps']} steps, {facts['dtype']}", "measured"),
        *load,
        ("first image after loading", f"{speed.first_image_seconds:.3g} s"),
        ("one image later on", f"{speed.image_seconds:.3g} s"),
        (f"samples a second, {speed.batch_size} at once", f"{speed.samples_per_second:.4g}"),
        (f"steps a second of {speed.batch_size} at once", f"{speed.steps_per_second:.4g}"),
        (f"peak memory, {speed.memory_source}", f"{speed.peak_memory / 2**20:,.0f} MiB"),
        ("weights", f"{speed.weights / 2**20:,.1f} MiB"),
    ]


def _flops_rows(speed: Speed, condition: str) -> list[Row]:
    shares, flops, seconds = speed.shares(), speed.operations(), asdict(speed.phases)
    head = ("component", "GFLOP an image", f"ms, {speed.batch_size} at once", "share of the peak")
    return [
        head,
        *(
            (
                words,
                f"{flops[part] / 1e9:.4g}",
                f"{1000 * seconds[part]:.3g}",
                f"{100 * shares[part]:.1f} %" if part in shares else "too short",
            )
            for part, words in {"condition": condition, **PARTS}.items()
        ),
    ]


def _against_rows(against: Against) -> list[Row]:
    start = ", from text embeddings" if against.from_embeddings else ""
    call = f"{against.batch_size} images, ddim {against.steps} steps{start}, median of {against.rounds}"
    return [
        (call, "seconds", "samples a second"),
        ("latentdiff", f"{against.ours:.4g}", f"{against.batch_size / against.ours:.4g}"),
        (
            f"diffusers {against.diffusers}, {against.pipeline}",
            f"{against.theirs:.4g}",
            f"{against.batch_size / against.theirs:.4g}",
        ),
        ("diffusers / latentdiff, median of the rounds", f"{against.ratio:.3f}", ""),
    ]


def _matrix(quality: Quality, title: str, value: Callable[[Cell], str]) -> list[Row]:
    """A row for each solver, a column for each number of steps."""
    steps = sorted({cell.steps for cell in quality.cells})
    cells = {(cell.solver, cell.steps): cell for cell in quality.cells}
    solvers = list(dict.fromkeys(cell.solver for cell in quality.cells))
    head = (title, *(f"{number} steps" for number in steps))
    return [head, *((solver, *(value(cells[solver, number]) for number in steps)) for solver in solvers)]


def _sentences(report: BenchReport) -> Iterator[str]:
    speed, peak = report.speed, report.speed.peak
    yield (
        f"the machine's peak is {peak.best / 1e9:,.4g} GFLOP/s in {peak.dtype}: square matrices "
        f"{peak.matmul / 1e9:,.4g}, 3x3 convolutions {peak.convolution / 1e9:,.4g}"
    )
    yield f"speeds are medians of {speed.rounds} calls" if speed.rounds > 1 else "speeds are those of a single call"
    if report.against is not None:
        yield f"the images of latentdiff and diffusers differ by at most {report.against.difference:.1e} of white"
    if report.quality is not None:
        yield from _quality_sentences(report.quality)


def _quality_sentences(quality: Quality) -> Iterator[str]:
    several = {cell.solver: cell for cell in quality.cells if cell.network_calls != cell.steps}
    for solver, cell in several.items():
        yield f"{solver} calls the network {cell.network_calls} times in {cell.steps} steps"
    target = quality.target
    if target is not None:
        fewest = quality.fewest()
        reached = [f"{cell.solver} {cell.steps} ({cell.distance:.5g})" for cell in fewest.values() if cell is not None]
        missed = [solver for solver, cell in fewest.items() if cell is None]
        rest = f"; not by {', '.join(missed)} in these steps" if missed else ""
        yield (
            f"{target.solver} has {target.distance:.5g} at {target.steps} steps ({target.samples_per_second:.4g} "
            f"samples a second); the fewest steps that reach it: {', '.join(reached) or 'none'}{rest}"
        )
    if quality.notes:
        others = len(quality.notes) - 1
        yield quality.notes[0] + (f" (and {others} more distances alike)" if others else "")


def _aligned(rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *rest in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([f"{first:{widths[0]}}", *cells]).rstrip()


def _markdown_row(cells: Row) -> str:
    return f"| {' | '.join(cells)} |"
