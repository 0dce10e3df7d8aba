"""A study: its images, what is asked about them, and the plan that says whom is asked what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from latentdiff.errors import InputError
from latentdiff.registry import nearest
from latentdiff.study.images import ImageFile, as_png, check_names, degraded, find_images, is_evident, read_images
from latentdiff.study.plan import DEGRADED, INTACT, METHOD_A, METHOD_B, REFERENCE, Pair, Plan, shuffled
from latentdiff.study.texts import ENGLISH, TASKS

INPUT = "input"  # the role of the image in the middle
LOOK_SECONDS = 3.0  # appendix E.3.6
PAIRS = 50  # that a participant sees by default
PAIRS_PER_CHECK, FEWEST_CHECKS = 10, 2


@dataclass(frozen=True)
class Facts:
    """What a study is, as its database keeps it.

    Attributes:
        labels: A role to what reports call it.
        task: A name in `TASKS`.
        question: The question.
        look: For how many seconds a pair is looked at before an answer is taken.
        images: The number of images of each method.
        pairs: The number of different pairs, checks aside.
        pairs_each: How many of them a participant sees.
        checks: How many attention checks a participant sees besides.
        seed: The seed of orders and sides.
    """

    labels: Mapping[str, str]
    task: str
    question: str
    look: float
    images: int
    pairs: int
    pairs_each: int
    checks: int
    seed: int


class Study:
    """Images, facts and the plan.

    Attributes:
        facts: What the study is.
        fingerprint: A hash of all files and options: studies of one fingerprint are the same.
        has_middle: Whether pairs have an image in the middle.

    Args:
        images: A role to its images by name.
        plan: Who sees what.
        facts: What the study is.
    """

    def __init__(self, images: Mapping[str, Mapping[str, ImageFile]], plan: Plan, facts: Facts) -> None:
        self._images = images
        self.facts = facts
        self.has_middle = INPUT in images
        self._intact = REFERENCE if REFERENCE in images else METHOD_A
        options = {name: value for name, value in asdict(facts).items() if name != "labels"}  # folders may be moved
        files = {role: {name: file.sha256 for name, file in sorted(of.items())} for role, of in images.items()}
        whole = json.dumps([options, files, list(plan.checks)], sort_keys=True)
        self.fingerprint = hashlib.sha256(whole.encode()).hexdigest()
        self.pairs: Callable[[int], Sequence[Pair]] = lru_cache(maxsize=1024)(plan.pairs)
        """The pairs of a participant's number, in order."""

    def __len__(self) -> int:
        """How many pairs a participant sees, checks included."""
        return self.facts.pairs_each + self.facts.checks

    def png(self, name: str, role: str) -> bytes:
        """An image as a PNG file that has nothing but its pixels.

        Raises:
            BadFileError: If its file is gone, damaged or another one than when the study was opened.
        """
        return as_png(self.picture(name, role))

    def picture(self, name: str, role: str) -> Image.Image:
        """An image by its name and role, those of attention checks included; raises as `png` does."""
        image = self._images[self._intact if role in (INTACT, DEGRADED) else role][name].load()
        return degraded(image) if role == DEGRADED else image


def open_study(
    a: str | Path,
    b: str | Path,
    reference: str | Path | None = None,
    *,
    inputs: str | Path | None = None,
    task: str = "general",
    pairs: int | None = None,
    checks: int | None = None,
    look: float = LOOK_SECONDS,
    seed: int = 0,
    texts: Mapping[str, str] = ENGLISH,
    done: Callable[[int], None] = lambda images: None,
    found: Callable[[int], None] = lambda images: None,
) -> Study:
    """Read the images of a study, all of them once.

    Args:
        a: The folder with the images of the first method.
        b: That of the second, with images of the same names (without suffix) and sizes.
        reference: The folder with the ground truth, for task 1; None leaves task 1 out.
        inputs: The folder with what the images were made from, which is shown in the middle. Its images may be
            smaller, but must have the same sides' ratio.
        task: What is asked, a name in `TASKS`.
        pairs: How many pairs a participant sees; None takes 50, or all if there are fewer.
        checks: How many attention checks a participant sees besides; None takes one for ten pairs, at least two.
        look: For how many seconds a pair is looked at before an answer is taken.
        seed: The seed of orders and sides.
        texts: The table of texts, which has the question.
        done: Hears of each image that was read.
        found: Hears at first how many there are.

    Raises:
        InputError: If folders don't fit together, an option is out of range, or there are too few images that
            attention checks can be made of.
        BadFileError: If an image can't be read.
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; {nearest(task, TASKS)}")
    if TASKS[task] and inputs is None:
        raise InputError(f"task {task} asks about the image in the middle; give the folder of these images as inputs")
    places = {METHOD_A: a, METHOD_B: b, REFERENCE: reference, INPUT: inputs}
    folders = {role: Path(folder) for role, folder in places.items() if folder is not None}
    if len({folder.resolve() for folder in folders.values()}) < len(folders):
        raise InputError(f"{' '.join(map(str, folders.values()))}: a folder is given twice; compare different ones")
    files = {role: find_images(folder) for role, folder in folders.items()}
    for role in list(files)[1:]:
        check_names(folders[METHOD_A], files[METHOD_A], folders[role], files[role], both_ways=role == METHOD_B)
    names = sorted(files[METHOD_A])
    found(len(names) * len(files))
    images = {role: read_images({name: of[name] for name in names}, done) for role, of in files.items()}
    _check_sizes(images)
    comparisons = [(METHOD_A, METHOD_B)]
    if reference is not None:
        comparisons += [(METHOD_A, REFERENCE), (METHOD_B, REFERENCE)]
    total = len(names) * len(comparisons)
    count = min(PAIRS, total) if pairs is None else pairs
    if not 1 <= count <= total:
        raise InputError(f"pairs is {count}; there are {total} different ones, choose 1 to {total}")
    chosen = _choose_checks(images[REFERENCE if reference is not None else METHOD_A], checks, count, seed)
    facts = Facts(
        labels=_labels({role: folder for role, folder in folders.items() if role != INPUT}),
        task=task,
        question=texts[f"question.{task}"],
        look=look,
        images=len(names),
        pairs=total,
        pairs_each=count,
        checks=len(chosen),
        seed=seed,
    )
    return Study(images, Plan(names, comparisons, chosen, count, seed), facts)


def _check_sizes(images: Mapping[str, Mapping[str, ImageFile]]) -> None:
    """InputError unless the images of a name have one size, and inputs the ratio of its sides."""
    for role, of in images.items():
        for name, file in of.items():
            first = images[METHOD_A][name]
            (width, height), (expected_width, expected_height) = file.size, first.size
            if role == INPUT:  # within a pixel, since sides that don't divide are rounded
                fits = abs(width * expected_height - height * expected_width) <= max(first.size)
                wanted = "equal ratios of width to height"
            else:
                fits, wanted = file.size == first.size, "equal sizes"
            if not fits:
                sizes = f"{expected_width}x{expected_height} and {width}x{height} pixels"
                raise InputError(f"{first.path} and {file.path} have {sizes}; give images of {wanted}")


def _choose_checks(files: Mapping[str, ImageFile], checks: int | None, count: int, seed: int) -> list[str]:
    """The names of the images that attention checks are made of."""
    wanted = min(len(files), max(FEWEST_CHECKS, count // PAIRS_PER_CHECK)) if checks is None else checks
    chosen: list[str] = []
    for name in shuffled(list(files), seed, "checks"):
        if len(chosen) == wanted:
            break
        if is_evident(files[name].load()):
            chosen.append(name)
    if len(chosen) < wanted:
        raise InputError(
            f"{wanted} attention checks need as many images that differ clearly from a coarse mosaic of themselves, "
            f"and there are {len(chosen)}; choose {len(chosen)} checks or fewer"
        )
    return chosen


def _labels(folders: Mapping[str, Path]) -> dict[str, str]:
    """What reports call each folder: its name, or as much of its path as tells it from the others."""
    paths = {role: folder.resolve() for role, folder in folders.items()}
    for depth in range(1, max(len(path.parts) for path in paths.values()) + 1):
        labels = {role: "/".join(path.parts[-depth:]) for role, path in paths.items()}
        if len(set(labels.values())) == len(labels):
            break
    return labels
