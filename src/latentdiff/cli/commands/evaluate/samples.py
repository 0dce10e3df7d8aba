"""`latentdiff evaluate samples`: samples against a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.commands.evaluate.options import (
    DEFAULT_FEATURES,
    SETS,
    Features,
    Names,
    OptionalCount,
    ReportOptions,
    Resolution,
    compute_features,
    device_of,
    preset_of,
    with_preset,
)
from latentdiff.cli.commands.evaluate.sampled import SampledModel
from latentdiff.cli.options import BulkOptions

if TYPE_CHECKING:
    from latentdiff.evaluation.features import FeatureExtractor
    from latentdiff.evaluation.references import Reference


def samples(
    source: Annotated[str, Parameter(name="SAMPLES")],
    reference: Annotated[str, Parameter(name="REFERENCE")],
    /,
    *,
    metrics: Names = None,
    features: Features = DEFAULT_FEATURES,
    clip: Annotated[str | None, Parameter(metavar="FOLDER")] = None,
    preset: Annotated[str | None, Parameter(metavar="NAME")] = None,
    count: OptionalCount = None,
    reference_count: OptionalCount = None,
    reference_name: Annotated[str | None, Parameter(group=SETS, show_default="its file or folder")] = None,
    resolution: Resolution = None,
    report: ReportOptions = ReportOptions(),
    sampled: SampledModel = SampledModel(),
    bulk: BulkOptions = BulkOptions(),
) -> None:
    """Compare samples with a reference: FID, sFID, KID, Inception score, precision and recall, density and coverage.

    SAMPLES is a folder, an .npz of images (arr_0), or a model, which is sampled first as `latentdiff sample` does; one
    of prompts or layouts shows those of the reference, or of --conditions.
    REFERENCE is a folder, any data that training reads, a recipe, or a file of statistics: ADM's .npz, EDM's .npz or
    .pkl, torch-fidelity's .pt. Each number is named by its protocol; a distance of other features is never called FID.

    Args:
        metrics: What to compute: fid, sfid, kid, is, precision, recall, density, coverage, frechet, cmmd, clip_score.
        clip: A folder with a CLIP of transformers, for cmmd and clip_score.
        preset: A protocol of the paper, which fixes metrics, count and the reference's name: unconditional,
            text-to-image, class-conditional, layout.
        count: Samples, from the first on.
        reference_count: Images of the reference, from the first on.
        reference_name: What numbers call the reference.
    """
    from latentdiff.evaluation.features import load_extractor
    from latentdiff.evaluation.references import open_reference
    from latentdiff.evaluation.samples import SamplesEvaluation
    from latentdiff.evaluation.set_metrics import check_names

    fixed = {"metrics": metrics, "count": count, "reference_name": reference_name}
    chosen = preset_of(preset, "samples", fixed)
    if chosen is not None:
        metrics, count, reference_name = list(chosen.metrics), chosen.count, chosen.reference
    with console.quiet_libraries(report.quiet):
        report.check()
        sampled.check(source)
        if metrics is not None:
            check_names(metrics)
        # Whatever can be wrong with the reference and the features is told before a model is sampled for hours.
        known = open_reference(reference, resolution, reference_name)
        extractor = load_extractor(features, device_of(report))
        made = sampled.folder_of(source, count, known.images, report.device, bulk, chosen is not None)
        if made is None:
            return

        def make(reference: Reference, extractor: FeatureExtractor | str) -> SamplesEvaluation:
            return SamplesEvaluation(
                made,
                reference,
                metrics=metrics,
                features=extractor,
                clip=clip,
                count=count,
                reference_count=reference_count,
                resolution=resolution,
                device=device_of(report),
                cache=report.cache,
            )

        def again() -> SamplesEvaluation:
            return make(open_reference(reference, resolution, reference_name), features)

        evaluation = make(known, extractor)
        if compute_features(evaluation, again, bulk, report.quiet, after_others=made != source):
            report.write(with_preset(evaluation.report(), preset))
