"""Samples against a reference: the Python side of `latentdiff evaluate samples`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from latentdiff import __version__
from latentdiff.bulk.shards import Shard, Tell, Told, missing
from latentdiff.errors import InputError, LatentDiffWarning
from latentdiff.evaluation.distributions import Spread
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.image_sets import ImageSet, open_images
from latentdiff.evaluation.moments import frechet, moments_of
from latentdiff.evaluation.protocols import Report, Result
from latentdiff.evaluation.references import Reference, open_reference
from latentdiff.evaluation.set_metrics import SET_METRICS, WHY_NOT_FID, SetMetric, Side, check_names
from latentdiff.evaluation.store import FeatureStore, default_cache

DEFAULT_FEATURES = "inception"


def evaluate_samples(
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
) -> Report:
    """Compare samples with a reference, in this process alone.

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

    Returns:
        The numbers, each named by its protocol.

    Raises:
        InputError: If images can't be read or don't fit, or a metric that is asked for can't be computed.
        CheckpointError: If weights are missing or damaged.
        ConfigError: If a name is unknown, or a package is missing.
    """
    evaluation = SamplesEvaluation(
        samples,
        reference,
        metrics=metrics,
        features=features,
        clip=clip,
        count=count,
        reference_count=reference_count,
        resolution=resolution,
        device=device,
        cache=cache,
    )
    evaluation.compute()
    return evaluation.report()


class SamplesEvaluation:
    """An evaluation in two steps, so that processes can share the first: `do` the shards of features, then `report`.

    Everything that can be checked is checked when it is made. Its arguments are those of `evaluate_samples`.
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
    ) -> None:
        if metrics is not None:
            check_names(metrics)
        self.samples = open_images(samples, resolution) if isinstance(samples, (str, Path)) else samples
        self.reference = open_reference(reference, resolution) if isinstance(reference, (str, Path)) else reference
        self.count = _counted(self.samples, count)
        known = self.reference.images
        self.reference_count = None if known is None else _counted(known, reference_count)
        _check_sizes(self.samples, known)
        self.resolution, self.cache = resolution, Path(cache) if cache else default_cache()
        self.extractor = load_extractor(features, device) if isinstance(features, str) else features
        self.clip = load_extractor(f"clip:{clip}", device) if clip else None
        self.notes: list[str] = []
        self.metrics = self._choose(metrics)
        self.sides = {of_clip: self._sides(of_clip) for of_clip in {metric.of_clip for metric in self.metrics}}

    def shards(self) -> list[Shard]:
        """The parts of all features that are needed."""
        return list(self._parts())

    def is_done(self, shard: Shard) -> bool:
        """Whether the features of a part are there."""
        store, part = self._parts()[shard]
        return not store.missing([part])

    def do(self, shards: Sequence[Shard], tell: Tell) -> None:
        """Compute the features of some parts.

        Raises:
            InputError: If an image can't be read or is of another size, or a feature isn't finite.
        """
        parts = self._parts()
        for store in self._stores():
            own = [part for of, part in map(parts.__getitem__, shards) if of is store]
            if own:
                store.compute(own, lambda images: tell(Told(images)))

    def size(self) -> int:
        """How many images features are computed of in all."""
        return sum(store.count for store in self._stores())

    def compute(self, done: Callable[[int], None] = lambda images: None) -> None:
        """Compute all features that aren't there, in this process.

        Args:
            done: Hears how many images each step had.

        Raises:
            InputError: As `do` raises it.
        """
        self.do(missing(self, self.shards()), lambda told: done(told.images))

    def report(self) -> Report:
        """Compute the metrics from the features, all of which must be there."""
        results = []
        for metric in self.metrics:
            samples, reference = self.sides[metric.of_clip]
            self._warn_of_bias(metric)
            for name, found in zip(self._called(metric), metric.compute(samples, reference), strict=True):
                if self._wanted is None or name in self._wanted:
                    value, std = found if isinstance(found, Spread) else (found, None)
                    results.append(Result(name, self._protocol(metric), value, std))
        return Report(results, self._facts(), self.notes)

    def _choose(self, names: Sequence[str] | None) -> list[SetMetric]:
        """The metrics that are asked for, or all that can be computed; a note says why others can't."""
        self._wanted = None if names is None else set(names)
        if self._wanted is not None and self.extractor.is_fid:  # FID is a Fréchet distance, and may be asked for as one
            renamed = {"frechet": "fid", "frechet_spatial": "sfid"}
            self._wanted = {renamed.get(name, name) for name in self._wanted}
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
        compared = metric.needs != "nothing" and not self._given(metric, extractor)
        known, name = self.reference_count, self.reference.name
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

    def _given(self, metric: SetMetric, extractor: FeatureExtractor) -> bool:
        """Whether the reference brings the moments that a metric needs, of this extractor."""
        given = metric.needs == "moments" and extractor.is_fid and metric.output in self.reference.moments
        if given and self.reference.moments[metric.output].mean.size != extractor.dims[metric.output]:
            dims = self.reference.moments[metric.output].mean.size, extractor.dims[metric.output]
            raise InputError(
                f"the reference {self.reference.name} has moments of {dims[0]} features, {extractor.name} has "
                f"{dims[1]}; it was made by another protocol, give one of this"
            )
        return given

    def _sides(self, of_clip: bool) -> tuple[Side, Side]:
        extractor = self.clip if of_clip else self.extractor
        assert extractor is not None
        own = [metric for metric in self.metrics if metric.of_clip == of_clip]
        samples = Side(self.samples, FeatureStore(self.samples, extractor, self.count, self.cache), {})
        known, store = self.reference.images, None
        needed = any(metric.needs != "nothing" and not self._given(metric, extractor) for metric in own)
        if known is not None and self.reference_count is not None and needed:
            store = FeatureStore(known, extractor, self.reference_count, self.cache)
        return samples, Side(known, store, self.reference.moments if extractor.is_fid else {})

    def _stores(self) -> list[FeatureStore]:
        return [side.store for sides in self.sides.values() for side in sides if side.store is not None]

    def _parts(self) -> dict[Shard, tuple[FeatureStore, int]]:
        """The parts of the stores, by the shards that they are."""
        return {
            Shard(f"{number}-{shard.name}", shard.items): (store, part)
            for number, store in enumerate(self._stores())
            for part, shard in enumerate(store.shards())
        }

    def _called(self, metric: SetMetric) -> Sequence[str]:
        return metric.called(self.extractor.is_fid)

    def _protocol(self, metric: SetMetric) -> Sequence[str]:
        extractor = self._of(metric)
        assert extractor is not None
        reference = () if metric.needs == "nothing" else (self.reference.name,)
        return (extractor.name, extractor.resize, str(self.count), *reference, *metric.detail)

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

    def _warn_of_bias(self, metric: SetMetric) -> None:
        """Warn where a Fréchet distance is of fewer images than features, with how much half as many would add."""
        samples, reference = self.sides[metric.of_clip]
        if metric.needs != "moments" or samples.store is None:
            return
        dim = samples.store.extractor.dims[metric.output]
        fewest = min(self.count, self.count if reference.store is None else reference.store.count)
        if fewest >= dim:
            return
        bias = ""
        if self.count >= 4:
            target, rows = reference.moments(metric.output), samples.store.rows(metric.output)
            half = frechet(moments_of(rows.in_order(self.count // 2), dim), target)
            # The bias is about proportional to 1 / N (Chong & Forsyth 2020), so halving N adds about what N has.
            added = half - frechet(samples.moments(metric.output), target)
            bias = f": by about {added:.3g}, for half of the samples give {half:.6g}" if added > 0 else ""
        message = f"{self._called(metric)[0]} is of {fewest} images and {dim} features, and too high{bias}"
        warnings.warn(LatentDiffWarning(message), stacklevel=3)


def _counted(images: ImageSet, count: int | None) -> int:
    """How many images are taken."""
    if count is not None and not 1 <= count <= len(images):
        raise InputError(f"{count} images of {images.name} are asked for; it has {len(images)}")
    return count or len(images)


def _check_sizes(samples: ImageSet, reference: ImageSet | None) -> None:
    """InputError unless the first images of both are of one size."""
    if reference is None:
        return
    (height, width, _), (other, wide, _) = (images.pixels(0).shape for images in (samples, reference))
    if (height, width) != (other, wide):
        raise InputError(
            f"{samples.name} has images of {width}x{height}, the reference {reference.name} of {wide}x{other}; give a "
            "resolution to crop and resize both to, as in training, or a reference of the samples' size"
        )
