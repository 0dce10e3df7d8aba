"""What a command will make, checked as far as that goes without the model."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdiff.bulk import processes
from latentdiff.cli.options import DEFAULT_FOLDER, OutputOptions, SolverOptions
from latentdiff.errors import InputError
from latentdiff.io.files import check_writable
from latentdiff.io.stored import WRITTEN_KINDS

MAX_IMAGES = 100_000
UNWRITTEN_SUFFIXES = {".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".npy"}
ARRAY_SUFFIX = ".npz"
ENDINGS = "give a name that ends in .png, .jpg or .webp"


@dataclass(frozen=True, eq=False)
class Item:
    """One input of a command.

    Attributes:
        name: What outputs are named after: a slug, or the path of an input file in its folder, without suffix.
        source: The input itself: a prompt, a class, a path, ...; an InputError if it could not be read.
        path: The input file, if it is one.
    """

    name: str
    source: object
    path: Path | None = None

    @property
    def file(self) -> str:
        """The input file's path in its folder."""
        return f"{self.name}{self.path.suffix}" if self.path else self.name

    @property
    def label(self) -> str:
        """What messages call it: the file, and the name of the item if the file holds several."""
        return str(self.path) if self.path and Path(self.file).name == self.path.name else f"{self.path}, {self.name}"


@dataclass(frozen=True, eq=False)
class Job:
    """One image: its input, its seed, and its file unless it goes into a grid."""

    item: Item
    seed: int
    path: Path | None


@dataclass(frozen=True)
class BatchPlan:
    """All images of a command, those of an item next to each other.

    Attributes:
        items: The inputs.
        seeds: The seeds that each item is used with.
        jobs: One for each item and seed.
        grid: The file that shows all of them, if they are not written singly.
        folder: Where the files go, in which those that exist are kept; None for a single file.
        array: The `.npz` file that holds all of them, if they are not written singly.
    """

    items: Sequence[Item]
    seeds: range
    jobs: Sequence[Job]
    grid: Path | None = None
    folder: Path | None = None
    array: Path | None = None

    @property
    def seed_text(self) -> str:
        """The seeds as --seed takes them."""
        return f"{self.seeds[0]}-{self.seeds[-1]}" if len(self.seeds) > 1 else str(self.seeds[0])


def make_batch_plan(
    sampling: SolverOptions,
    output_options: OutputOptions,
    items: Sequence[Item],
    file_name: Callable[[int, Item, int, bool], str],
    grid: bool,
    array: bool = False,
) -> BatchPlan:
    """The plan of a command.

    Args:
        sampling: Seeds.
        output_options: Where images go.
        items: Its inputs.
        file_name: The name in a folder of an image, by its number, item and seed, and whether there are several seeds.
        grid: Whether all images go into one.
        array: Whether they may go into one array.

    Raises:
        InputError: If seeds or output path are not valid; nothing has been written.
    """
    output, overwrite, suffix = output_options.output, output_options.overwrite, output_options.suffix()
    seeds = choose_seeds(sampling.seed, sampling.num_images)
    if len(items) * (seeds.stop - seeds.start) > MAX_IMAGES:
        raise InputError(f"{len(items)} inputs times the seeds are over {MAX_IMAGES} images; split them into runs")
    pairs = [(item, seed) for item in items for seed in seeds]
    if grid:
        path = Path(output or f"{items[0].name}-seed{seeds.start}-grid{suffix}")
        if path.suffix.lower() not in WRITTEN_KINDS:
            raise InputError(f"--output is {output!r}; a grid is one image file, {ENDINGS}")
        if processes.count() > 1:
            raise InputError("--grid is given to several processes; let one make it")
        _check_new(path, overwrite)
        _check_preview(output_options, path)
        return BatchPlan(items, seeds, [Job(*pair, None) for pair in pairs], grid=path)
    if output is not None and Path(output).suffix.lower() == ARRAY_SUFFIX:
        return _array_plan(Path(output), output_options, items, seeds, array)
    single = _single_file(output, suffix, pairs)
    if single is not None:
        _check_outputs([single], items)
        _check_new(single, overwrite)
        _check_preview(output_options, single)
        return BatchPlan(items, seeds, [Job(*pairs[0], single)])
    folder = Path(output or DEFAULT_FOLDER)
    names = [file_name(number, *pair, len(seeds) > 1) for number, pair in enumerate(pairs)]
    paths = [folder / f"{name}{suffix}" for name in names]
    _check_outputs(paths, items)
    _check_preview(output_options, folder)
    jobs = [Job(*pair, path) for pair, path in zip(pairs, paths, strict=True)]
    return BatchPlan(items, seeds, jobs, folder=folder)


def choose_seeds(text: str | None, num_images: int | None) -> range:
    """The seeds of an int "7", of an inclusive range "0-7", or of `num_images` from a random one on."""
    from latentdiff.seeding import check_seed

    if text is None:
        if processes.count() > 1:
            raise InputError("--seed is missing; several processes need one to agree on, such as --seed 0")
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


def slug(text: str) -> str:
    """A text as part of a file name: its letters and digits, at most 40, in any script."""
    return re.sub(r"[\W_]+", "-", text.lower())[:40].strip("-") or "image"


def _array_plan(
    path: Path, output_options: OutputOptions, items: Sequence[Item], seeds: range, allowed: bool
) -> BatchPlan:
    """The plan of images that go into one array."""
    if not allowed:
        raise InputError(f"--output is {path}; only latentdiff sample writes arrays, {ENDINGS}, or a folder")
    if output_options.format is not None:
        raise InputError(
            f"--output is {path}, an array, but --format is {output_options.format}; leave one of them out"
        )
    _check_new(path, output_options.overwrite)
    return BatchPlan(items, seeds, [Job(item, seed, None) for item in items for seed in seeds], array=path)


def _single_file(output: str | None, suffix: str, pairs: Sequence[tuple[Item, int]]) -> Path | None:
    """The one file to write, or None if a folder is to be filled."""
    if output is None:
        item, seed = pairs[0]
        return Path(f"{Path(item.name).name}-seed{seed}{suffix}") if len(pairs) == 1 else None
    if Path(output).suffix.lower() in UNWRITTEN_SUFFIXES:
        raise InputError(f"--output is {output!r}; images are written as PNG, JPEG or WebP, {ENDINGS}")
    if Path(output).suffix.lower() not in WRITTEN_KINDS:
        return None
    if len(pairs) > 1:
        raise InputError(f"--output is one file, {output}, for {len(pairs)} images; give a folder or --grid")
    return Path(output)


def _check_new(path: Path, overwrite: bool) -> None:
    """InputError if there is something that was not meant to be replaced."""
    _check_outputs([path], [])
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; choose another --output, or allow it with --overwrite")


def _check_preview(output_options: OutputOptions, made: Path) -> None:
    """InputError if a preview would take the place of the image that is made, or count as one in their folder."""
    preview = output_options.preview_file
    if preview is None:
        return
    if Path(preview).resolve() == made.resolve():
        raise InputError(f"--preview-file and --output are both {made}; give two files")
    if Path(preview).resolve().is_relative_to(made.resolve()):
        raise InputError(
            f"--preview-file is {preview}, which lies among the images in {made} and would count as one; choose "
            "another folder"
        )


def _check_outputs(paths: Sequence[Path], items: Sequence[Item]) -> None:
    """InputError unless each image can have its file, which is nobody else's and no input."""
    check_writable(paths[0])
    inputs = {item.path.resolve() for item in items if item.path is not None}
    taken: set[Path] = set()
    for path in paths:
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; choose another output path")
        if inputs and path.resolve() in inputs:
            raise InputError(f"cannot write {path}: it is an input; choose another --output")
        if path in taken:
            raise InputError(f"two inputs would both become {path}; rename one, or run them one by one")
        taken.add(path)
