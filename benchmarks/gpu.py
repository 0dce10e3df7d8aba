"""What a GPU can show, in under 8 minutes: `python -m benchmarks gpu --output FOLDER [--device cuda] [--quick]`.

It needs the package, from a wheel, with the extra `training`, pytest, and the folders tests/ and benchmarks/. The parts
run one after the other, each in a process of its own that is ended when its time is up, so that a slow one doesn't take
the others' time; what a part has measured until then counts. FOLDER gets results.json and results.md, which are written
anew after every part, and what each part printed. `--device cpu --quick` rehearses all of it on a CPU.

- tests: `pytest -m gpu`, which a rehearsal only collects
- step and decode at bfloat16 and float16: as they are, with CUDA graphs alone, and compiled; peak memory
- samples: LDM-4-G's shape at 250 and 25 steps, in samples a second
- training: images a second of both stages, in fp16 and bf16, beside a plain torch loop
- resume: whether a run that was interrupted ends with the weights of one that wasn't
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measuring import HEAD, ROOT, Row, Spread, machine, markdown_row, parser_of, write_whole

LIMIT = 470  # seconds of all parts together
LAST_LINES = 3  # of a failed part, that are told


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        name: What it is called.
        seconds: How long it may take.
        words: What Python is given.
        table: Whether it is a benchmark, which writes JSON.
    """

    name: str
    seconds: int
    words: tuple[str, ...]
    table: bool = True


def parts(device: str, quick: bool) -> Iterator[Part]:
    """All parts, the most telling ones first."""
    on_cpu = device == "cpu"
    options = ("--device", device, *(["--quick"] if quick else []))
    dtypes = ("bfloat16",) if on_cpu else ("bfloat16", "float16")
    precisions = ("bf16",) if on_cpu else ("bf16", "fp16")

    def case(name: str, seconds: int, *words: str) -> Part:
        what = "-".join([name, *(word for word in words if word in (*dtypes, *precisions, "compiled"))])
        return Part(what, seconds, ("-m", "benchmarks", name, *options, *words))

    how = ("--collect-only",) if on_cpu else ()  # without a GPU there is nothing that they could run on
    words = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *how, "tests")
    yield Part("tests", 60, words, table=False)
    eager = ("--sides", "latentdiff eager", "diffusers eager", "latentdiff graphs", "diffusers graphs")
    for dtype in dtypes:
        yield case("step", 50, "--dtype", dtype, "--rounds", "5", *eager)
    yield case("samples", 50, "--dtype", dtypes[0], "--rounds", "1")
    for precision in precisions:
        yield case("training", 40, "--mixed-precision", precision, "--rounds", "2")
    yield Part("resume", 40, ("-m", "benchmarks.resume", device))
    small = ("--sizes", "builtin", "--batches", "1", "--rounds", "5")
    sides = ("--sides", "latentdiff eager", "diffusers eager", "latentdiff compiled", "diffusers compiled")
    yield Part("step-compiled", 80, ("-m", "benchmarks", "step", *options, "--dtype", dtypes[0], *small, *sides))
    for dtype in dtypes:
        yield case("decode", 25, "--dtype", dtype, "--rounds", "3", "--sides", "latentdiff eager", "diffusers eager")


def run(part: Part, folder: Path, seconds: float) -> tuple[list[Row], str]:
    """Run a part for at most so many seconds: what it measured, and how it ended."""
    file = folder / f"{part.name}.json"
    words = [*part.words, *(["--json", str(file)] if part.table or part.name == "resume" else [])]
    start = time.perf_counter()
    with (folder / f"{part.name}.txt").open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, stdout=printed, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(timeout=seconds)
            ended = "done" if code == 0 else f"ended with {code}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own processes, too
            process.wait()
            ended = f"ended after its {seconds:.0f} s"
    lines = (folder / f"{part.name}.txt").read_text(encoding="utf-8").splitlines()
    told = " / ".join(lines[-1:] if ended == "done" and part.table else lines[-LAST_LINES:])
    rows = [row_of(entry) for entry in json.loads(file.read_text(encoding="utf-8"))["rows"]] if file.exists() else []
    return rows, f"{ended}, {time.perf_counter() - start:.0f} s: {told}"


def row_of(entry: Mapping[str, object]) -> Row:
    """A row as it was written."""
    spreads = {name: Spread(**entry[name]) for name in ("seconds", "ratio") if entry[name] is not None}
    return Row(**{**entry, **spreads})


def main(words: Sequence[str]) -> None:
    """Run all parts."""
    parser = parser_of(__doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small models only")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of all parts (default: %(default)s)")
    args = parser.parse_args(words)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA here; --device cpu --quick rehearses the run")
    args.output.mkdir(parents=True, exist_ok=True)
    if any(args.output.iterdir()):
        raise SystemExit(f"{args.output} isn't empty; give another --output")
    facts, began = machine(torch.device(args.device)), time.perf_counter()
    rows: dict[str, list[Row]] = {}
    ends: dict[str, str] = {}
    for part in parts(args.device, args.quick):
        left = args.limit - (time.perf_counter() - began)
        if left < 1:
            ends[part.name] = "not begun, as the time was up"
        else:
            rows[part.name], ends[part.name] = run(part, args.output, min(part.seconds, left))
        print(f"{part.name}: {ends[part.name]}", flush=True)
        write(args.output, facts, rows, ends)
    print(f"{time.perf_counter() - began:.0f} s; the results are in {args.output / 'results.md'}")


def write(
    folder: Path, facts: Mapping[str, object], rows: Mapping[str, Sequence[Row]], ends: Mapping[str, str]
) -> None:
    """Write what there is so far, as JSON and as Markdown."""
    told = {name: [vars(row) for row in found] for name, found in rows.items()}
    content = {"facts": facts, "parts": ends, "rows": told}
    text = json.dumps(content, indent=2, default=vars)
    write_whole(folder / "results.json", text + "\n")
    table = [markdown_row(HEAD), markdown_row(["---"] * len(HEAD))]
    table += [markdown_row(row.cells()) for found in rows.values() for row in found]
    lists = [f"- {name}: {value}" for name, value in {**facts, **ends}.items()]
    write_whole(folder / "results.md", "\n".join([*lists, "", *table, ""]))
