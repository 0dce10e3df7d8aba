"""What the commands of `latentdiff evaluate` have in common: their options, presets, and work that processes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from latentdiff.bulk import processes
from latentdiff.bulk.engines import perform
from latentdiff.bulk.shards import Work, missing
from latentdiff.cli import console
from latentdiff.cli.options import BulkOptions, Count, Flag, flag
from latentdiff.errors import InputError

if TYPE_CHECKING:
    import torch

    from latentdiff.evaluation.protocols import Preset, Report
    from latentdiff.evaluation.store import SharedFeatures

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
        from latentdiff.io.files import check_files

        check_files([path for path in (self.json, self.markdown) if path is not None])
        if self.card is not None:
            read_card(self.card)

    def write(self, report: Report) -> None:
        """Print the numbers and write the files."""
        from latentdiff.evaluation import reports
        from latentdiff.io.files import write_json, write_text

        if self.json is not None:
            write_json(self.json, reports.as_json(report))
        if self.markdown is not None:
            write_text(self.markdown, reports.as_markdown(report))
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


def preset_of(name: str | None, evaluates: str, given: Mapping[str, object]) -> Preset | None:
    """The preset of a name; None for none.

    Args:
        name: The name that is given.
        evaluates: What the command evaluates.
        given: The options that the preset fixes, by name; None for those that are not given.

    Raises:
        InputError: If there is no such preset, it is of another command, or an option is given that it fixes.
    """
    if name is None:
        return None
    from latentdiff.evaluation.protocols import find_preset

    preset = find_preset(name, evaluates)
    for option, value in given.items():
        if value is not None:
            raise InputError(f"{flag(option)} is given, but the preset ({preset.source}) fixes it; drop one of them")
    return preset


def with_preset(report: Report, preset: str | None) -> Report:
    """The report, which names its preset if it has one."""
    return report if preset is None else replace(report, facts={"preset": preset, **report.facts})


def changed(options: object, defaults: object) -> list[str]:
    """The flags of those options that are not as by default."""
    names = [field.name for field in fields(options)]  # type: ignore[arg-type]  # both are dataclasses
    return [flag(name) for name in names if getattr(options, name) != getattr(defaults, name)]


def device_of(report: ReportOptions) -> torch.device:
    """The device of --device."""
    from latentdiff.cli.batch.device import find_device

    return find_device(report.device)


def all_is_there(work: Work, what: str) -> bool:
    """Whether the work of all processes is done, for which those of a launcher wait.

    The jobs of an array don't wait for one another: the one that finds everything done goes on.
    """
    processes.wait_for_others()
    if count := sum(len(shard.items) for shard in missing(work, work.shards())):
        console.say(f"{count} {what} are still missing; whichever process ends last gives the numbers")
        return False
    return True


def compute_features(
    sets: SharedFeatures, make: Callable[[], Work], bulk: BulkOptions, quiet: bool, after_others: bool = False
) -> bool:
    """Compute this process's share of the features; whether all are there, and it is to give the numbers.

    Args:
        sets: What needs the features.
        make: Makes it once more, in an actor of Ray.
        bulk: What runs the workers.
        quiet: Whether to show no progress.
        after_others: Whether the jobs of an array have ended when the last one comes here, which then has no others.
    """
    with console.progress(sets.size(), "features", quiet) as done:
        if after_others and processes.count() > 1 and not processes.have_launcher():
            sets.compute(done)
        else:
            perform(sets, make, lambda told: done(told.images), bulk.engine, bulk.workers or 0)
    return all_is_there(sets, "features") and processes.finishes()
