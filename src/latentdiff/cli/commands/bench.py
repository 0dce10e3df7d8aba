"""`latentdiff bench`: how fast a model is, what it computes, and its quality against time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from cyclopts import Group, Parameter, Token

from latentdiff.bulk import processes
from latentdiff.cli import console
from latentdiff.cli.messages import flags_named
from latentdiff.cli.options import MODEL, SAMPLING, ComputeDType, Count, Flag, flag
from latentdiff.cli.values import number, registered_scheduler
from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS
from latentdiff.tasks import NUM_INFERENCE_STEPS

TABLE, REPORT = Group.create_ordered("Quality against time"), Group.create_ordered("Report")


def comma_separated(type_: object, tokens: Sequence[Token]) -> list[str]:
    """The converter of values that commas or blanks separate."""
    return [word for token in tokens for word in token.value.split(",") if word]


def comma_separated_numbers(type_: object, tokens: Sequence[Token]) -> list[int]:
    """The converter of positive integers that commas or blanks separate."""
    words = comma_separated(type_, tokens)
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise ValueError("it must be integers of at least 1, separated by commas or blanks")
    return [int(word) for word in words]


def all_registered(type_: object, values: object) -> None:
    """The validator of names in the registry of schedulers."""
    for name in values if isinstance(values, list) else ():
        registered_scheduler(type_, name)


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True, kw_only=True)
class BenchedModelOptions:
    """The model that is measured.

    Attributes:
        revision: Branch, tag or commit of a hub model.
        dtype: Precision of the networks; "auto" is bfloat16 where the device multiplies in it, else float32.
        device: Device, such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one).
    """

    revision: str | None = None
    dtype: ComputeDType = "float32"
    device: str | None = None


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class MeasuredOptions:
    """What is timed.

    Attributes:
        guidance_scale: Strength of classifier-free guidance (default: that of the model's task).
        batch_size: Images that are made at once.
        rounds: Calls that medians are of.
        against: Take turns with diffusers' pipeline of the same weights.
    """

    solvers: Annotated[
        list[str] | None,
        Parameter(
            converter=comma_separated,
            validator=all_registered,
            consume_multiple=1,
            metavar="NAME",
            help="Solvers, separated by commas or blanks; speed is that of the first (default: the model's own): "
            f"{', '.join(SCHEDULERS.names())}.",
        ),
    ] = None
    steps: Annotated[
        list[int] | None,
        Parameter(
            converter=comma_separated_numbers,
            consume_multiple=1,
            metavar="N",
            help=f"Numbers of steps, separated likewise; speed is that at the most (default: {NUM_INFERENCE_STEPS}).",
        ),
    ] = None
    guidance_scale: Annotated[float | None, Parameter(validator=number(), metavar="SCALE")] = None
    batch_size: Count = 8
    rounds: Count = 5
    against: Literal["diffusers"] | None = None


@Parameter(name="*", group=TABLE)
@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The table of all solvers and numbers of steps.

    Attributes:
        reference: Images that samples are compared with: a folder, any data that training reads, a recipe, or a file of
            statistics. A model of text or classes makes its images of their captions or classes.
        count: Images of each solver and number of steps.
        target: A solver and its steps, whose distance the others are to reach.
        reference_count: Images of the reference, from the first on (default: all).
        resolution: Crop and resize all images to squares of N pixels, as training does.
        seed: The seed of the first image; those of image i are the same in the whole table.
        samples_dir: Where samples go; what is there is not made again.
        cache: Folder in which features are kept (default: in the hub's folder for what libraries make).
    """

    reference: Annotated[str | None, Parameter(metavar="DATA")] = None
    count: Count | None = None
    target: Annotated[str | None, Parameter(metavar="SOLVER:STEPS")] = None
    features: Annotated[
        str,
        Parameter(
            metavar="NAME",
            help="Features: inception (FID's), inception:FILE, efficientnet_lite0, vgg16, vgg16:FILE, dinov2:FOLDER.",
        ),
    ] = "inception"
    reference_count: Count | None = None
    resolution: Count | None = None
    seed: Annotated[int, Parameter(validator=number(0))] = 0
    samples_dir: Annotated[str, Parameter(metavar="FOLDER")] = "bench"
    cache: Annotated[str | None, Parameter(metavar="FOLDER")] = None


@Parameter(name="*", group=REPORT)
@dataclass(frozen=True, kw_only=True)
class BenchOutputOptions:
    """Where numbers go.

    Attributes:
        json: Write all numbers as JSON.
        markdown: Write the tables in Markdown.
        plot: Draw quality against time as a PNG.
        quiet: Print nothing but numbers and errors.
    """

    json: Annotated[str | None, Parameter(metavar="FILE")] = None
    markdown: Annotated[str | None, Parameter(metavar="FILE")] = None
    plot: Annotated[str | None, Parameter(metavar="FILE")] = None
    quiet: Flag = False


def bench(
    model: Annotated[str, Parameter(name="MODEL")],
    /,
    *,
    loaded: BenchedModelOptions = BenchedModelOptions(),
    measured: MeasuredOptions = MeasuredOptions(),
    table: TableOptions = TableOptions(),
    output: BenchOutputOptions = BenchOutputOptions(),
) -> None:
    """Measure a model: samples and steps a second, the first image, memory, FLOPs, and its quality against time.

    With --reference, every solver makes the same images in every number of steps, and their Fréchet distance stands
    against samples a second, as in figure 7 of the paper. A run that was interrupted goes on where it stopped.
    """
    console.announce(f"loading {model}", output.quiet)
    with console.quiet_libraries(output.quiet), flags_named():
        _check(table, output)
        import torch

        from latentdiff.bench.plot import write_plot
        from latentdiff.bench.reports import as_json, as_lines, as_markdown
        from latentdiff.bench.run import Bench, check_arguments
        from latentdiff.cli.batch.device import dtype_name, find_device
        from latentdiff.io.files import write_json, write_text

        steps = measured.steps or [NUM_INFERENCE_STEPS]
        check_arguments(measured.solvers, steps, table.reference, table.count, table.target)
        made = Bench(
            model,
            solvers=measured.solvers,
            steps=steps,
            reference=table.reference,
            count=table.count,
            target=table.target,
            features=table.features,
            reference_count=table.reference_count,
            resolution=table.resolution,
            guidance_scale=measured.guidance_scale,
            seed=table.seed,
            batch_size=measured.batch_size,
            rounds=measured.rounds,
            against=measured.against,
            samples_dir=table.samples_dir,
            cache=table.cache,
            device=find_device(loaded.device),
            dtype=getattr(torch, dtype_name(loaded.dtype, loaded.device)),
            revision=loaded.revision,
        )
        with console.progress(0 if made.table is None else made.table.images_left(), "samples", output.quiet) as done:
            report = made.measure(lambda what: console.announce(what, output.quiet), done)
        if output.json is not None:
            write_json(output.json, as_json(report))
        if output.markdown is not None:
            write_text(output.markdown, as_markdown(report))
        if output.plot is not None and report.quality is not None:
            write_plot(output.plot, report.quality)
        for line in as_lines(report):
            console.say(line)


def _check(table: TableOptions, output: BenchOutputOptions) -> None:
    """InputError unless all files can be written and one process runs; nothing is loaded."""
    from latentdiff.io.files import check_files

    if processes.count() > 1:
        raise InputError(f"bench measures one process; {processes.count()} are started, start one")
    given = [flag(field.name) for field in fields(table) if getattr(table, field.name) != field.default]
    if table.reference is None and (given or output.plot is not None):
        raise InputError(
            f"{(given or ['--plot'])[0]} is for the table of quality, which needs --reference DATA; give it"
        )
    check_files([path for path in (output.json, output.markdown, output.plot) if path is not None])
