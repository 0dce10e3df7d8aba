"""Options that commands share, each defined once: the model, sampling, guidance, output.

A flag is a field's name, its text in --help is the field's line under "Attributes" or `Parameter(help=...)`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from latentdiff.bulk import processes
from latentdiff.cli.values import MAX_SIZE, number, registered_scheduler
from latentdiff.cli.values import size as convert_size
from latentdiff.cli.values import steps as convert_steps
from latentdiff.errors import InputError
from latentdiff.io.files import check_writable
from latentdiff.io.stored import WRITTEN_KINDS
from latentdiff.registry import SCHEDULERS
from latentdiff.tasks import AUTOGUIDANCE_SCALE, CLASS_GUIDANCE_SCALE, NUM_INFERENCE_STEPS, TEXT_GUIDANCE_SCALE

DEFAULT_FOLDER = "images"
PREVIEW_EVERY = 5  # steps

MODEL, SAMPLING, GUIDANCE, OUTPUT = map(Group.create_ordered, ("Model", "Sampling", "Guidance", "Output"))

Flag = Annotated[bool, Parameter(show_default=False)]
Count = Annotated[int, Parameter(validator=number(1), metavar="N")]
Share = Annotated[float, Parameter(validator=number(0, 1), metavar="SHARE")]
DType = Literal["float32", "bfloat16", "float16"]
ComputeDType = Literal["float32", "bfloat16", "float16", "auto"]
Compile = Literal["no", "auto", "yes"]
Quantize = Literal["int8"]
TimestepSpacing = Literal["leading", "trailing", "linspace", "original"]
ImageFormat = Literal["png", "jpeg", "webp"]

Size = Annotated[
    tuple[int, int] | None,
    Parameter(
        converter=convert_size,
        n_tokens=1,
        metavar="SIZE",
        group=SAMPLING,
        help=f'Size in pixels, "64" or "WIDTHxHEIGHT", {MAX_SIZE} pixels at most (default: the model\'s own).',
    ),
]
Grid = Annotated[
    bool,
    Parameter(
        show_default=False,
        group=OUTPUT,
        help="Write one image: a row for each input, a column for each seed.",
    ),
]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model is used, in what precision and where.

    Attributes:
        model: "builtin:NAME", a folder, or a hub id "owner/name".
        revision: Branch, tag or commit of a hub model.
        dtype: Precision of the networks; "auto" is bfloat16 where the device multiplies in it, else float32.
        device: Device, such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one).
        decoder: A tiny decoder distilled from the model's first stage, which takes its place: a folder or a hub id.
        compile: Compile the networks; "auto" where so many images are made that it saves time, and without an error.
        quantize: Hold the weights of UNet and text encoder in 8 bits, which takes a quarter of the memory of float32.
    """

    model: str
    revision: str | None = None
    dtype: ComputeDType = "float32"
    device: str | None = None
    decoder: str | None = None
    compile: Compile = "no"
    quantize: Quantize | None = None


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class SolverOptions:
    """Seeds, the solver, and how much is computed at once.

    Attributes:
        seed: A seed such as "7", or a range of them such as "0-7", for one image of each input per seed.
        num_images: Images of each input, of seeds SEED to SEED+N-1.
        steps: Steps of the solver; tuned:N takes the timesteps that latentdiff tune-steps found for N.
        timestep_spacing: How the solver's timesteps are spread (default: the model's way); "original" is the way of the
            paper's code, uneven where the steps don't divide the trained ones.
        eta: Share of fresh noise in a step of DDIM, 0 to 1.
        temperature: Factor on the noise that the steps add, for solvers that add some.
        quantize_denoised: Go on from the nearest codes in each step, for models with a VQ first stage.
        cache_interval: Evaluate the network in full once in N times and reuse its deep features between, which is
            faster and less exact.
        cache_branch: How much of the network is evaluated in between, from 0, the least (default: 0).
        cache_center: Share of the run around which the full evaluations lie close together (default: an even spread).
        cache_power: How much closer together, from 1, an even spread (default: 1.4).
        batch_size: Images that are computed at once, which bounds the memory.
        window: See large images in overlapped windows of N pixels, best the size that the model was trained on.
        window_overlap: Pixels that windows share (default: a quarter).
        wrap: Join the left and right edges, as in a panorama; needs --window.

    Raises:
        InputError: If options contradict each other.
    """

    seed: Annotated[str | None, Parameter(show_default=lambda seed: seed or "random")] = None
    num_images: Annotated[Count | None, Parameter(alias="-n")] = None
    steps: Annotated[int | str, Parameter(converter=convert_steps, n_tokens=1, metavar="N")] = NUM_INFERENCE_STEPS
    scheduler: Annotated[
        str | None,
        Parameter(
            validator=registered_scheduler,
            metavar="NAME",
            help=f"The solver (default: the model's own): {', '.join(SCHEDULERS.names())}.",
        ),
    ] = None
    timestep_spacing: TimestepSpacing | None = None
    eta: Share = 0.0
    temperature: Annotated[float, Parameter(validator=number(0, kind="a number"), metavar="FACTOR")] = 1.0
    quantize_denoised: Flag = False
    cache_interval: Count = 1
    cache_branch: Annotated[int | None, Parameter(validator=number(0), metavar="N")] = None
    cache_center: Share | None = None
    cache_power: Annotated[float | None, Parameter(validator=number(1, kind="a number"), metavar="POWER")] = None
    batch_size: Count = 8
    window: Count | None = None
    window_overlap: Annotated[int | None, Parameter(validator=number(0), metavar="N")] = None
    wrap: Flag = False
    autoguidance: Annotated[
        str | None,
        Parameter(
            metavar="MODEL",
            group=GUIDANCE,
            help="A weaker model of the same first stage, such as an earlier checkpoint or a smaller one, which images "
            'are led away from: "builtin:NAME", a folder, or a hub id.',
        ),
    ] = None
    autoguidance_scale: Annotated[
        float | None,
        Parameter(
            validator=number(),
            metavar="SCALE",
            group=GUIDANCE,
            help=f"Strength of --autoguidance, 1 is none (default: {AUTOGUIDANCE_SCALE:g}).",
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.autoguidance is None and self.autoguidance_scale is not None:
            raise InputError("--autoguidance-scale is given without --autoguidance MODEL; give both or none")
        for name in ("cache_branch", "cache_center", "cache_power"):
            if self.cache_interval == 1 and getattr(self, name) is not None:
                raise InputError(f"{flag(name)} is given without a --cache-interval above 1; give both or none")
        if self.cache_power is not None and self.cache_center is None:
            raise InputError("--cache-power is given without --cache-center SHARE; give both or none")
        if isinstance(self.steps, str) and self.timestep_spacing is not None:
            spacing = f"--timestep-spacing is {self.timestep_spacing}"
            raise InputError(f"{spacing}, but --steps {self.steps} has timesteps of its own; drop one of them")
        if self.window is None:
            unused = [name for name in ("window_overlap", "wrap") if getattr(self, name) not in (None, False)]
            if unused:
                raise InputError(f"{flag(unused[0])} is given without --window N; give both or none")
        elif self.window_overlap is not None and self.window_overlap > self.window // 2:
            limit = f"at most half of --window, {self.window // 2}"
            raise InputError(f"--window-overlap is {self.window_overlap}; it must be {limit}")


@dataclass(frozen=True, kw_only=True)
class FirstSeedOptions(SolverOptions):
    """Sampling options whose seeds begin at 0, so that runs fill one folder."""

    seed: Annotated[str | None, Parameter(show_default=True)] = "0"


@Parameter(name="*", group=GUIDANCE)
@dataclass(frozen=True, kw_only=True)
class GuidanceOptions:
    """Classifier-free guidance.

    Attributes:
        guidance_interval: Part of the steps in which guidance acts, START END as fractions (default: 0 1).
        guidance_rescale: Correction of overexposure, 0 to 1 (default: 0).

    Raises:
        InputError: If options contradict each other.
    """

    guidance_scale: Annotated[
        float | None,
        Parameter(
            validator=number(),
            metavar="SCALE",
            help=f"Strength of classifier-free guidance, 1 is none (default: {TEXT_GUIDANCE_SCALE:g} for prompts, "
            f"{CLASS_GUIDANCE_SCALE:g} for classes if the model has a null class, else 1).",
        ),
    ] = None
    guidance_interval: Annotated[tuple[Share, Share] | None, Parameter(validator=number(0, 1))] = None
    guidance_rescale: Share | None = None

    def __post_init__(self) -> None:
        others = [name for name in self.given() if name != "--guidance-scale"]
        if self.guidance_scale == 1 and others:
            raise InputError(f"{others[0]} has no effect at --guidance-scale 1; drop one of them")
        start, end = self.guidance_interval or (0, 1)
        if start >= end:
            raise InputError(f"--guidance-interval is {start:g} {end:g}; it must start before it ends")

    def given(self) -> list[str]:
        """The flags of the options that are given."""
        return [flag(field.name) for field in fields(self) if getattr(self, field.name) is not None]


@dataclass(frozen=True, kw_only=True)
class TextGuidanceOptions(GuidanceOptions):
    """Guidance options of commands that take a prompt.

    Attributes:
        negative_prompt: What to lead away from.
    """

    negative_prompt: Annotated[str | None, Parameter(metavar="TEXT")] = None


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where images go.

    Attributes:
        format: The kind of the files; JPEG and WebP lose a little (default: by the name of --output, else png).
        overwrite: Make and replace files that exist.
        quiet: Print nothing but errors.
        preview: Show in the terminal what the images are becoming.

    Raises:
        InputError: If options contradict each other, or the preview's file can't be written.
    """

    output: Annotated[
        str | None,
        Parameter(
            alias="-o",
            metavar="PATH",
            help="A .png, .jpg or .webp file for one image, else a folder, in which files that exist are kept "
            f"(default: NAME-seedSEED.png for one image, the folder {DEFAULT_FOLDER}/ for several).",
        ),
    ] = None
    format: ImageFormat | None = None
    overwrite: Flag = False
    quiet: Flag = False
    preview: Flag = False
    preview_file: Annotated[
        str | None,
        Parameter(
            metavar="FILE.png", help="Write to this file what the images are becoming; each picture replaces the last."
        ),
    ] = None
    preview_every: Annotated[
        Count | None, Parameter(help=f"Steps from one preview to the next (default: {PREVIEW_EVERY}).")
    ] = None

    def __post_init__(self) -> None:
        if self.preview_every is not None and not (self.preview or self.preview_file):
            raise InputError("--preview-every is given without --preview or --preview-file FILE.png; give one of them")
        if self.preview and self.quiet:
            raise InputError("--preview and --quiet are both given; --preview-file FILE.png prints nothing")
        if self.preview_file is None:
            return
        path = Path(self.preview_file)
        if path.suffix.lower() != ".png" or path.is_dir():
            raise InputError(f"--preview-file is {self.preview_file}; it must be a .png file")
        check_writable(path)

    def suffix(self) -> str:
        """What the names of images end in; InputError if --output and --format say different things."""
        given = Path(self.output or "").suffix.lower()
        kind = WRITTEN_KINDS.get(given)
        if self.format is None:
            return given if kind else ".png"
        if kind not in (None, self.format.upper()):
            raise InputError(f"--output is {self.output}, but --format is {self.format}; leave one of them out")
        return given if kind else next(end for end, kind in WRITTEN_KINDS.items() if kind == self.format.upper())


@Parameter(name="*", group=Group.create_ordered("Bulk work"))
@dataclass(frozen=True, kw_only=True)
class BulkOptions:
    """What runs the workers of bulk work.

    Attributes:
        engine: "processes" are those that a launcher starts, one if there is none; "ray" runs actors of Ray.

    Raises:
        InputError: If options contradict each other, or Ray isn't installed.
    """

    engine: Literal["processes", "ray"] = "processes"
    workers: Annotated[
        Count | None,
        Parameter(help="Actors of --engine ray (default: one for each GPU of its cluster, else for each CPU)."),
    ] = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.engine != "ray":
            raise InputError(f"--workers {self.workers} is given without --engine ray; give both or none")
        if self.engine == "ray" and find_spec("ray") is None:
            raise InputError("--engine ray needs Ray; install latentdiff[ray], or leave --engine out")
        if self.engine == "ray" and processes.count() > 1:
            raise InputError(f"--engine ray is given to {processes.count()} processes; start one, Ray has its own")


def flag(name: str) -> str:
    """The option as it is typed."""
    return f"--{name.replace('_', '-')}"
