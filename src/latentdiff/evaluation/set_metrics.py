"""The table of metrics of samples against a reference: what each takes, what it needs, and what it is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from latentdiff.errors import InputError
from latentdiff.evaluation import distributions, manifold
from latentdiff.evaluation.distributions import ArrayRows, ChosenRows, Rows, Spread, blocks
from latentdiff.evaluation.image_sets import ImageSet
from latentdiff.evaluation.moments import Moments, frechet, moments_of
from latentdiff.evaluation.store import FeatureStore
from latentdiff.evaluation.transformers_features import CLIPFeatures
from latentdiff.registry import nearest
from latentdiff.types import Array


@dataclass(frozen=True)
class Side:
    """One of the two sets, with its features by one extractor.

    Attributes:
        images: The images; None where only moments are known.
        store: Their features; None likewise.
        given: Moments that need not be computed, by the outputs' names.
        features: Features that need not be computed, likewise.
        places: The numbers of the images that are meant; None means all.
    """

    images: ImageSet | None
    store: FeatureStore | None
    given: Mapping[str, Moments] = field(default_factory=dict)
    features: Mapping[str, Rows] = field(default_factory=dict)
    places: Array | None = None

    def moments(self, output: str) -> Moments:
        """The moments of an output."""
        if self.places is None and output in self.given:
            return self.given[output]
        if self.places is None and self.store is not None:
            return self.store.moments(output)
        rows = self.rows(output)
        return moments_of((block.numpy() for block in blocks(rows)), rows.dim)

    def rows(self, output: str) -> Rows:
        """The features of an output."""
        if output in self.features:
            rows = self.features[output]
        else:
            assert self.store is not None
            rows = self.store.rows(output)
        return rows if self.places is None else ChosenRows(rows, self.places)

    def captions(self) -> list[str]:
        """The captions of the images, which must have some."""
        assert self.images is not None and self.images.captions is not None and self.store is not None
        numbers = range(self.store.count) if self.places is None else self.places
        return [self.images.captions[number] for number in numbers]


@dataclass(frozen=True)
class SetMetric:
    """Metrics of samples and a reference that are computed together.

    Attributes:
        names: What they are called.
        output: The output of the extractor that they take.
        needs: What they need of the reference: "moments", "images" or "nothing".
        at_least: How many images each side must have.
        compute: From samples and reference to the values.
        higher_is_better: Whether a higher number is the better one.
        detail: What their names say beside extractor, resize, count and reference.
        of_clip: Whether they are of CLIP's features.
        of_captions: Whether they need captions of the samples.
        otherwise: What they are called if the features are not those of FID.
    """

    names: Sequence[str]
    output: str
    needs: str
    at_least: int
    compute: Callable[[Side, Side], Sequence[float | Spread]]
    higher_is_better: bool
    detail: Sequence[str] = ()
    of_clip: bool = False
    of_captions: bool = False
    otherwise: Sequence[str] | None = None

    @property
    def all_names(self) -> Sequence[str]:
        """What they may be called, whatever the features are."""
        return (*self.names, *(self.otherwise or ()))

    def called(self, is_fid: bool) -> Sequence[str]:
        """What they are called, given whether the features are those of FID."""
        return self.names if is_fid or self.otherwise is None else self.otherwise


def _distance(output: str) -> Callable[[Side, Side], Sequence[float]]:
    return lambda samples, reference: [frechet(samples.moments(output), reference.moments(output))]


def _clip_score(samples: Side) -> float:
    """CLIPScore of samples that have captions."""
    assert samples.store is not None
    extractor = samples.store.extractor
    assert isinstance(extractor, CLIPFeatures)
    texts = extractor.of_texts(samples.captions())
    return distributions.clip_score(samples.rows("pool"), ArrayRows(texts.numpy()))


SET_METRICS: Sequence[SetMetric] = (
    SetMetric(("fid",), "pool", "moments", 2, _distance("pool"), higher_is_better=False, otherwise=("frechet",)),
    SetMetric(
        ("sfid",),
        "spatial",
        "moments",
        2,
        _distance("spatial"),
        higher_is_better=False,
        otherwise=("frechet_spatial",),
    ),
    SetMetric(
        ("kid",),
        "pool",
        "images",
        distributions.KID_SUBSET_SIZE,
        lambda samples, reference: [distributions.kid(samples.rows("pool"), reference.rows("pool"))],
        higher_is_better=False,
        detail=(f"{distributions.KID_SUBSETS} subsets of {distributions.KID_SUBSET_SIZE}",),
    ),
    SetMetric(
        ("is",),
        "logits",
        "nothing",
        distributions.IS_SPLITS,
        lambda samples, _: [distributions.inception_score(samples.rows("logits"))],
        higher_is_better=True,
        detail=(f"{distributions.IS_SPLITS} splits",),
    ),
    SetMetric(
        ("precision", "recall"),
        "pool",
        "images",
        manifold.NEIGHBOURS + 1,
        lambda samples, reference: manifold.precision_recall(samples.rows("pool"), reference.rows("pool")),
        higher_is_better=True,
        detail=(f"k={manifold.NEIGHBOURS}",),
    ),
    SetMetric(
        ("density", "coverage"),
        "pool",
        "images",
        manifold.DENSITY_NEIGHBOURS + 1,
        lambda samples, reference: manifold.density_coverage(samples.rows("pool"), reference.rows("pool")),
        higher_is_better=True,
        detail=(f"k={manifold.DENSITY_NEIGHBOURS}",),
    ),
    SetMetric(
        ("cmmd",),
        "pool",
        "images",
        2,
        lambda samples, reference: [distributions.cmmd(samples.rows("pool"), reference.rows("pool"))],
        higher_is_better=False,
        of_clip=True,
    ),
    SetMetric(
        ("clip_score",),
        "pool",
        "nothing",
        1,
        lambda samples, _: [_clip_score(samples)],
        higher_is_better=True,
        of_clip=True,
        of_captions=True,
    ),
)
"""In the order in which they are shown."""

WHY_NOT_FID = "fid and sfid are of the published Inception's features; with others ask for frechet"


def check_names(names: Sequence[str]) -> None:
    """Check names of metrics.

    Raises:
        InputError: If there are none, or one is unknown.
    """
    known = {name for metric in SET_METRICS for name in metric.all_names}
    for name in names:
        if name not in known:
            raise InputError(f"unknown metric {name!r}; {nearest(name, known)}")
    if not names:
        raise InputError(f"no metric is given; known: {', '.join(sorted(known))}")
