"""Benchmarks: `python -m benchmarks [CASE ...] [--quick] [OPTION ...]`.

Without a case, one table: a step of the UNet, decoding, loading, the first image, training. Cases of these that are
named, and `samples`, make one table, too. The others are studies with a text and options of their own:
`python -m benchmarks CASE --help`. --list prints all.
"""

from __future__ import annotations

import ast
import importlib
import sys
import time
from pathlib import Path

TABLE = {
    "step": "step",
    "decode": "decode",
    "loading": "loading",
    "first-image": "first_image",
    "training": "training",
    "samples": "samples",
}
"""Cases of the table, and their modules."""

DEFAULT = ("step", "decode", "loading", "first-image", "training")

STUDIES = {
    "call": "call",
    "caching": "caching",
    "conversion": "conversion",
    "encoding": "encoding",
    "evaluation": "evaluation",
    "gpu": "gpu",
    "help": "help",
    "int8": "int8",
    "masks": "mask_coverage",
    "presets": "presets",
    "previews": "previews",
    "savings": "savings",
    "scheduler-order": "scheduler_order",
    "seams": "seams",
    "tasks": "tasks",
    "threads": "threads",
    "tuned-steps": "tuned_steps",
    "views": "views",
}
"""Cases with options and output of their own, and their modules, whose `main` takes the options."""


def summary(module: str) -> str:
    """The first line of a module's text; the module, and with it torch, isn't imported."""
    path = Path(__file__).with_name(f"{module}.py")
    return str(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))).splitlines()[0]


def main(words: list[str]) -> None:
    """Run the cases that are named; the table's own by default. A study's name may be followed by what it takes."""
    known, study_first = TABLE | STUDIES, bool(words) and words[0] in STUDIES
    ends = (n for n, word in enumerate(words) if word.startswith("-") or (study_first and word not in known))
    count = next(ends, len(words))
    names, options = words[:count], words[count:]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"there is no benchmark {unknown[0]!r}; known: {', '.join(known)}")
    if "--list" in options:
        for name, module in known.items():
            print(f"{name:16} {summary(module)}")
        return
    studies = [name for name in names if name in STUDIES]
    if studies and len(names) > 1:
        raise SystemExit(f"{studies[0]} has options and output of its own; name it alone")
    if studies:
        from latentdiff.cli.console import quiet_libraries

        with quiet_libraries(quiet=True):
            study = importlib.import_module(f"benchmarks.{STUDIES[studies[0]]}")
        study.main(options)
    else:
        table(names or list(DEFAULT), options)


def table(names: list[str], words: list[str]) -> None:
    """Print the table of some cases, and write it as JSON."""
    import torch

    from benchmarks.measuring import CLOCKS, ROOT, Report, Row, Settings, machine, parser_of
    from benchmarks.models import SIZES
    from benchmarks.step import SIDES
    from latentdiff.cli.console import quiet_libraries
    from latentdiff.errors import one_line

    with quiet_libraries(quiet=True):
        modules = {name: importlib.import_module(f"benchmarks.{TABLE[name]}") for name in names}
    text = [__doc__, *(f"{name}: {module.__doc__}" for name, module in modules.items())]
    parser = parser_of("\n".join(text))
    parser.prog = "python -m benchmarks"
    parser.add_argument("--list", action="store_true", help="print all cases")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and what takes seconds")
    parser.add_argument("--rounds", type=int, help="turns of each side (default: 7, with --quick 3)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[], help="(default: all, with --quick small ones)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4], help="images at once (default: 1 4)")
    parser.add_argument("--sides", nargs="+", default=[], help=f"sides of step and decode, such as {', '.join(SIDES)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--mixed-precision", choices=["no", "bf16", "fp16"], default="no", help="of training")
    parser.add_argument("--latents", type=int, help="latent pixels a side, of decode")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--against", metavar="COMMIT", help="another commit, of loading and first-image")
    beside = ROOT.parent / "latent-diffusion"
    parser.add_argument("--original", type=Path, default=beside, help="the original code (default: beside this folder)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="(default: benchmarks-DATE-TIME.json)")
    given = parser.parse_args(words)
    for name, value in (("rounds", given.rounds), ("latents", given.latents), ("batches", min(given.batches))):
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; it must be 1 or more")
    settings = Settings(
        quick=given.quick,
        rounds=given.rounds or (3 if given.quick else 7),
        device=torch.device(given.device),
        dtype=getattr(torch, given.dtype),
        sizes=tuple(given.sizes),
        batches=tuple(given.batches),
        sides=tuple(given.sides),
        clock=given.clock,
        against=given.against,
        original=given.original,
        latents=given.latents,
        mixed_precision=given.mixed_precision,
    )
    if settings.device.type != "cpu":
        torch.empty(0, device=settings.device)  # says at once that there is no such device
    path = given.json or Path(time.strftime("benchmarks-%Y%m%d-%H%M%S.json"))
    command = " ".join(["python -m benchmarks", *names, *words])
    facts = {"command": command, **machine(settings.device), "clock": settings.clock, "rounds": settings.rounds}
    began, report, failed = time.perf_counter(), Report(path, facts), False
    for name, module in modules.items():
        try:
            with quiet_libraries(quiet=True):
                for row in module.rows(settings):
                    report.add(row)
        except Exception as error:  # the other cases are measured nevertheless
            failed = True
            report.add(Row(name, "", "all", note=f"failed: {one_line(error)}"))
    print(f"\n{time.perf_counter() - began:.0f} s; also in {path}")
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
