"""Metrics of `latentdiff evaluate` inside a run: of what its weights make, against images that stay the same."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from latentdiff.bulk.shards import missing
from latentdiff.config import check
from latentdiff.data.records import Records
from latentdiff.errors import ConfigError, InputError, LatentDiffWarning
from latentdiff.evaluation.directions import higher_is_better
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.first_stage import OF_SETS
from latentdiff.evaluation.image_sets import ChosenImages, FileImages, ImageSet, PlannedImages
from latentdiff.evaluation.pairs import PERCEPTUAL, SET_NAMES, USUAL_FILES, Perceptual, evaluate_pairs
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.evaluation.references import Reference
from latentdiff.evaluation.samples import DEFAULT_FEATURES, FID_NAMES, SamplesEvaluation
from latentdiff.io.staging import ASIDE, make_entry, remove_entry
from latentdiff.registry import METRICS, nearest
from latentdiff.training.engine.session import together

OF_SAMPLES = {name: name for name in SET_NAMES}
"""Metrics of samples as a set, by what a recipe calls them; those of CLIP's features need more than a recipe says."""
METRIC = re.compile(r"(\w+)(?:\[(.+)\])?")


class Make(Protocol):
    """What the weights of now make."""

    def __call__(self, numbers: range) -> Tensor:
        """Images (B, 3, H, W) in [0, 1], on the CPU, which depend on the weights and their numbers alone."""
        ...


class NamedImages(ChosenImages):
    """Some images of a set, under a name of their own, without captions.

    Args:
        images: The set.
        name: What numbers call it.
        places: The number of each image in the set; None for all of them.
    """

    def __init__(self, images: ImageSet, name: str, places: Sequence[int] | None = None) -> None:
        super().__init__(images, range(len(images)) if places is None else places)
        self.name, self.captions = name, None

    def fingerprint(self) -> str:
        """That of the chosen images, looked at once in a run: the images are those that it began with."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return super().fingerprint()


@dataclass(frozen=True)
class Plan:
    """What is measured, and how.

    Attributes:
        metrics: The metrics as the recipe has them, such as "frechet[efficientnet_lite0]".
        make: Makes the images.
        count: How many.
        side: Their height and width in pixels.
        block: How many are made at once.
        reference: What they are compared with as a set.
        reference_count: How many images of it, from the first on; None for all.
        originals: The image that each belongs to, for metrics of pairs; None if they belong to none.
        reconstructions: Whether they are a first stage's, whose metrics as a set are called rfid, rfrechet and ris.
        perceptual: Files of weights for LPIPS and PSIM.
    """

    metrics: Sequence[str]
    make: Make
    count: int
    side: int
    block: int
    reference: NamedImages
    reference_count: int | None = None
    originals: NamedImages | None = None
    reconstructions: bool = False
    perceptual: Perceptual = USUAL_FILES


class Measures:
    """Numbers of what a run's weights make, each named by its protocol as `latentdiff evaluate` names it.

    Everything that can be checked is checked when it is made.

    Args:
        plan: What is measured.
        accelerator: The run's processes, which share the work, and its device.
        checked: The same of other images, whose networks are used.

    Attributes:
        names: The whole name of each metric of the plan, by what the recipe calls it.

    Raises:
        ConfigError: If a metric is unknown.
        InputError: If one can't be computed, such as of so few images.
        CheckpointError: If weights of features are missing.
    """

    def __init__(self, plan: Plan, accelerator: Accelerator, checked: Measures | None = None) -> None:
        self.plan, self.accelerator = plan, accelerator
        self.of_sets: Mapping[str, str] = OF_SETS if plan.reconstructions else OF_SAMPLES
        self.sets: dict[str, list[str]] = {}
        self.pairs: list[str] = []
        for text in plan.metrics:
            self._add(text)
        with _of_option():
            if self.pairs:
                self._check_pairs()
            self.extractors: dict[str, FeatureExtractor] = (
                checked.extractors
                if checked is not None
                else {features: load_extractor(features, accelerator.device) for features in self.sets}
            )
            self.planned = {
                features: self._evaluation(
                    PlannedImages(plan.count, (plan.side, plan.side), "this run"), features, None
                )
                for features in self.sets
            }
        self.names = {text: self._name(text) for text in plan.metrics}

    def higher_is_better(self, text: str) -> bool:
        """Whether a higher value is the better one, of a metric as the recipe has it."""
        return higher_is_better(_read(text)[0])

    def prepare(self) -> None:
        """Compute the reference's features, as far as nobody has; all processes have to call it.

        A warning tells of distances of fewer images than features.

        Raises:
            InputError: If an image can't be read.
        """
        sides = [side for evaluation in self.planned.values() for side in evaluation.sides.values()]
        stores = [reference.store for _, reference in sides if reference.store is not None]
        main, rank, processes = (
            self.accelerator.is_main_process,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )

        def share() -> None:
            own = [(store, [part for part in store.parts() if part % processes == rank]) for store in stores]
            missing = [(store, store.missing(parts)) for store, parts in own]
            total = sum(store.count // processes for store, parts in missing if parts)
            with tqdm(total=total, desc="features of the reference", disable=not (main and total)) as bar:

                def done(images: int) -> None:
                    bar.update(images)

                for store, parts in missing:
                    store.compute(parts, done)

        if main:
            for evaluation in self.planned.values():
                _warn_of_bias(evaluation)
        together(share)

    def __call__(self, folder: Path) -> dict[str, float]:
        """Make images by the weights of now and measure them; all processes have to call it.

        Args:
            folder: One that all processes see, in which the images lie meanwhile.

        Returns:
            The numbers, by their whole names, on the main process.

        Raises:
            LatentDiffError: If the images aren't finite.
            OSError: If they can't be written.
        """
        accelerator, plan = self.accelerator, self.plan
        found: dict[str, float] = {}
        places: list[Path | None] = [None]

        def open_folder() -> None:
            if accelerator.is_main_process:
                places[0] = make_entry(folder / "samples", ASIDE)

        together(open_folder)
        (aside,) = broadcast_object_list(places)
        assert aside is not None
        try:
            together(lambda: self._make(aside))
            files = [_file(aside, number) for number in range(plan.count)]
            made = FileImages(Records(aside, files, watched=files), None)
            evaluations: list[SamplesEvaluation] = []

            def compute() -> None:
                evaluations.extend(self._evaluation(made, features, aside / "features") for features in self.sets)
                for evaluation in evaluations:
                    own = evaluation.shards()[accelerator.process_index :: accelerator.num_processes]
                    evaluation.do(missing(evaluation, own), lambda told: None)

            def report() -> None:
                if accelerator.is_main_process:
                    found.update(self._values(made, evaluations))

            together(compute)
            together(report)
        finally:
            if accelerator.is_main_process:
                remove_entry(aside)
        return found

    def _make(self, folder: Path) -> None:
        """Write this process's share of the images."""
        plan, processes = self.plan, self.accelerator.num_processes
        blocks = [range(start, min(start + plan.block, plan.count)) for start in range(0, plan.count, plan.block)]
        for block in blocks[self.accelerator.process_index :: processes]:
            for number, image in zip(block, plan.make(block), strict=True):
                pixels = image.mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
                Image.fromarray(pixels).save(_file(folder, number), "PNG", compress_level=1)

    def _values(self, made: ImageSet, evaluations: Sequence[SamplesEvaluation]) -> dict[str, float]:
        """The numbers, where all features are there but for those that this machine doesn't see."""
        found: dict[str, float] = {}
        for evaluation in evaluations:
            evaluation.compute()
            report = evaluation.report(estimate_bias=False)  # of the bias was told before the first step
            found |= {self._prefix + result.name: result.value for result in report.results}
        if self.pairs:
            found |= {result.name: result.value for result in self._compare(made).results}
        return found

    def _compare(self, made: ImageSet, originals: ImageSet | None = None) -> Report:
        """Metrics of pairs, by default of all images with their originals."""
        originals, device = originals or self.plan.originals, self.accelerator.device
        assert originals is not None
        return evaluate_pairs(made, originals, metrics=self.pairs, perceptual=self.plan.perceptual, device=device)

    def _evaluation(self, samples: ImageSet, features: str, cache: Path | None) -> SamplesEvaluation:
        plan = self.plan
        return SamplesEvaluation(
            samples,
            Reference(plan.reference.name, plan.reference),
            metrics=self.sets[features],
            features=self.extractors[features],
            reference_count=plan.reference_count,
            device=self.accelerator.device,
            samples_cache=cache,
        )

    def _add(self, text: str) -> None:
        """Count a metric of the recipe among those of sets or of pairs."""
        metric, features = _read(text)
        of_pairs = [*METRICS.names(), "ms_ssim", *PERCEPTUAL]
        check(
            metric not in of_pairs or self.plan.originals is not None,
            f"validation.metrics has {text!r}, but samples without a condition have no originals; leave it out",
        )
        known = {*self.of_sets, *(of_pairs if self.plan.originals is not None else ())}
        check(metric in known, f"validation.metrics has {text!r}; {nearest(metric, known)}")
        if metric in self.of_sets:
            self.sets.setdefault(features or DEFAULT_FEATURES, []).append(self.of_sets[metric])
            return
        check(features is None, f"validation.metrics has {text!r}, but {metric} is of pixels; write {metric}")
        self.pairs.append(metric)

    def _check_pairs(self) -> None:
        """InputError unless metrics of pairs can be computed, which the first original tells."""
        assert self.plan.originals is not None
        first = NamedImages(self.plan.originals, self.plan.originals.name, [0])
        self._compare(first, first)

    def _name(self, text: str) -> str:
        """The whole name of a metric of the recipe."""
        metric, features = _read(text)
        if metric not in self.of_sets:
            return Result(metric, (str(self.plan.count), self.plan.reference.name), 0.0).name
        asked, names = self.of_sets[metric], self.planned[features or DEFAULT_FEATURES].names()
        wanted = (asked, FID_NAMES.get(asked))
        return self._prefix + next(name for name in names if name.partition("[")[0] in wanted)

    @property
    def _prefix(self) -> str:
        """What metrics of reconstructions as a set begin with."""
        return "r" if self.plan.reconstructions else ""


def _warn_of_bias(evaluation: SamplesEvaluation) -> None:
    """Say once that distances of fewer images than features are too high, and what they are good for."""
    dims = [evaluation.extractor.dims[metric.output] for metric in evaluation.metrics if metric.needs == "moments"]
    fewest = min(evaluation.count, evaluation.reference_count or evaluation.count)
    if dims and fewest < max(dims):
        line = (
            f"Fréchet distances of {fewest} images and {max(dims)} features {evaluation.extractor.name} are too high, "
            "at every step about as much; compare them with each other alone, or raise validation.count"
        )
        warnings.warn(LatentDiffWarning(line), stacklevel=2)


@contextmanager
def _of_option() -> Iterator[None]:
    """Say of which option an InputError is."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"validation.metrics: {error}") from None


def _read(text: str) -> tuple[str, str | None]:
    """A metric of a recipe and its features, None if it names none."""
    found = METRIC.fullmatch(text)
    if found is None:
        example = "frechet[efficientnet_lite0]"
        raise ConfigError(f"validation.metrics has {text!r}; write NAME or NAME[FEATURES], such as {example}")
    return found[1], found[2]


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.png"
