"""`latentdiff evaluate first-stage`: what a first stage makes of images."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from latentdiff.bulk import processes
from latentdiff.cli import console
from latentdiff.cli.commands.evaluate.options import (
    DEFAULT_FEATURES,
    SETS,
    Features,
    Names,
    OptionalCount,
    PerceptualOptions,
    ReportOptions,
    Resolution,
    all_is_there,
    compute_features,
    device_of,
    preset_of,
    with_preset,
)
from latentdiff.cli.options import BulkOptions


def first_stage(
    model: Annotated[str, Parameter(name="MODEL")],
    data: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    output: Annotated[str, Parameter(alias="-o", metavar="FOLDER", group=SETS)] = "reconstructions",
    metrics: Names = None,
    features: Features = DEFAULT_FEATURES,
    preset: Annotated[str | None, Parameter(metavar="NAME")] = None,
    count: OptionalCount = None,
    resolution: Resolution = None,
    report: ReportOptions = ReportOptions(),
    perceptual: PerceptualOptions = PerceptualOptions(),
    bulk: BulkOptions = BulkOptions(),
) -> None:
    """Reconstruct images with a model's first stage, and compare them: rFID, PSNR, SSIM, MS-SSIM, LPIPS, PSIM, codes.

    MODEL is a model or the folder of a first stage, DATA a folder or any data that training reads.

    Args:
        output: Where reconstructions go; those that are there are kept.
        metrics: What to compute: rfid, rfrechet, ris, psnr, ssim, ms_ssim, lpips, psim, codebook.
        preset: A protocol of the paper, which fixes metrics: first-stage.
        count: Images, from the first on.
    """
    from latentdiff.bulk.engines import perform
    from latentdiff.evaluation.first_stage import FirstStageEvaluation
    from latentdiff.evaluation.pairs import Perceptual
    from latentdiff.evaluation.samples import SamplesEvaluation

    chosen = preset_of(preset, "first-stage", {"metrics": metrics})
    if chosen is not None:
        metrics = list(chosen.metrics)
    with console.quiet_libraries(report.quiet):
        report.check()

        def make() -> FirstStageEvaluation:
            return FirstStageEvaluation(
                model,
                data,
                output,
                metrics=metrics,
                features=features,
                perceptual=Perceptual(perceptual.vgg16, perceptual.lpips_heads),
                count=count,
                resolution=resolution,
                device=device_of(report),
                cache=report.cache,
            )

        def make_sets() -> SamplesEvaluation:
            sets = make().sets()
            assert sets is not None
            return sets

        evaluation = make()
        with console.progress(evaluation.count, "reconstructions", report.quiet) as done:
            perform(evaluation, make, lambda told: done(told.images), bulk.engine, bulk.workers or 0)
        if not all_is_there(evaluation, "reconstructions"):
            return
        sets = evaluation.sets()
        if (
            processes.finishes()
            if sets is None
            else compute_features(sets, make_sets, bulk, report.quiet, after_others=True)
        ):
            report.write(with_preset(evaluation.report(), preset))
