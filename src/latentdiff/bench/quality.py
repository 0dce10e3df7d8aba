"""Quality against time: a model's samples by several solvers and numbers of steps, each set against a reference.

Every cell makes images of the same seeds and conditions. They stay in a folder for each cell, with the seconds that
each batch took beside it, so that an interrupted table goes on and a finished cell is not computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image

from latentdiff import __version__
from latentdiff.bench.inputs import conditions_of, own_size, solver_of
from latentdiff.bench.timing import network_calls, synchronise
from latentdiff.data.latent_cache import weights_fingerprint
from latentdiff.errors import InputError, LatentDiffWarning
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.image_sets import ImageSet, PlannedImages
from latentdiff.evaluation.references import Reference, open_reference
from latentdiff.evaluation.samples import DEFAULT_FEATURES, SamplesEvaluation
from latentdiff.evaluation.store import default_cache
from latentdiff.io.files import atomic_file, check_writable
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.types import JSON, Component

PLAN = "bench.json"
DIFFERENCES = {"weights": "other weights", "conditions": "other captions or classes"}
"""What is said where hashes differ."""


@dataclass(frozen=True)
class CellName:
    """A solver and its number of steps."""

    solver: str
    steps: int

    def __str__(self) -> str:
        return f"{self.solver}:{self.steps}"

    @classmethod
    def parse(cls, text: str) -> CellName:
        """The cell that "ddim:250" names.

        Raises:
            InputError: If it has another form.
        """
        solver, _, steps = text.partition(":")
        if not solver or not steps.isascii() or not steps.isdigit() or int(steps) < 1:
            raise InputError(f"target is {text!r}; it must be SOLVER:STEPS, such as ddim:250")
        return cls(solver, int(steps))


@dataclass(frozen=True)
class Cell:
    """What was measured of one solver and number of steps.

    Attributes:
        solver: The solver's name in the registry.
        steps: Its steps.
        network_calls: How often it calls the network for an image.
        samples_per_second: By the median seconds of a batch.
        distance: The Fréchet distance to the reference.
    """

    solver: str
    steps: int
    network_calls: int
    samples_per_second: float
    distance: float


@dataclass(frozen=True)
class Quality:
    """The table.

    Attributes:
        metric: The distance's name, with its protocol.
        cells: The table's cells, by solvers and then by steps.
        target: The cell that others are compared with; None if there is none.
        notes: What is to be known of the distances.
    """

    metric: str
    cells: Sequence[Cell]
    target: Cell | None
    notes: Sequence[str]

    def fewest(self) -> dict[str, Cell | None]:
        """By solver, the cell of the fewest steps whose distance is at most the target's; None if it has none.

        Raises:
            InputError: If there is no target.
        """
        if self.target is None:
            raise InputError("the table has no target; give one, such as ddim:250")
        best: dict[str, Cell | None] = {}
        for cell in self.cells:
            so_far = best.setdefault(cell.solver, None)
            if cell.distance <= self.target.distance and (so_far is None or cell.steps < so_far.steps):
                best[cell.solver] = cell
        return best


class QualityTable:
    """A table in two steps: everything that can be checked is checked when it is made, then `compute` does the work.

    Args:
        pipe: The model, on its device.
        reference: What samples are compared with, as `open_reference` takes it; of a model with text or classes, images
            with captions or classes, of which its own images are made.
        solvers: Names of solvers; those that are given twice count once.
        steps: Numbers of steps.
        count: Images of a cell.
        target: A cell beside the table, as "ddim:250", whose distance the others are to reach.
        features: The feature extractor, as `load_extractor` takes it, or a loaded one.
        reference_count: How many images of the reference count, from the first on; None takes all.
        resolution: The side of the squares that images are cropped and resized to, as in training.
        options: Further arguments of the model's calls, such as the guidance scale.
        seed: The seed of the first image; image i has seed + i.
        batch_size: Images that are made at once.
        samples_dir: The folder that has, or gets, a folder for each cell.
        cache: Where features are kept; None is `default_cache()`.

    Raises:
        InputError: If a solver can't take the steps, the reference doesn't fit the model, or the folder has cells of
            another model or other options.
        ConfigError: If a name is unknown, or a package is missing.
        CheckpointError: If weights of the features are missing or damaged.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline,
        reference: str | Path | Reference,
        *,
        solvers: Sequence[str],
        steps: Sequence[int],
        count: int,
        target: str | None = None,
        features: str | FeatureExtractor = DEFAULT_FEATURES,
        reference_count: int | None = None,
        resolution: int | None = None,
        options: Mapping[str, object] | None = None,
        seed: int = 0,
        batch_size: int = 8,
        samples_dir: str | Path = "bench",
        cache: str | Path | None = None,
    ) -> None:
        if count < 2:
            raise InputError(f"count is {count}; a distance needs at least 2 images, and better thousands")
        self.pipe, self.count, self.seed, self.batch_size = pipe, count, seed, batch_size
        self.options, self.folder = dict(options or {}), check_writable(samples_dir)
        self.target = None if target is None else CellName.parse(target)
        cells = [CellName(solver, number) for solver in solvers for number in steps]
        self.table = list(dict.fromkeys(cells))
        self.names = list(dict.fromkeys([*self.table, *([self.target] if self.target else [])]))
        if not self.table:
            raise InputError("no solvers or no steps are given; give one or more of both")
        self.calls = {name: self._network_calls(name) for name in self.names}
        opened = open_reference(reference, resolution) if isinstance(reference, (str, Path)) else reference
        self.reference, self.reference_count, self.resolution = opened, reference_count, resolution
        self.extractor = load_extractor(features, pipe.device) if isinstance(features, str) else features
        self.cache = Path(cache) if cache else default_cache()
        size = (resolution, resolution) if resolution else own_size(pipe)
        # This checks the reference and the features.
        planned = self._evaluation(PlannedImages(count, size, "the model's samples"))
        self.conditions = conditions_of(pipe, opened.images, opened.name, count, planned.reference_count)
        self.plan = self._plan()
        self._check_plan()

    def images_left(self) -> int:
        """How many images have to be made."""
        batches = [batch for name in self.names for batch in self._missing(name)]
        return sum(len(batch) for batch in batches)

    def compute(
        self, done: Callable[[int], None] = lambda images: None, finished: Callable[[Cell], None] = lambda cell: None
    ) -> Quality:
        """Make what is missing, and the table; `done` hears how many images were made, `finished` of every cell."""
        if self.images_left():  # kernels are chosen, and memory is taken, by a call that isn't timed
            self._batch(range(min(self.batch_size, self.count)), 2)
        with atomic_file(self.folder / PLAN) as aside:
            aside.write_text(json.dumps(self.plan, indent=2))
        found: dict[CellName, Cell] = {}
        notes: list[str] = []
        metric = ""
        for name in self.names:
            self._make(name, done)
            result = self._distance(name)
            metric = result["metric"]
            notes += [f"{name}: {note}" for note in result["notes"]]
            found[name] = Cell(
                name.solver, name.steps, self.calls[name], self._samples_per_second(name), result["distance"]
            )
            finished(found[name])
        target = found[self.target] if self.target else None
        return Quality(metric, [found[name] for name in self.table], target, notes)

    def folder_of(self, name: CellName) -> Path:
        """The folder of a cell's images."""
        return self.folder / f"{name.solver}-{name.steps}"

    def _network_calls(self, name: CellName) -> int:
        """How often a cell calls the network; InputError if its solver takes no such steps."""
        limit = self.pipe.scheduler.config.num_train_timesteps
        if not 1 <= name.steps <= limit:
            raise InputError(f"steps is {name.steps}; it must be an integer from 1 to {limit}")
        with solver_of(self.pipe, name.solver):
            return network_calls(self.pipe, name.steps)

    def _evaluation(self, samples: Path | ImageSet) -> SamplesEvaluation:
        return SamplesEvaluation(
            samples,
            self.reference,
            metrics=["frechet"],
            features=self.extractor,
            reference_count=self.reference_count,
            resolution=self.resolution,
            cache=self.cache,
        )

    def _plan(self) -> JSON:
        """All that the cells' images and seconds depend on, beside solver and steps."""
        pipe, device = self.pipe, self.pipe.device
        networks = {name: part for name, part in pipe.components.items() if isinstance(part, Component)}
        weights = {name: weights_fingerprint(part) for name, part in networks.items()}
        plan: JSON = {
            "weights": weights,
            "scheduler": {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")},
            "dtype": str(pipe.unet.dtype),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
            "latentdiff": __version__,
            "torch": torch.__version__,
            "options": self.options,
            "count": self.count,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "conditions": hashlib.sha256(repr(self.conditions).encode()).hexdigest(),
        }
        return dict(json.loads(json.dumps(plan, default=str)))

    def _check_plan(self) -> None:
        """InputError if the folder has cells of another model or of other options, or other files."""
        path = self.folder / PLAN
        if not path.exists():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise InputError(f"{self.folder} is no folder, or has other files; choose another samples_dir")
            return
        found = _read(path)
        if found is None:
            raise InputError(f"{path} is damaged; choose another samples_dir")
        for name, value in self.plan.items():
            if found.get(name) != value:
                detail = f"{name.replace('_', ' ')} {found.get(name)!r}, and here {value!r}"
                raise InputError(
                    f"{self.folder} has samples of another run: {DIFFERENCES.get(name, detail)}; "
                    "choose another samples_dir, or the same options"
                )

    def _batches(self) -> list[range]:
        numbers = range(self.count)
        return [numbers[start : start + self.batch_size] for start in range(0, self.count, self.batch_size)]

    def _note(self, name: CellName, what: str) -> Path:
        """The file of what is known of a cell, beside its folder."""
        return self.folder / f"{name.solver}-{name.steps}.{what}.json"

    def _path(self, name: CellName, number: int) -> Path:
        return self.folder_of(name) / f"{number:06d}.png"

    def _seconds(self, name: CellName) -> dict[int, float]:
        """The seconds of the batches that were made, by the number of their first image; none of a damaged file."""
        found = _read(self._note(name, "seconds")) or {}
        try:
            seconds = {int(first): float(value) for first, value in found.items()}
        except (TypeError, ValueError):
            return {}
        return {first: value for first, value in seconds.items() if 0 < value < math.inf}

    def _missing(self, name: CellName) -> list[range]:
        """The batches of a cell that have to be made."""
        timed = self._seconds(name)
        return [
            batch
            for batch in self._batches()
            if batch[0] not in timed or not all(self._path(name, number).is_file() for number in batch)
        ]

    def _batch(self, numbers: range, steps: int) -> list[Image]:
        seeds = [self.seed + number for number in numbers]
        arguments = {**self.conditions.arguments(numbers), **self.options}
        images: list[Image] = self.pipe(**arguments, num_inference_steps=steps, seed=seeds).images
        return images

    def _make(self, name: CellName, done: Callable[[int], None]) -> None:
        """Make the batches of a cell that are missing; the seconds are those of the call alone, not of the files."""
        device, timed = self.pipe.device, self._seconds(name)
        with solver_of(self.pipe, name.solver):
            for batch in self._missing(name):
                synchronise(device)
                start = time.perf_counter()
                images = self._batch(batch, name.steps)
                synchronise(device)
                timed[batch[0]] = time.perf_counter() - start
                for number, image in zip(batch, images, strict=True):
                    with atomic_file(self._path(name, number)) as aside:
                        image.save(aside, "PNG")
                with atomic_file(self._note(name, "seconds")) as aside:
                    aside.write_text(json.dumps(timed))
                done(len(batch))

    def _samples_per_second(self, name: CellName) -> float:
        """By the median seconds of the batches; the last one counts only if it is whole, or the only one."""
        timed = self._seconds(name)
        rates = [len(batch) / timed[batch[0]] for batch in self._batches() if len(batch) == self.batch_size]
        return statistics.median(rates or [self.count / timed[0]])

    def _distance(self, name: CellName) -> JSON:
        """The distance of a cell: the metric's name, the value, and notes on it; kept beside the cell's folder."""
        evaluation = self._evaluation(self.folder_of(name))
        key = [store.computation.key for side in evaluation.sides[False] if (store := side.store) is not None]
        path = self._note(name, "distance")
        kept = _read(path)
        if kept is not None and kept.get("key") == [*key, self.reference.name] and _is_distance(kept):
            return kept
        evaluation.compute()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", LatentDiffWarning)
            (result,) = evaluation.report().results
        notes = [str(warning.message) for warning in caught if isinstance(warning.message, LatentDiffWarning)]
        found: JSON = {
            "key": [*key, self.reference.name],
            "metric": result.name,
            "distance": result.value,
            "notes": notes,
        }
        with atomic_file(path) as aside:
            aside.write_text(json.dumps(found))
        return found


def _is_distance(found: JSON) -> bool:
    """Whether what a file says of a cell's distance is whole."""
    kinds: dict[str, type | tuple[type, ...]] = {"metric": str, "distance": (int, float), "notes": list}
    return all(isinstance(found.get(name), kind) for name, kind in kinds.items())


def _read(path: Path) -> JSON | None:
    """The JSON object in a file; None if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
