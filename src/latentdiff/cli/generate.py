"""`latentdiff generate`: images of prompts."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from latentdiff.cli import console
from latentdiff.cli.parser import Parser, number, scheduler_name, whole_number
from latentdiff.cli.plan import DEFAULT_FOLDER, DEFAULT_GUIDANCE_SCALE, MAX_PIXELS, Plan, make_plan
from latentdiff.registry import SCHEDULERS

DEFAULT_MODEL = "builtin:emoji"

DESCRIPTION = """Make images of prompts and write them as PNG files, which carry the parameters of their generation
(`latentdiff info IMAGE.png` shows them). Each image depends on its prompt, its seed and the options alone."""


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser: Parser = commands.add_parser("generate", help="make images of prompts", description=DESCRIPTION)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("prompt", nargs="*", metavar="PROMPT", help="what to show; none for an unconditional model")
    parser.add_argument(
        "--prompts", metavar="FILE", help="read prompts from a UTF-8 file, one a line; # begins a comment"
    )
    _add_model_options(parser.add_argument_group("model"))
    _add_sampling_options(parser.add_argument_group("sampling"))
    _add_output_options(parser.add_argument_group("output"))


def _add_model_options(group: Any) -> None:
    group.add_argument(
        "--model", default=DEFAULT_MODEL, help="builtin:NAME, a folder, or a hub id owner/name (default: %(default)s)"
    )
    group.add_argument("--revision", help="branch, tag or commit of a hub model")
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="precision of the networks: float32, bfloat16 or float16 (default: %(default)s)",
        metavar="DTYPE",
    )
    group.add_argument("--device", help="such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one)")


def _add_sampling_options(group: Any) -> None:
    add = group.add_argument
    add("--seed", metavar="SEED", help='"7", or "0-7" for one image of each prompt per seed (default: random)')
    add("-n", "--num-images", type=whole_number(1), metavar="N", help="images per prompt, of seeds SEED to SEED+N-1")
    add("--steps", type=whole_number(1), default=25, metavar="N", help="steps of the solver (default: %(default)s)")
    add(
        "--scheduler",
        type=scheduler_name,
        metavar="NAME",
        help=f"the solver (default: the model's own): {', '.join(SCHEDULERS.names())}",
    )
    add("--eta", type=number(0, 1), default=0.0, metavar="ETA", help="share of fresh noise in a DDIM step, 0 to 1")
    add(
        "--guidance-scale",
        type=number(),
        metavar="SCALE",
        help=f"strength of classifier-free guidance, 1 is none (default: {DEFAULT_GUIDANCE_SCALE})",
    )
    add(
        "--guidance-interval",
        type=number(0, 1),
        nargs=2,
        metavar=("START", "END"),
        help="part of the steps in which guidance acts, as fractions (default: 0 1)",
    )
    add(
        "--guidance-rescale", type=number(0, 1), metavar="SHARE", help="correction of overexposure, 0 to 1 (default: 0)"
    )
    add("--negative-prompt", metavar="TEXT", help="what to lead away from")
    add("--size", type=_size, metavar="SIZE", help='in pixels, "64" or "WIDTHxHEIGHT" (default: the model\'s own)')
    add(
        "--batch-size",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="images computed at once; bounds the memory (default: %(default)s)",
    )


def _add_output_options(group: Any) -> None:
    group.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="a .png file for one image or a grid, else a folder for files NUMBER-PROMPT-seedSEED.png "
        f"(default: PROMPT-seedSEED.png for one image, the folder {DEFAULT_FOLDER}/ for several)",
    )
    group.add_argument(
        "--grid", action="store_true", help="write one image: a row for each prompt, a column for each seed"
    )
    group.add_argument("--overwrite", action="store_true", help="replace files that exist")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" or one number for both, as (width, height)."""
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < width * height <= MAX_PIXELS:
        raise argparse.ArgumentTypeError(f"{text!r} is given; it must be like 64 or 96x64, {MAX_PIXELS} pixels at most")
    return width, height


def run(args: argparse.Namespace) -> None:
    """Make and write the images; everything that can be checked is checked before the model is loaded."""
    with console.calm(args.quiet):
        plan = make_plan(args)
        for line in write_images(plan, args):
            if not args.quiet:
                console.say(line)


def write_images(plan: Plan, args: argparse.Namespace) -> Iterator[str]:
    """Load the model, compute batch by batch, write; yields a line for each file written."""
    from latentdiff.cli.sampler import Sampler
    from latentdiff.io.png import write_png
    from latentdiff.viz.grid import image_grid

    sampler = Sampler(plan, args)
    cells = []
    for start in range(0, len(plan.jobs), args.batch_size):
        batch = plan.jobs[start : start + args.batch_size]
        for job, image in zip(batch, sampler.images(batch), strict=True):
            if job.path is None:
                cells.append(image)
            else:
                write_png(image, job.path, sampler.parameters(image, [job.prompt], job.seed))
                yield f"{job.path}\tseed {job.seed}"
    if plan.grid is not None:
        parameters = sampler.parameters(cells[0], plan.prompts, plan.seed_text)
        write_png(image_grid(cells, columns=len(plan.seeds)), plan.grid, {**parameters, "grid": True})
        yield f"{plan.grid}\tseed {plan.seed_text}"
