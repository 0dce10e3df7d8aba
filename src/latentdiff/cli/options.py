"""Options that commands share, each defined once: the model, sampling, guidance, windows, output."""

from __future__ import annotations

import argparse
import re
from typing import Any

from latentdiff.cli.batch.plan import DEFAULT_FOLDER, MAX_PIXELS
from latentdiff.cli.parser import Parser, number, registered_scheduler, whole_number
from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS
from latentdiff.tasks import NUM_INFERENCE_STEPS

GUIDANCE_OPTIONS = ("guidance_scale", "guidance_interval", "guidance_rescale", "negative_prompt")


def add_model_options(parser: Parser, default: str | None) -> None:
    """Which model, in what precision, where; without a default the model must be given."""
    add = parser.add_argument_group("model").add_argument
    text = "builtin:NAME, a folder, or a hub id owner/name"
    add("--model", default=default, required=default is None, help=f"{text} (default: {default})" if default else text)
    add("--revision", help="branch, tag or commit of a hub model")
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="precision of the networks: float32, bfloat16 or float16 (default: %(default)s)",
        metavar="DTYPE",
    )
    add("--device", help="such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one)")


def add_sampling_options(parser: Parser, *, per: str, seed: str | None, size: bool) -> Any:
    """Seeds, solver and windows; returns the group.

    Args:
        parser: Of the command.
        per: What has images of its own for each seed, such as "prompt".
        seed: The default; None for a random one.
        size: Whether the size of the result can be chosen.
    """
    group = parser.add_argument_group("sampling")
    add = group.add_argument
    each = f"of each {per} " if per else ""
    add(
        "--seed",
        default=seed,
        metavar="SEED",
        help=f'"7", or "0-7" for one image {each}per seed (default: {seed or "random"})',
    )
    help_text = f"images{f' per {per}' if per else ''}, of seeds SEED to SEED+N-1"
    add("-n", "--num-images", type=whole_number(1), metavar="N", help=help_text)
    add(
        "--steps",
        type=whole_number(1),
        default=NUM_INFERENCE_STEPS,
        metavar="N",
        help="steps of the solver (default: %(default)s)",
    )
    add(
        "--scheduler",
        type=registered_scheduler,
        metavar="NAME",
        help=f"the solver (default: the model's own): {', '.join(SCHEDULERS.names())}",
    )
    add("--eta", type=number(0, 1), default=0.0, metavar="ETA", help="share of fresh noise in a DDIM step, 0 to 1")
    if size:
        add("--size", type=_size, metavar="SIZE", help='in pixels, "64" or "WIDTHxHEIGHT" (default: the model\'s own)')
    add(
        "--batch-size",
        type=whole_number(1),
        default=8,
        metavar="N",
        help="images computed at once; bounds the memory (default: %(default)s)",
    )
    add(
        "--window",
        type=whole_number(1),
        metavar="SIZE",
        help="see large images in overlapped windows of SIZE pixels, best the size that the model was trained on",
    )
    add("--window-overlap", type=whole_number(0), metavar="N", help="pixels that windows share (default: a quarter)")
    add("--wrap", action="store_true", help="join the left and right edges, as in a panorama; needs --window")
    return group


def add_guidance_options(parser: Parser, default: str, *, negative_prompt: bool = False) -> None:
    """Classifier-free guidance; `default` is the text about the default scale."""
    add = parser.add_argument_group("guidance").add_argument
    add(
        "--guidance-scale",
        type=number(),
        metavar="SCALE",
        help=f"strength of classifier-free guidance, 1 is none (default: {default})",
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
    if negative_prompt:
        add("--negative-prompt", metavar="TEXT", help="what to lead away from")


def add_output_options(parser: Parser, names: str, *, grid: str | None = None) -> None:
    """Where images go; `names` tells how files in a folder are called, `grid` what a grid shows if there can be one."""
    add = parser.add_argument_group("output").add_argument
    single = "one image or a grid" if grid else "one image"
    add(
        "-o",
        "--output",
        metavar="PATH",
        help=f"a .png file for {single}, else a folder for files {names}, in which what exists is kept "
        f"(default: NAME-seedSEED.png for one image, the folder {DEFAULT_FOLDER}/ for several)",
    )
    if grid:
        add("--grid", action="store_true", help=f"write one image: {grid}")
    add("--overwrite", action="store_true", help="make and replace files that exist")
    add("--quiet", action="store_true", help="print nothing but errors")


def check_sampling_flags(args: argparse.Namespace) -> None:
    """InputError for options that contradict each other, as far as that can be told without the model."""
    given = [name for name in GUIDANCE_OPTIONS[1:] if getattr(args, name, None) is not None]
    if getattr(args, "guidance_scale", None) == 1 and given:
        raise InputError(f"{flag(given[0])} has no effect at --guidance-scale 1; drop one of them")
    start, end = getattr(args, "guidance_interval", None) or (0, 1)
    if start >= end:
        raise InputError(f"--guidance-interval is {start} {end}; it must start before it ends")
    if args.window is None:
        unused = [name for name in ("window_overlap", "wrap") if getattr(args, name) not in (None, False)]
        if unused:
            raise InputError(f"{flag(unused[0])} is given without --window SIZE; give both or none")
    elif args.window_overlap is not None and args.window_overlap > args.window // 2:
        raise InputError(
            f"--window-overlap is {args.window_overlap}; it must be at most half of --window, {args.window // 2}"
        )


def flag(name: str) -> str:
    """The option as it is typed."""
    return f"--{name.replace('_', '-')}"


def _size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" or one number for both, as (width, height)."""
    match = re.fullmatch(r"([0-9]{1,5})(?:x([0-9]{1,5}))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < width * height <= MAX_PIXELS:
        raise argparse.ArgumentTypeError(f"{text!r} is given; it must be like 64 or 96x64, {MAX_PIXELS} pixels at most")
    return width, height
