"""`latentdiff evaluate`: how good samples, reconstructions or restored images are, with numbers named by protocol."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from latentdiff.cli import console
from latentdiff.cli.batch import processes
from latentdiff.cli.batch.sampled import SampledModelOptions, is_model, sample_model
from latentdiff.cli.options import Count, FirstSeedOptions, Flag, GuidanceOptions, flag
from latentdiff.errors import InputError

if TYPE_CHECKING:
    import torch

    from latentdiff.evaluation.protocols import Preset, Report

DEFAULT_FEATURES = "inception"
REPORT, SETS = Group.create_ordered("Report"), Group.create_ordered("Images")

Names = Annotated[list[str] | None, Parameter(consume_multiple=1, metavar="NAME", show_default="all that can be")]
OptionalCount = Annotated[Count | None, Parameter(show_default="all", group=SETS)]
Resolution = Annotated[
    Count | None,
    Parameter(group=SETS, metavar="N", help="Crop and resize all images to squares of N pixels, as training does."),
]
Features = Annotated[
    str,
    Parameter(
        metavar="NAME",
        help="Features: inception (FID's), inception:FILE, efficientnet_lite0, vgg16, vgg16:FILE, dinov2:FOLDER.",
    ),
]


@Parameter(name="*", group=REPORT)
@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Where numbers go, and where is computed.

    Attributes:
        json: Write numbers, protocols and facts as JSON.
        markdown: Write them as a table in Markdown.
        card: Put the numbers into the model-index of this model card, a README.md or its folder.
        dataset: The data set of the reference, for the model card: its id on the hub, or any name.
        cache: Folder in which features are kept (default: in the hub's folder for what libraries make).
        device: Device, such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one).
        quiet: Print nothing but numbers and errors.
    """

    json: Annotated[str | None, Parameter(metavar="FILE")] = None
    markdown: Annotated[str | None, Parameter(metavar="FILE")] = None
    card: Annotated[str | None, Parameter(metavar="FILE")] = None
    dataset: str | None = None
    cache: Annotated[str | None, Parameter(metavar="FOLDER")] = None
    device: str | None = None
    quiet: Flag = False

    def __post_init__(self) -> None:
        if (self.card is None) != (self.dataset is None):
            raise InputError("--card and --dataset go together; give both or none")

    def check(self) -> None:
        """InputError unless all files can be written; nothing is."""
        from latentdiff.evaluation.reports import read_card
        from latentdiff.io.files import check_writable

        for path in filter(None, (self.json, self.markdown)):
            check_writable(path)
        if self.card is not None:
            read_card(self.card)

    def write(self, report: Report) -> None:
        """Print the numbers and write the files."""
        from latentdiff.evaluation import reports

        if self.json is not None:
            reports.write_json(self.json, report)
        if self.markdown is not None:
            reports.write_text(self.markdown, reports.as_markdown(report))
        if self.card is not None and self.dataset is not None:
            reports.add_to_card(self.card, report, self.dataset)
        for line in reports.as_lines(report):
            if not (self.quiet and line.startswith("note: ")):
                console.say(line)


@Parameter(name="*", group=Group.create_ordered("Perceptual networks"))
@dataclass(frozen=True, kw_only=True)
class PerceptualOptions:
    """Files of weights for LPIPS and PSIM.

    Attributes:
        vgg16: torchvision's vgg16-397923af.pth (default: that of torch's hub cache).
        lpips_heads: weights/v0.1/vgg.pth of the package lpips (default: that of the installed package).
    """

    vgg16: Annotated[str | None, Parameter(metavar="FILE")] = None
    lpips_heads: Annotated[str | None, Parameter(metavar="FILE")] = None


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
    samples_dir: Annotated[str, Parameter(group=SETS, metavar="FOLDER")] = "samples",
    report: ReportOptions = ReportOptions(),
    model: SampledModelOptions = SampledModelOptions(),
    sampling: FirstSeedOptions = FirstSeedOptions(),
    guidance: GuidanceOptions = GuidanceOptions(),
) -> None:
    """Compare samples with a reference: FID, sFID, KID, Inception score, precision and recall, density and coverage.

    SAMPLES is a folder, an .npz of images (arr_0), or a model, which is sampled first as `latentdiff sample` does.
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
        samples_dir: Where the samples of a model go; those that are there are kept.
    """
    from latentdiff.evaluation.references import open_reference
    from latentdiff.evaluation.samples import SamplesEvaluation

    chosen = _preset(preset, "samples")
    if chosen is not None:
        _check_preset(chosen, {"metrics": metrics, "count": count, "reference_name": reference_name})
        metrics, count, reference_name = list(chosen.metrics), chosen.count, chosen.reference
    with console.quiet_libraries(report.quiet):
        report.check()
        given = _changed(model, SampledModelOptions()) + _changed(sampling, FirstSeedOptions()) + guidance.given()
        if is_model(source):
            source = sample_model(source, samples_dir, count, model, sampling, guidance, report.device)
        elif given:
            raise InputError(f"{given[0]} is given, but {source} is sampled already; leave it out")
        device = _device(report)
        evaluation = SamplesEvaluation(
            source,
            open_reference(reference, resolution, reference_name),
            metrics=metrics,
            features=features,
            clip=clip,
            count=count,
            reference_count=reference_count,
            resolution=resolution,
            device=device,
            cache=report.cache,
        )
        with _progress(evaluation.size(), "features", report.quiet) as done:
            evaluation.compute(processes.rank(), processes.count(), done)
        if _others_are_done(lambda: len(evaluation.missing()), "parts of the features"):
            report.write(_with_preset(evaluation.report(), preset))


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
) -> None:
    """Reconstruct images with a model's first stage, and compare them: rFID, PSNR, SSIM, MS-SSIM, LPIPS, PSIM, codes.

    MODEL is a model or the folder of a first stage, DATA a folder or any data that training reads.

    Args:
        output: Where reconstructions go; those that are there are kept.
        metrics: What to compute: rfid, rfrechet, ris, psnr, ssim, ms_ssim, lpips, psim, codebook.
        preset: A protocol of the paper, which fixes metrics: first-stage.
        count: Images, from the first on.
    """
    from latentdiff.evaluation.first_stage import FirstStageEvaluation
    from latentdiff.evaluation.pairs import Perceptual

    chosen = _preset(preset, "first-stage")
    if chosen is not None:
        _check_preset(chosen, {"metrics": metrics})
        metrics = list(chosen.metrics)
    with console.quiet_libraries(report.quiet):
        report.check()
        evaluation = FirstStageEvaluation(
            model,
            data,
            output,
            metrics=metrics,
            features=features,
            perceptual=Perceptual(perceptual.vgg16, perceptual.lpips_heads),
            count=count,
            resolution=resolution,
            device=_device(report),
            cache=report.cache,
        )
        with _progress(evaluation.count, "reconstructions", report.quiet) as done:
            evaluation.reconstruct(processes.rank(), processes.count(), done)
        if _others_are_done(evaluation.missing, "reconstructions"):
            report.write(_with_preset(evaluation.report(), preset))


def pairs(
    images: Annotated[str, Parameter(name="IMAGES")],
    originals: Annotated[str, Parameter(name="ORIGINALS")],
    /,
    *,
    masks: Annotated[str | None, Parameter(metavar="FOLDER", group=SETS)] = None,
    metrics: Names = None,
    preset: Annotated[str | None, Parameter(metavar="NAME")] = None,
    resolution: Resolution = None,
    report: ReportOptions = ReportOptions(),
    perceptual: PerceptualOptions = PerceptualOptions(),
) -> None:
    """Compare images with their originals, one by one: PSNR, SSIM, MS-SSIM, LPIPS, PSIM.

    Of two folders, files of equal names belong together, whatever the suffix.

    Args:
        masks: Masks of the images' names, white where pixels were made anew: numbers for 40 to 50 % masked, and all.
        metrics: What to compute: psnr, ssim, ms_ssim, lpips, psim.
        preset: A protocol of the paper, which fixes metrics: super-resolution, inpainting.
    """
    from latentdiff.evaluation.image_sets import open_images
    from latentdiff.evaluation.pairs import Perceptual, evaluate_pairs

    chosen = _preset(preset, "pairs")
    if chosen is not None:
        _check_preset(chosen, {"metrics": metrics})
        metrics = list(chosen.metrics)
        if preset == "inpainting" and masks is None:
            raise InputError("preset inpainting needs --masks FOLDER, by whose shares its numbers are")
    with console.quiet_libraries(report.quiet):
        report.check()
        if processes.count() > 1:
            raise InputError(f"evaluate pairs runs in one process; {processes.count()} are started, start one")
        opened = open_images(images, resolution)
        with _progress(len(opened), "pairs", report.quiet) as done:
            found = evaluate_pairs(
                opened,
                originals,
                masks=masks,
                metrics=metrics,
                perceptual=Perceptual(perceptual.vgg16, perceptual.lpips_heads),
                resolution=resolution,
                device=_device(report),
                done=done,
            )
        report.write(_with_preset(found, preset))


def _preset(name: str | None, evaluates: str) -> Preset | None:
    from latentdiff.evaluation.protocols import find_preset

    return None if name is None else find_preset(name, evaluates)


def _check_preset(preset: Preset, given: dict[str, object]) -> None:
    """InputError if an option is given that the preset fixes."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{flag(name)} is given, but the preset ({preset.source}) fixes it; drop one of them")


def _with_preset(report: Report, preset: str | None) -> Report:
    return report if preset is None else replace(report, facts={"preset": preset, **report.facts})


def _changed(options: object, defaults: object) -> list[str]:
    """The flags of those options that are not as by default."""
    names = [field.name for field in fields(options)]  # type: ignore[arg-type]  # both are dataclasses
    return [flag(name) for name in names if getattr(options, name) != getattr(defaults, name)]


def _device(report: ReportOptions) -> torch.device:
    from latentdiff.cli.batch.device import find_device

    return find_device(report.device)


@contextlib.contextmanager
def _progress(total: int, what: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Yield what hears of finished images; a bar shows them where someone watches."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit="images", disable=not console.progress_shown(quiet)) as bar:

        def done(images: int) -> None:
            bar.update(images)

        yield done


def _others_are_done(missing: Callable[[], int], what: str) -> bool:
    """Whether this process is to give the numbers: all work is done, and it is the first of those that waited.

    The jobs of an array don't wait for one another: the one that finds everything done gives the numbers.
    """
    processes.wait_for_others()
    if count := missing():
        console.say(f"{count} {what} are still missing; whichever process ends last gives the numbers")
        return False
    return processes.rank() == 0 or "MASTER_ADDR" not in os.environ
