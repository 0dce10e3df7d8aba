"""Seconds that loading a model takes, with a warm cache of the file system: this package and diffusers, in turns.

Both load the same folders of plain diffusers, each time in a process of its own in which a first load warms up; with
--against COMMIT the package of that commit takes turns, too, and the built-in model and one of the zoo are loaded as
this package saves them. Weights are random; those of the large models are saved and loaded in float16.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.measuring import CLOCKS, Row, Settings, python, rows_of, source_of
from benchmarks.models import BUILTIN, SIZES, filled, plan_of, stock_network, zoo_pipeline
from latentdiff import DiffusionPipeline
from latentdiff.bench.against import stock_pipeline
from latentdiff.conversion.to_diffusers import stock_scheduler

BEGIN = """
import logging, sys, time, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import torch
"""
TURNS = """
clock = getattr(time, sys.argv[3])
load()
for _ in range(int(sys.argv[2])):
    began = clock()
    load()
    print(clock() - began)
"""
WITHOUT_TEXT = "text_encoder=None, tokenizer=None"
OURS = """
from latentdiff import DiffusionPipeline
def load():
    DiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float16{})
"""
THEIRS = f"""
from diffusers import StableDiffusionPipeline
def load():
    StableDiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float16, {WITHOUT_TEXT}, safety_checker=None,
        feature_extractor=None)
"""
SMALL_LOADS, LARGE_LOADS = 20, 3


def stock_folder(name: str, place: Path) -> Path:
    """A folder of diffusers' `StableDiffusionPipeline` without a text encoder, of the weights of a size."""
    size, path = SIZES[name], place / name
    if size.zoo is None:
        stock_pipeline(DiffusionPipeline.from_pretrained(BUILTIN)).save_pretrained(path)
        return path
    plan = plan_of(size.zoo)
    unet, vae = (filled(plan.parts[part].model).to(torch.float16) for part in ("unet", "vae"))
    pipe = DiffusionPipeline.from_pretrained(BUILTIN)
    StableDiffusionPipeline(
        vae=vae,
        unet=stock_network(unet),
        scheduler=stock_scheduler(pipe.scheduler),
        text_encoder=None,
        tokenizer=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)
    return path


def rows(settings: Settings) -> Iterator[Row]:
    """Measure the folders."""
    with tempfile.TemporaryDirectory() as folder, source_of(settings.against) as sources:
        place = Path(folder)
        for name in ("builtin",) if settings.quick else ("builtin", "sd1"):
            if not settings.sizes or name in settings.sizes:
                path, loads = stock_folder(name, place), SMALL_LOADS if name == "builtin" else LARGE_LOADS
                sides = {side: (OURS.format(f", {WITHOUT_TEXT}"), source) for side, source in sources.items()}
                label = f"{SIZES[name].label}, folder of diffusers"
                yield from in_turns(label, str(path), {**sides, "diffusers": (THEIRS, None)}, loads, settings)
        if settings.against is None:
            return
        ours = {side: (OURS.format(""), source) for side, source in sources.items()}
        yield from in_turns(SIZES["builtin"].label, BUILTIN, ours, SMALL_LOADS, settings)
        if not settings.quick:
            large = place / "large"
            zoo_pipeline("cin256-v2").to("cpu").save_pretrained(large)
            yield from in_turns(SIZES["cin256"].label, str(large), ours, LARGE_LOADS, settings)


def in_turns(
    what: str, model: str, sides: dict[str, tuple[str, Path | None]], loads: int, settings: Settings
) -> Iterator[Row]:
    """The rows of one folder."""
    rounds, clock = 1 if settings.quick else settings.rounds, CLOCKS[settings.clock].__name__
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, (load, source) in sides.items():
            printed = python(BEGIN + load + TURNS, model, str(loads), clock, source=source)
            taken[side] += [float(line) for line in printed.split()]
    base = "diffusers" if "diffusers" in sides else list(sides)[-1]
    yield from rows_of("loading", f"{what}, {rounds} x {loads} loads", taken, base)
