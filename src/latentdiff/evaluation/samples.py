"""Samples against a reference: the Python side of `latentdiff evaluate samples`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch

from latentdiff import __version__
from latentdiff.errors import InputError, LatentDiffWarning
from latentdiff.evaluation.distributions import ArrayRows, Spread
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.image_sets import ImageSet, check_sizes, counted, open_images
from latentdiff.evaluation.moments import frechet
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.evaluation.references import Reference, open_reference
from latentdiff.evaluation.set_metrics import SET_METRICS, WHY_NOT_FID, SetMetric, Side, check_names
from latentdiff.evaluation.store import FeatureStore, SharedFeatures, default_cache
from latentdiff.types import Array

DEFAULT_FEATURES = "inception"
FID_NAMES = {"frechet": "fid", "frechet_spatial": "sfid"}
"""FID is a Fréchet distance, and may be asked for as one."""


class SamplesOptions(TypedDict, total=False):
    """Options of `SamplesEvaluation`, which describes them."""

    metrics: Sequence[str] | None
    features: str | FeatureExtractor
    clip: str | None
    count: int | None
    reference_count: int | None
    resolution: int | None
    device: torch.device | str
    cache: str | Path | None


def evaluate_samples(
    samples: str | Path | ImageSet, reference: str | Path | Reference, **options: Unpack[SamplesOptions]
) -> Report:
    """Compare samples with a reference, in this process alone.

    Args:
        samples: Images, as `open_images` takes them.
        reference: A reference, as `open_reference` takes it.
        **options: The metrics, the features, how many images and at which size, as `SamplesEvaluation` takes them.

    Returns:
        The numbers, each named by its protocol.

    Raises:
        InputError: If images can't be read or don't fit, or a metric that is asked for can't be computed.
        CheckpointError: If weights are missing or damaged.
        ConfigError: If a name is unknown, or a package is missing.
    """
    evaluation = SamplesEvaluation(samples, reference, **options)
    evaluation.compute()
    return evaluation.report()


class SamplesEvaluation(SharedFeatures):
    """An evaluation in two steps, so that processes can share the first: `do` the shards of features, then `report`.

    Everything that can be checked is checked when it is made.

    Args:
        samples: Images, as `open_images` takes them.
        reference: A reference, as `open_reference` takes it.
        metrics: What to compute, by names of `SET_METRICS`; None computes whatever can be.
        features: The feature extractor, as `load_extractor` takes it, or a loaded one.
        clip: A folder with a CLIP of transformers, for CMMD and CLIPScore.
        count: How many samples, from the first on; None takes all.
        reference_count: Likewise of the reference.
        resolution: The side of the squares that images are cropped and resized to, as in training; None takes them as
            they are.
        device: Where features are computed.
        cache: Where features are kept; None is `default_cache()`.
        samples_cache: Where those of the samples are kept, if they are not worth keeping beside the reference's.

    Raises:
        InputError: If images can't be read or don't fit, or a metric that is asked for can't be computed.
        CheckpointError: If weights are missing or damaged.
        ConfigError: If a name is unknown, or a package is missing.
    """

    def __init__(
        self,
        samples: str | Path | ImageSet,
        reference: str | Path | Reference,
        *,
        metrics: Sequence[str] | None = None,
        features: str | FeatureExtractor = DEFAULT_FEATURES,
        clip: str | None = None,
        count: int | None = None,
        reference_count: int | None = None,
        resolution: int | None = None,
        device: torch.device | str = "cpu",
        cache: str | Path | None = None,
        samples_cache: str | Path | None = None,
    ) -> None:
        if metrics is not None:
            check_names(metrics)
        self.samples = open_images(samples, resolution) if isinstance(samples, (str, Path)) else samples
        self.reference = open_reference(reference, resolution) if isinstance(reference, (str, Path)) else reference
        self.count = counted(self.samples, count)
        known = self.reference.images
        self.features = {} if known is not None else _first(self.reference, reference_count)
        lengths = [len(rows) for rows in self.features.values()]
        self.reference_count = counted(known, reference_count) if known is not None else lengths[0] if lengths else None
        check_sizes(self.samples, known)
        self.resolution, self.cache = resolution, Path(cache) if cache else default_cache()
        self.samples_cache = Path(samples_cache) if samples_cache else self.cache
        self.extractor = load_extractor(features, device) if isinstance(features, str) else features
        self.clip = load_extractor(f"clip:{clip}", device) if clip else None
        self.notes: list[str] = []
        self.metrics = self._choose(metrics)
        self.sides = {of_clip: self._sides(of_clip) for of_clip in {metric.of_clip for metric in self.metrics}}

    def names(self) -> list[str]:
        """What the numbers of `report` will be called, protocols included."""
        named = [
            (name, self._protocol(metric, self.count, "")) for metric in self.metrics for name in self._called(metric)
        ]
        return [Result(name, of, 0.0).name for name, of in named if self._wanted is None or name in self._wanted]

    def report(self, *, estimate_bias: bool = True) -> Report:
        """Compute the metrics from the features, all of which must be there.

        Args:
            estimate_bias: Whether to warn of Fréchet distances of fewer images than features, with an estimate of how
                much too high they are, which takes as long as the distance.
        """
        return Report(self.results(estimate_bias=estimate_bias), self._facts(), self.notes)

    def results(self, places: Array | None = None, what: str = "", *, estimate_bias: bool = True) -> list[Result]:
        """The numbers of all images, or of some on both sides alike; too few of them are left out with a note.

        Args:
            places: The numbers of the images; None takes all.
            what: What their numbers' names say of them.
            estimate_bias: Whether to warn of the bias of Fréchet distances, as `report` does.
        """
        results = []
        for metric in self.metrics:
            samples, reference = (replace(side, places=places) for side in self.sides[metric.of_clip])
            count = self.count if places is None else len(places)
            if count < metric.at_least:
                self.notes.append(f"{' and '.join(self._called(metric))} of {what} left out: {count} are too few")
                continue
            if estimate_bias:
                self._warn_of_bias(metric, samples, reference, count)
            for name, found in zip(self._called(metric), metric.compute(samples, reference), strict=True):
                if self._wanted is None or name in self._wanted:
                    value, std = found if isinstance(found, Spread) else (found, None)
                    results.append(Result(name, self._protocol(metric, count, what), value, std))
        return results

    def _choose(self, names: Sequence[str] | None) -> list[SetMetric]:
        """The metrics that are asked for, or all that can be computed; a note says why others can't."""
        self._wanted = None if names is None else set(names)
        if self._wanted is not None and self.extractor.is_fid:
            self._wanted = {FID_NAMES.get(name, name) for name in self._wanted}
        elif self._wanted is not None and self._wanted & {"fid", "sfid"}:
            raise InputError(f"the features are {self.extractor.name}; {WHY_NOT_FID}")
        chosen = []
        for metric in SET_METRICS:
            called = self._called(metric)
            if self._wanted is not None and not self._wanted & set(called):
                continue
            obstacle = self._obstacle(metric)
            if obstacle is None:
                chosen.append(metric)
            elif self._wanted is not None:
                raise InputError(f"{' and '.join(called)} can't be computed: {obstacle}")
            elif (extractor := self._of(metric)) is not None and metric.output in extractor.dims:
                self.notes.append(f"{' and '.join(called)} left out: {obstacle}")
        if not chosen:
            raise InputError(f"nothing can be computed: {'; '.join(self.notes)}")
        return chosen

    def _obstacle(self, metric: SetMetric) -> str | None:
        """Why a metric can't be computed; None if it can."""
        extractor = self._of(metric)
        if extractor is None:
            return "no folder of a CLIP is given"
        if metric.output not in extractor.dims:
            return f"the features {extractor.name} have no {metric.output}"
        given = self._given(metric, extractor)
        compared = metric.needs != "nothing" and given != "moments"
        known = self.reference_count if given or self.reference.images is not None else None
        name = self.reference.name
        other = "" if extractor.is_fid else f", and moments of {extractor.name} come from no file"
        faults = {
            f"{self.count} samples are given, and it needs {metric.at_least}": self.count < metric.at_least,
            f"{self.samples.name} has no captions (the column text of metadata.jsonl)": metric.of_captions
            and self.samples.captions is None,
            f"the reference {name} has no images{other}": compared and known is None,
            f"the reference {name} has {known} images, and it needs {metric.at_least}": compared
            and known is not None
            and known < metric.at_least,
        }
        return next((fault for fault, found in faults.items() if found), None)

    def _of(self, metric: SetMetric) -> FeatureExtractor | None:
        """The extractor whose features a metric is of."""
        return self.clip if metric.of_clip else self.extractor

    def _given(self, metric: SetMetric, extractor: FeatureExtractor) -> str | None:
        """What the reference brings of this extractor that serves a metric: "features", "moments" or nothing."""
        if metric.needs == "nothing" or not extractor.is_fid:
            return None
        brought = (
            {name: rows.dim for name, rows in self.features.items()},
            {name: moments.mean.size for name, moments in self.reference.moments.items() if metric.needs == "moments"},
        )
        for what, dims in zip(("features", "moments"), brought, strict=True):
            if metric.output not in dims:
                continue
            if dims[metric.output] != extractor.dims[metric.output]:
                prefix = "moments of " if what == "moments" else ""
                raise InputError(
                    f"the reference {self.reference.name} has {prefix}{dims[metric.output]} features, "
                    f"{extractor.name} has {extractor.dims[metric.output]}; it was made by another protocol, give one "
                    "of this"
                )
            return what
        return None

    def _sides(self, of_clip: bool) -> tuple[Side, Side]:
        extractor = self.clip if of_clip else self.extractor
        assert extractor is not None
        own = [metric for metric in self.metrics if metric.of_clip == of_clip]
        samples = Side(self.samples, FeatureStore(self.samples, extractor, self.count, self.samples_cache))
        known, store = self.reference.images, None
        needed = any(metric.needs != "nothing" and not self._given(metric, extractor) for metric in own)
        if known is not None and self.reference_count is not None and needed:
            store = FeatureStore(known, extractor, self.reference_count, self.cache)
        moments, features = (self.reference.moments, self.features) if extractor.is_fid else ({}, {})
        return samples, Side(known, store, moments, features)

    def stores(self) -> list[FeatureStore]:
        """The features of the samples and, where its moments aren't given, those of the reference."""
        return [side.store for sides in self.sides.values() for side in sides if side.store is not None]

    def _called(self, metric: SetMetric) -> Sequence[str]:
        return metric.called(self.extractor.is_fid)

    def _protocol(self, metric: SetMetric, count: int, what: str) -> Sequence[str]:
        extractor = self._of(metric)
        assert extractor is not None
        reference = () if metric.needs == "nothing" else (self.reference.name,)
        return (extractor.name, extractor.resize, str(count), *reference, *metric.detail, *filter(None, [what]))

    def _facts(self) -> dict[str, object]:
        known = self.reference.images
        return {
            "samples": self.samples.name,
            "count": self.count,
            "reference": self.reference.name if known is None else known.name,
            "reference_count": self.reference_count,
            "resolution": self.resolution,
            "features": self.extractor.name,
            "weights_sha256": self.extractor.identity,
            "resize": self.extractor.resize,
            "clip": None if self.clip is None else self.clip.name,
            "device": self.extractor.device.type,
            "latentdiff": __version__,
            "torch": torch.__version__,
        }

    def _warn_of_bias(self, metric: SetMetric, samples: Side, reference: Side, count: int) -> None:
        """Warn where a Fréchet distance is of fewer images than features, with how much half as many would add."""
        if metric.needs != "moments":
            return
        rows = samples.rows(metric.output)
        known = metric.output in reference.given and reference.places is None
        fewest = count if known else min(count, len(reference.rows(metric.output)))
        if fewest >= rows.dim:
            return
        bias = ""
        if count >= 4:
            half = replace(
                samples, places=np.arange(count // 2) if samples.places is None else samples.places[: count // 2]
            )
            target = reference.moments(metric.output)
            of_half = frechet(half.moments(metric.output), target)
            # The bias is about proportional to 1 / N (Chong & Forsyth 2020), so halving N adds about what N has.
            added = of_half - frechet(samples.moments(metric.output), target)
            bias = f": by about {added:.3g}, for half of the samples give {of_half:.6g}" if added > 0 else ""
        message = f"{self._called(metric)[0]} is of {fewest} images and {rows.dim} features, and too high{bias}"
        warnings.warn(LatentDiffWarning(message), stacklevel=3)


def _first(reference: Reference, count: int | None) -> dict[str, ArrayRows]:
    """The features that a reference brings, of the first `count` images or all."""
    for features in reference.features.values():
        if count is not None and not 1 <= count <= len(features):
            raise InputError(f"{count} images of {reference.name} are asked for; it has features of {len(features)}")
    return {name: ArrayRows(features[:count]) for name, features in reference.features.items()}
