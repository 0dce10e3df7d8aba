"""`latentdiff init`: the recipes of both stages for a folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.options import Flag
from latentdiff.cli.recipes import recipe_flags
from latentdiff.cli.values import number
from latentdiff.config import load_recipe
from latentdiff.errors import InputError
from latentdiff.tasks import TASKS
from latentdiff.training.first_stage.options import FirstStageDataOptions

if TYPE_CHECKING:
    from latentdiff.training.engine.dry_run import DryRun
    from latentdiff.training.start.recipes import Plan

UNUSED = ("train_data_dir", "dataset_name", "dataset_config_name")  # options of the data that aren't flags here


def init(
    source: Annotated[str, Parameter(name="DATA")],
    /,
    *,
    name: str | None = None,
    size: Literal["tiny", "small", "base", "paper"] | None = None,
    task: str | None = None,
    hours: Annotated[float | None, Parameter(validator=number(0.001, kind="a number"))] = None,
    unmeasured: Flag = False,
    quiet: Flag = False,
    **options: str,
) -> None:
    """Write the recipes of a first stage and a diffusion model for your images, NAME-1-... and NAME-2-....yaml.

    DATA is a folder of images, or what else train_data_dir may be. It is looked at as by latentdiff data check, but at
    256 of its images. Networks fit the number of images and this machine, the condition is what is known of the images,
    and three real steps of each stage tell the time. Nothing is overwritten.

    Args:
        name: What recipes and runs are called (default: as the data are).
        size: Size of the networks (default: the largest that the images and this machine are enough for).
        task: The conditioning, such as unconditional or class-to-image (default: by what is known of the images).
        hours: Time for both stages on this machine, which the numbers of steps follow from.
        unmeasured: Make no steps, and say no times.
        quiet: Print nothing but errors.
    """
    console.announce(f"looking at {source}", quiet)
    from latentdiff.training.engine.belongings import check_start
    from latentdiff.training.start.files import free_places, name_of, write_new
    from latentdiff.training.start.machine import Machine
    from latentdiff.training.start.measure import measure, steps_in
    from latentdiff.training.start.presets import fitting_preset, preset_called
    from latentdiff.training.start.recipes import make_plan
    from latentdiff.training.start.survey import survey

    if hours is not None and unmeasured:
        raise InputError("--hours is given, and --unmeasured too; steps are measured to know how many fit, drop one")
    with console.quiet_libraries(quiet):
        called = name or name_of(source)
        places = free_places(called)
        found = survey(load_recipe(FirstStageDataOptions, None, {"train_data_dir": source, **options}))
        machine = Machine.here()
        fitting = fitting_preset(len(found.images), machine.memory, machine.accelerator)
        plan = make_plan(called, found, preset_called(size) if size else fitting, machine, task)
        check_start(plan.first_stage)
        check_start(plan.diffusion)
        measured = None
        if not unmeasured:
            console.announce("making three steps of each stage", quiet)
            measured = measure(plan)
        if measured and hours is not None:
            plan = plan.with_steps(*steps_in(hours, measured))
        if measured:
            plan = plan.timed(measured)
        write_new(list(zip(places, plan.texts(), strict=True)))
    if not quiet:
        console.say("\n".join([*_lines(plan, measured), f"next: latentdiff train {places[0]} {places[1]}"]))


init.__annotations__["options"] = Unpack[recipe_flags(FirstStageDataOptions, leave_out=UNUSED)]


def _lines(plan: Plan, measured: tuple[DryRun, DryRun] | None) -> Iterator[str]:
    """What was found and is proposed."""
    machine = plan.machine
    yield from plan.survey.facts
    yield (
        f"{plan.preset.name} networks at {plan.resolution} pixels, {plan.task} ({TASKS[plan.task].summary}), for this "
        f"{machine.device} of {machine.memory:.0f} GiB"
    )
    if measured:
        for stage, run, steps in zip(("first stage", "diffusion model"), measured, plan.steps, strict=True):
            time = timedelta(seconds=round(run.seconds * steps))
            yield f"{stage}: {run.parameters / 1e6:.1f} million parameters, {steps:,} steps, {time} here"
