"""`latentdiff evaluate neighbours`: samples beside the training images that are most like them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.commands.evaluate.options import (
    DEFAULT_FEATURES,
    Features,
    OptionalCount,
    ReportOptions,
    Resolution,
    compute_features,
    device_of,
)
from latentdiff.cli.commands.evaluate.sampled import SampledModel
from latentdiff.cli.options import BulkOptions, Count, Flag
from latentdiff.errors import InputError

if TYPE_CHECKING:
    from latentdiff.evaluation.features import FeatureExtractor
    from latentdiff.evaluation.image_sets import ImageSet

PICTURE = "neighbours.png"


def neighbours(
    source: Annotated[str, Parameter(name="SAMPLES")],
    training: Annotated[str, Parameter(name="TRAINING")],
    /,
    *,
    output: Annotated[str, Parameter(alias="-o", metavar="FILE")] = PICTURE,
    neighbours: Annotated[Count, Parameter(alias="-k")] = 10,
    rows: Count = 8,
    order: Literal["nearest", "given"] = "nearest",
    overwrite: Flag = False,
    features: Features = DEFAULT_FEATURES,
    count: OptionalCount = None,
    training_count: OptionalCount = None,
    resolution: Resolution = None,
    report: ReportOptions = ReportOptions(),
    sampled: SampledModel = SampledModel(),
    bulk: BulkOptions = BulkOptions(),
) -> None:
    """Show samples beside their nearest training images, and measure how many are memorised.

    SAMPLES is a folder, an .npz of images (arr_0), or a model, which is sampled first. TRAINING is a folder or any data
    that training reads. A sample counts as memorised if it is nearer to its nearest training image than that one is to
    its own nearest other. Images that a model has never seen score well above 0, so compare with held-out ones.

    Args:
        output: The picture, whose rows are samples, each with its nearest training images to the right.
        neighbours: Training images that are shown of each sample.
        rows: Samples that are shown.
        order: Which ones: those that are nearest to a training image, or the first.
        overwrite: Replace a picture that exists.
        count: Samples, from the first on.
        training_count: Training images, from the first on.
    """
    from latentdiff.evaluation.features import load_extractor
    from latentdiff.evaluation.image_sets import open_images
    from latentdiff.evaluation.neighbours import NeighboursEvaluation, check_picture, write_picture

    with console.quiet_libraries(report.quiet):
        report.check()
        sampled.check(source)
        check_picture(output)
        if Path(output).exists() and not overwrite:
            raise InputError(f"{output} exists already; choose another --output, or allow it with --overwrite")
        known = open_images(training, resolution)
        extractor = load_extractor(features, device_of(report))
        made = sampled.folder_of(source, count, known, report.device, bulk)
        if made is None:
            return

        def make(training: ImageSet, extractor: FeatureExtractor | str) -> NeighboursEvaluation:
            return NeighboursEvaluation(
                made,
                training,
                neighbours=neighbours,
                rows=rows,
                order=order,
                features=extractor,
                count=count,
                training_count=training_count,
                resolution=resolution,
                cache=report.cache,
            )

        def again() -> NeighboursEvaluation:
            return make(open_images(training, resolution), load_extractor(features, device_of(report)))

        evaluation = make(known, extractor)
        if compute_features(evaluation, again, bulk, report.quiet, after_others=made != source):
            found = evaluation.find()
            write_picture(output, evaluation.picture(found))
            report.write(evaluation.report(found))
