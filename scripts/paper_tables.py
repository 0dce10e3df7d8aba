"""The paper's tables (arXiv 2112.10752) with the models that you have: `python scripts/paper_tables.py MAP.yaml`.

The map says where models and data are, both by the names in `ROWS`; rows of which one is missing are left out:

    models: {celeba256: models/celeba256, kl-f8: models/kl-f8}
    data: {celebahq_train: data/celebahq, imagenet_val: data/imagenet/val}
    options: {cin256-v2: [--steps, 100]}  # more words for the command that makes a model's images
    paper: {celeba256: {fid: NUMBER}}  # what stands beside our numbers, as you read it in the paper

Each row runs the commands that stand in `ROWS`, under --output, and is continued there if it was interrupted. Printed
is a table in Markdown with the names of our numbers, which say their protocols; "-" is what the map does not have.
Table 4 (people's preferences) and table 6 (speed of training) are none of images. `--count` and `--features` are for
trials, whose numbers are others and are named so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter

import yaml

from latentdiff.cli.main import EXIT_INTERRUPTED, main
from latentdiff.errors import InputError, LatentDiffError, one_line
from latentdiff.evaluation.protocols import PRESETS
from latentdiff.evaluation.reports import write_text
from latentdiff.registry import nearest

OTHERWISE = {"fid": "frechet", "sfid": "frechet_spatial", "rfid": "rfrechet"}
"""What distances are called that are not of the published Inception's features."""

PARTS = ("models", "data", "options", "paper")


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        tables: The table, and others that have the same row.
        model: The model, by the name of its recipe in recipes/paper.
        preset: The protocol.
        evaluate: The command that measures it, without the preset; `{model}`, `{out}` and names of data are filled in.
        make: The command that makes its images, where evaluate doesn't.
        sampling: How its images are made, where the authors' README says it.
    """

    tables: str
    model: str
    preset: str
    evaluate: str
    make: str = ""
    sampling: Sequence[str] = field(default=())

    @property
    def data(self) -> list[str]:
        """The names of the data that it needs."""
        names = [name for _, name, _, _ in Formatter().parse(f"{self.make} {self.evaluate}") if name]
        return [name for name in dict.fromkeys(names) if name not in ("model", "out")]


def _samples(tables: str, model: str, preset: str, data: str, sampling: str = "") -> Row:
    evaluate = f"evaluate samples {{model}} {{{data}}} --samples-dir {{out}}/samples"
    return Row(tables, model, preset, evaluate, sampling=shlex.split(sampling))


ROWS: Sequence[Row] = (
    _samples("1", "celeba256", "unconditional", "celebahq_train", "--steps 200 --eta 0"),
    _samples("1", "ffhq256", "unconditional", "ffhq_train", "--steps 200 --eta 1"),
    _samples(
        "1",
        "lsun_churches256",
        "unconditional",
        "lsun_churches_train",
        "--steps 400 --eta 0 --timestep-spacing original",  # in the original's code, these are 500 steps
    ),
    _samples("1", "lsun_beds256", "unconditional", "lsun_bedrooms_train", "--steps 200 --eta 1"),
    _samples("2", "text2img256", "text-to-image", "coco_captions_val", "--steps 100 --eta 0"),
    _samples("2", "txt2img-1p4B", "text-to-image", "coco_captions_val"),
    _samples("3, 10", "cin256", "class-conditional", "imagenet_train", "--steps 200 --eta 1"),
    _samples("3, 10", "cin256-v2", "class-conditional", "imagenet_train"),
    Row(
        "5, 11",
        "bsr_sr",
        "super-resolution",
        "evaluate pairs {out}/images {imagenet_val}",
        make="upscale {imagenet_val_small} --model {model} --seed 0 -o {out}/images",
    ),
    Row(
        "7",
        "inpainting_big",
        "inpainting",
        "evaluate pairs {out}/images {places_test} --masks {places_test_masks}",
        make="inpaint {places_test} --mask {places_test_masks} --model {model} --seed 0 -o {out}/images",
    ),
    *(
        Row("8", model, "first-stage", "evaluate first-stage {model} {imagenet_val} -o {out}/images")
        for model in (
            "vq-f4",
            "vq-f4-noattn",
            "vq-f8",
            "vq-f8-n256",
            "vq-f16",
            "kl-f4",
            "kl-f8",
            "kl-f16",
            "kl-f32",
        )
    ),
    _samples("9", "layout2img-coco256", "layout", "coco_layouts_val"),
    _samples("9", "layout2img-openimages256", "layout", "openimages_layouts_val", "--steps 200 --eta 0"),
)
"""Rows of tables 1 to 11 for which there is a model. COCO's and Open Images' data are recipes with `annotations`."""


def read_map(path: Path) -> dict[str, dict[str, object]]:
    """The parts of the map, of names that there are.

    Raises:
        InputError: If it can't be read, or has other names.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}); give a YAML file") from None
    if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
        raise InputError(f"{path} must hold mappings called {', '.join(PARTS)}")
    models, data = [row.model for row in ROWS], [name for row in ROWS for name in row.data]
    known = {"models": models, "data": data, "options": models, "paper": models}
    for part, values in content.items():
        if part not in known:
            raise InputError(f"{path} has {part!r}; {nearest(str(part), PARTS)}")
        for name in values:
            if name not in known[part]:
                raise InputError(f"{path} has {name!r} in {part}; {nearest(str(name), known[part])}")
    return {part: content.get(part, {}) for part in PARTS}


def commands_of(row: Row, places: Mapping[str, str], more: Sequence[str], trial: argparse.Namespace) -> list[list[str]]:
    """The commands of a row as words.

    Args:
        row: The row.
        places: Where its model, its data and its results are.
        more: Words of the user for the command that makes images.
        trial: The options of the script.
    """
    evaluate, make = ([word.format_map(places) for word in shlex.split(line)] for line in (row.evaluate, row.make))
    making = [*row.sampling, *map(str, more)]
    preset = PRESETS[row.preset]
    if trial.count is None and trial.features is None and not trial.leave_out:
        evaluate += ["--preset", row.preset]
    else:
        metrics = [name for name in preset.metrics if name not in trial.leave_out]
        if trial.features not in (None, "inception"):
            metrics = [OTHERWISE.get(name, name) for name in metrics]
        evaluate += ["--metrics", *metrics, *(["--features", trial.features] if trial.features else [])]
        count = preset.count if trial.count is None else trial.count
        evaluate += ["--count", str(count)] if count is not None and preset.evaluates != "pairs" else []
    evaluate += ["--json", f"{places['out']}/report.json"]
    evaluate += [
        word for name in ("cache", "device") if (value := getattr(trial, name)) for word in (f"--{name}", value)
    ]
    make += ["--device", trial.device] if make and trial.device else []
    return [[*make, *making], evaluate] if make else [[*evaluate, *making]]


def run_row(row: Row, found: Mapping[str, Mapping[str, object]], options: argparse.Namespace) -> tuple[int, list[str]]:
    """Run a row; the exit code of its first command that failed or 0, and its lines of the table."""
    missing = [f"no model {row.model}"] * (row.model not in found["models"])
    missing += [f"no data {name}" for name in row.data if name not in found["data"]]
    if missing:
        return 0, [f"| {row.tables} | {row.model} | left out: {', '.join(missing)} | | |"]
    out = Path(options.output) / row.model
    places = {name: str(found["data"][name]) for name in row.data}
    places |= {"model": str(found["models"][row.model]), "out": str(out)}
    more = found["options"].get(row.model, [])
    out.mkdir(parents=True, exist_ok=True)
    for words in commands_of(row, places, more if isinstance(more, list) else [str(more)], options):
        print(f"$ {shlex.join(['latentdiff', *words])}", file=sys.stderr)
        with contextlib.redirect_stdout(sys.stderr):  # the table alone is printed
            code = main(words)
        if code:
            return code, [f"| {row.tables} | {row.model} | failed, see above | | |"]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    paper = found["paper"].get(row.model, {})
    return 0, [
        f"| {row.tables} | {row.model} | {result['name']} | {result['value']:.6g} | "
        f"{paper.get(result['metric'], '-') if isinstance(paper, dict) else paper} |"
        for result in report["results"]
    ]


def run(argv: Sequence[str] | None = None) -> int:
    """Run the rows; the exit code is that of the last command that failed, or 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("map", type=Path, help="a YAML file that says where models and data are")
    parser.add_argument("--output", default="paper-tables", help="folder for images and reports")
    parser.add_argument("--tables", nargs="*", help="the tables whose rows are run, such as 1 8 (default: all)")
    parser.add_argument("--markdown", help="write the table to this file, too")
    parser.add_argument("--device", help="as for latentdiff evaluate")
    parser.add_argument("--cache", help="as for latentdiff evaluate")
    parser.add_argument("--count", type=int, help="for a trial: samples or reconstructions of each row")
    parser.add_argument("--features", help="for a trial: other features than the published Inception's")
    parser.add_argument("--leave-out", nargs="*", default=[], help="for a trial: metrics that aren't computed")
    options = parser.parse_args(argv)
    try:
        found = read_map(options.map)
    except LatentDiffError as error:
        print(f"paper_tables: error: {error}", file=sys.stderr)
        return 2
    lines, code = ["| table | model | metric | ours | paper |", "|---|---|---|---|---|"], 0
    for row in ROWS:
        if options.tables and not set(options.tables) & set(row.tables.split(", ")):
            continue
        failed, added = run_row(row, found, options)
        if failed == EXIT_INTERRUPTED:
            return failed
        code, lines = failed or code, lines + added
    print("\n".join(lines))
    if options.markdown is not None:
        write_text(options.markdown, "\n".join([*lines, ""]))
    return code


if __name__ == "__main__":
    sys.exit(run())
