"""`latentdiff tune-steps`: the timesteps of a number of steps that suit a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.plan import Item, Job
from latentdiff.cli.messages import flags_named
from latentdiff.cli.options import ComputeDType, Count, ModelOptions
from latentdiff.cli.values import number, registered_scheduler
from latentdiff.errors import InputError
from latentdiff.registry import SCHEDULERS
from latentdiff.tasks import task_of_pipeline

if TYPE_CHECKING:
    from latentdiff.pipelines.base import DiffusionPipeline
    from latentdiff.schedulers.tuned import TunedTimesteps

OF_FILES = ("layout-to-image", "semantic-to-image", "super-resolution", "inpaint")
"""The tasks whose conditions are files."""


def tune_steps(
    model: str,
    path: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    /,
    *,
    steps: Count = 10,
    scheduler: Annotated[str | None, Parameter(validator=registered_scheduler, metavar="NAME")] = None,
    guidance_scale: Annotated[float | None, Parameter(validator=number(), metavar="SCALE")] = None,
    prompts: Annotated[str | None, Parameter(metavar="FILE")] = None,
    mask: Annotated[str | None, Parameter(metavar="PATH")] = None,
    num_images: Annotated[Count, Parameter(alias="-n")] = 16,
    seed: Annotated[int, Parameter(validator=number(0), metavar="N")] = 0,
    batch_size: Count = 8,
    output: Annotated[str | None, Parameter(alias="-o", metavar="FOLDER")] = None,
    revision: str | None = None,
    dtype: ComputeDType = "float32",
    device: str | None = None,
) -> None:
    """Find the timesteps of a number of steps that suit a model, for --steps tuned:N.

    Candidates are the usual schedules, those of GITS (Chen et al. 2024) and of Xue et al. 2024; the one whose results
    are nearest to those of very many steps is refined. Images of other seeds decide whether it is better than the usual
    ones, whose distances are printed beside its own. The timesteps go into the config of the model's scheduler, which
    diffusers loads as before; they are for this solver and this guidance. For N = 10 it takes as long as some 800 steps
    for each of the images to tune on.

    Args:
        model: A model folder; builtin:NAME or a hub id with --output.
        path: What the model's images are made of: layouts, label maps or images of one size, or folders of them.
        steps: The number of steps N.
        scheduler: The solver, one that adds no noise (default: the model's own).
        guidance_scale: Strength of classifier-free guidance (default: that of the model's command).
        prompts: A UTF-8 file of prompts, one a line, for a model that takes prompts.
        mask: Masks of the images, for an inpainting model.
        num_images: Images to tune on; as many again are for the check.
        seed: Seed of the first image.
        batch_size: Images that are computed at once, which bounds the memory.
        output: Where a copy of the model goes that has the timesteps (default: the model's folder gets them).
        revision: Branch, tag or commit of a hub model.
        dtype: Precision of the networks; "auto" is bfloat16 where the device multiplies in it, else float32.
        device: Device, such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one).
    """
    console.announce(f"loading {model}")
    with console.quiet_libraries(quiet=False), flags_named():
        from latentdiff.hub.find import model_of_run
        from latentdiff.hub.save import check_target

        name = model_of_run(model)
        if output is not None:
            if check_target(output).is_dir() and any(Path(output).iterdir()):
                raise InputError(f"{output} exists already; choose another --output, or give it as the MODEL to tune")
        elif not Path(name).is_dir():
            raise InputError(
                f"{model} is no folder that could keep the timesteps; give --output FOLDER for a copy of it"
            )
        from tqdm import tqdm

        from latentdiff.cli.batch.device import find_device
        from latentdiff.cli.batch.sampler import load
        from latentdiff.cli.commands.generate import read_prompts
        from latentdiff.io.files import check_writable
        from latentdiff.pipelines.run_state import default_guidance_scale
        from latentdiff.schedulers.tuned import read_tuned
        from latentdiff.tuning import TEACHER_STEPS, runs_needed, save_tuned
        from latentdiff.tuning import tune_steps as tune

        options = ModelOptions(model=name, revision=revision, dtype=dtype, device=device)
        place = find_device(device)
        pipe = load(options)
        own = pipe.scheduler
        if output is None:
            check_writable(Path(name) / "scheduler" / "scheduler_config.json")
        read_tuned(own.config)  # what is there already is kept, so it is looked at before the long work
        texts = [] if prompts is None else read_prompts((), prompts)
        command = command_of(pipe, options, path, texts, mask)
        inputs, call = inputs_of(pipe, command, texts), command.arguments()
        default = default_guidance_scale(pipe.components)
        scale = default if guidance_scale is None else guidance_scale
        if guidance_scale is not None and default is None:
            raise InputError(f"{model} is unconditional and has no use for --guidance-scale; leave it out")
        if scheduler is not None:
            pipe.set_scheduler(scheduler)
        pipe.to(place)
        pipe.set_progress_bar_config(disable=True)
        total = -(-num_images // batch_size) * runs_needed(steps)
        with tqdm(total=total, desc=f"{steps} steps, against {TEACHER_STEPS}", leave=False) as bar:

            def progress(what: str) -> None:
                bar.set_postfix_str(what)
                bar.update()

            guided = call if scale is None else {**call, "guidance_scale": scale}
            tuned = tune(
                pipe,
                steps,
                inputs,
                num_images=num_images,
                seed=seed,
                batch_size=batch_size,
                progress=progress,
                call=guided,
            )
        for line in report(tuned):
            console.say(line)
        if output is not None:
            pipe.register_modules(scheduler=own)
            pipe.save_pretrained(output)
        console.say(str(save_tuned(name if output is None else output, tuned)))


def command_of(
    pipe: DiffusionPipeline, model: ModelOptions, paths: Sequence[str], texts: list[str], mask: str | None
) -> ImageCommand:
    """The command of the model's task, which reads what its images are made of.

    Raises:
        InputError: If that isn't given, or what is given is of no use to the model.
    """
    from latentdiff.cli.commands.generate import Generate
    from latentdiff.cli.commands.inpaint import Inpaint
    from latentdiff.cli.commands.layout import Layouts
    from latentdiff.cli.commands.sample import Sample
    from latentdiff.cli.commands.semantic import Semantic
    from latentdiff.cli.commands.upscale import Upscale

    spec = task_of_pipeline(type(pipe).__name__)
    if spec is None or spec.command is None:
        raise InputError(
            f"{model.model} has {type(pipe).__name__}, of no command of latentdiff; call latentdiff.tune_steps in "
            "Python"
        )
    task = spec.name
    takes_prompts = pipe.components.get("text_encoder") is not None
    if takes_prompts and not texts:
        raise InputError(f"{model.model} takes prompts; give --prompts FILE, one a line, such as it is used with")
    unused = {
        "--prompts": bool(texts) and not takes_prompts,
        "--mask": mask is not None and task != "inpaint",
        "PATH": bool(paths) and task not in OF_FILES,
    }
    for flag in (flag for flag, given in unused.items() if given):
        raise InputError(f"{model.model} is a model of the task {task} and has no use for {flag}; leave it out")
    if task in OF_FILES and not paths:
        raise InputError(f"{model.model} is a model of the task {task}; give the PATH of files that it makes images of")
    files, prompt = list(paths), texts[0] if texts else None
    match task:
        case "text-to-image":
            return Generate(tuple(texts), model=model)
        case "layout-to-image":
            return Layouts(files, model=model)
        case "semantic-to-image":
            return Semantic(files, model=model)
        case "super-resolution":
            return Upscale(files, model=model, prompt=prompt)
        case "inpaint":
            if mask is None:
                raise InputError(f"{model.model} is a model of the task {task}; give --mask for the images' masks")
            return Inpaint(files, model=model, mask=mask, prompt=prompt)
        case _:
            return Sample(model=model)


def inputs_of(pipe: DiffusionPipeline, command: ImageCommand, texts: Sequence[str]) -> list[Arguments]:
    """The arguments of the pipeline for one image each, of all that a command was given; files take prompts in turn."""
    from latentdiff.cli.batch.sampler import shapes

    command.prepare(pipe)
    items: Sequence[Item] = command.items()
    if command.task == "unconditional":
        from latentdiff.cli.commands.labels import all_labels

        return [] if pipe.components.get("class_embedder") is None else [{"class_labels": n} for n in all_labels(pipe)]
    inputs = []
    for place, item in enumerate(items):
        job = Job(item, 0, None)
        prompt = {"prompt": texts[place % len(texts)]} if texts else {}
        inputs.append({**command.fit(pipe, job, command.read(job)), **prompt})
    if len({shapes(each) for each in inputs}) > 1:
        raise InputError(f"{command.model.model} is given images of several sizes; give images of one size")
    return inputs


def report(tuned: TunedTimesteps) -> list[str]:
    """What was found, as lines."""
    name = next((name for name in SCHEDULERS.names() if SCHEDULERS.get(name).__name__ == tuned.solver), tuned.solver)
    kept = tuned.method in tuned.untuned
    lines = [f"distance from the teacher's latents of {name} in {tuned.steps} steps, on seeds that were not tuned on:"]
    lines += [f"  {untuned}: {distance:.4f}" for untuned, distance in tuned.untuned.items()]
    if kept:
        lines.append(f"  no tuned timesteps are nearer; tuned:{tuned.steps} is {tuned.method}")
    else:
        lines.append(f"  tuned ({tuned.method}): {tuned.distance:.4f}")
    return [*lines, f"timesteps: {' '.join(map(str, tuned.timesteps))}"]
