"""What a `generate` command will make, checked as far as that goes without the model."""

from __future__ import annotations

import argparse
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.files import check_writable

MAX_IMAGES = 100_000
MAX_PIXELS = 2**26
DEFAULT_FOLDER = "images"
DEFAULT_GUIDANCE_SCALE = 5.0
GUIDANCE_OPTIONS = ("guidance_scale", "guidance_interval", "guidance_rescale", "negative_prompt")
OTHER_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}


@dataclass(frozen=True)
class Job:
    """One image: its prompt (None for an unconditional model), its seed, and its file unless it goes into a grid."""

    prompt: str | None
    seed: int
    path: Path | None


@dataclass(frozen=True)
class Plan:
    """All images of a command, those of a prompt next to each other.

    Attributes:
        prompts: The prompts, or [None] where none is given.
        seeds: The seeds that each prompt is used with.
        jobs: One for each prompt and seed.
        grid: The file that shows all of them, if they are not written singly.
    """

    prompts: Sequence[str | None]
    seeds: range
    jobs: Sequence[Job]
    grid: Path | None

    @property
    def seed_text(self) -> str:
        """The seeds as --seed takes them."""
        return f"{self.seeds[0]}-{self.seeds[-1]}" if len(self.seeds) > 1 else str(self.seeds[0])


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of the parsed options.

    Raises:
        InputError: If prompts, seeds, guidance options or output path are not valid; nothing has been written.
    """
    _check_guidance(args)
    prompts: Sequence[str | None] = read_prompts(args.prompt, args.prompts) or [None]
    seeds = choose_seeds(args.seed, args.num_images)
    if len(prompts) * (seeds.stop - seeds.start) > MAX_IMAGES:
        raise InputError(f"{len(prompts)} prompts times the seeds are over {MAX_IMAGES} images; split them into runs")
    if args.grid:
        path = Path(args.output or f"{slug(prompts[0])}-seed{seeds.start}-grid.png")
        if path.suffix.lower() != ".png":
            raise InputError(f"--output is {args.output!r}; a grid is one PNG file, give a name that ends in .png")
        jobs = [Job(prompt, seed, None) for prompt in prompts for seed in seeds]
        _check_files([path], args.overwrite)
        return Plan(prompts, seeds, jobs, path)
    paths = _file_names(prompts, seeds, args.output)
    _check_files(paths, args.overwrite)
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    return Plan(prompts, seeds, [Job(*pair, path) for pair, path in zip(pairs, paths, strict=True)], None)


def _check_guidance(args: argparse.Namespace) -> None:
    """InputError for guidance options that contradict each other."""
    given = [name for name in GUIDANCE_OPTIONS[1:] if getattr(args, name) is not None]
    if args.guidance_scale == 1 and given:
        option = given[0].replace("_", "-")
        raise InputError(f"--{option} has no effect at --guidance-scale 1; drop one of them")
    start, end = args.guidance_interval or (0, 1)
    if start >= end:
        raise InputError(f"--guidance-interval is {start} {end}; it must start before it ends")


def read_prompts(given: Sequence[str], file: str | None) -> list[str]:
    """The prompts of the command line, or of a file: one a line, blank lines and lines that begin with # left out."""
    if file is None:
        return list(given)
    if given:
        raise InputError(f"prompt {given[0]!r} and --prompts are both given; give one of them")
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8 text; save it as UTF-8, one prompt a line") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}); give a text file of one prompt a line") from None
    prompts = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not prompts:
        raise InputError(f"{file} holds no prompt; write one a line")
    return prompts


def choose_seeds(text: str | None, num_images: int | None) -> range:
    """The seeds of an int "7", of an inclusive range "0-7", or of `num_images` from a random one on."""
    from latentdiff.seeding import check_seed

    if text is None:
        first = secrets.randbelow(2**32)
        return range(first, first + (num_images or 1))
    match = re.fullmatch(r"([0-9]{1,30})(?:-([0-9]{1,30}))?", text)
    if match is None:
        raise InputError(f"--seed is {text!r}; it must be an integer such as 7 or a range such as 0-7")
    first = check_seed(int(match[1]))
    if match[2] is None:
        return range(first, check_seed(first + (num_images or 1) - 1) + 1)
    if num_images is not None:
        raise InputError(f"--num-images {num_images} and the seeds {text} are both given; give one of them")
    last = check_seed(int(match[2]))
    if last < first:
        raise InputError(f"--seed is {text!r}, which ends before it begins; give the smaller seed first")
    return range(first, last + 1)


def slug(prompt: str | None) -> str:
    """A prompt as part of a file name: its letters and digits, at most 40, in any script."""
    return re.sub(r"[\W_]+", "-", (prompt or "").lower())[:40].strip("-") or "image"


def _file_names(prompts: Sequence[str | None], seeds: range, output: str | None) -> list[Path]:
    single = len(prompts) * len(seeds) == 1
    if output is None and single:
        return [Path(f"{slug(prompts[0])}-seed{seeds.start}.png")]
    folder = Path(output or DEFAULT_FOLDER)
    suffix = folder.suffix.lower()
    if suffix in OTHER_IMAGE_SUFFIXES:
        raise InputError(f"--output is {output!r}; images are written as PNG, give a name that ends in .png")
    if suffix == ".png" and not single:
        raise InputError(
            f"--output is one file, {output}, for {len(prompts) * len(seeds)} images; give a folder or --grid"
        )
    if suffix == ".png":
        return [folder]
    pairs = [(prompt, seed) for prompt in prompts for seed in seeds]
    return [folder / f"{number:05d}-{slug(prompt)}-seed{seed}.png" for number, (prompt, seed) in enumerate(pairs)]


def _check_files(paths: Sequence[Path], overwrite: bool) -> None:
    check_writable(paths[0])
    for path in paths:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; choose another output path")
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already; choose another --output, or allow it with --overwrite")
