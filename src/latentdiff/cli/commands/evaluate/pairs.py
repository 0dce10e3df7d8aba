"""`latentdiff evaluate pairs`: images against their originals."""

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
    PerceptualOptions,
    ReportOptions,
    Resolution,
    device_of,
    preset_of,
    with_preset,
)
from latentdiff.errors import InputError


def pairs(
    images: Annotated[str, Parameter(name="IMAGES")],
    originals: Annotated[str, Parameter(name="ORIGINALS")],
    /,
    *,
    masks: Annotated[str | None, Parameter(metavar="FOLDER", group=SETS)] = None,
    metrics: Names = None,
    features: Features = DEFAULT_FEATURES,
    preset: Annotated[str | None, Parameter(metavar="NAME")] = None,
    resolution: Resolution = None,
    report: ReportOptions = ReportOptions(),
    perceptual: PerceptualOptions = PerceptualOptions(),
) -> None:
    """Compare images with their originals, one by one: PSNR, SSIM, MS-SSIM, LPIPS, PSIM; and as sets, if asked for.

    Of two folders, files of equal names belong together, whatever the suffix.

    Args:
        masks: Masks of the images' names, white where pixels were made anew: numbers for 40 to 50 % masked, and all.
        metrics: What to compute: psnr, ssim, ms_ssim, lpips, psim; and of sets fid, sfid, kid, is, precision, recall,
            density, coverage, frechet, which need features.
        preset: A protocol of the paper, which fixes metrics: super-resolution, inpainting.
    """
    from latentdiff.evaluation.image_sets import open_images
    from latentdiff.evaluation.pairs import Perceptual, evaluate_pairs

    chosen = preset_of(preset, "pairs", {"metrics": metrics})
    if chosen is not None:
        metrics = list(chosen.metrics)
        if preset == "inpainting" and masks is None:
            raise InputError("preset inpainting needs --masks FOLDER, by whose shares its numbers are")
    with console.quiet_libraries(report.quiet):
        report.check()
        if processes.count() > 1:
            raise InputError(f"evaluate pairs runs in one process; {processes.count()} are started, start one")
        opened = open_images(images, resolution)
        with console.progress(len(opened), "pairs", report.quiet) as done:
            found = evaluate_pairs(
                opened,
                originals,
                masks=masks,
                metrics=metrics,
                perceptual=Perceptual(perceptual.vgg16, perceptual.lpips_heads),
                resolution=resolution,
                device=device_of(report),
                done=done,
                features=features,
                cache=report.cache,
            )
        report.write(with_preset(found, preset))
