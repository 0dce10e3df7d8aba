"""All measurements of a model: the Python side of `latentdiff bench`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from latentdiff import __version__
from latentdiff.bench.against import Against, compare_with_diffusers, stock_pipeline
from latentdiff.bench.inputs import own_size, solver_of, task_name
from latentdiff.bench.quality import Quality, QualityTable
from latentdiff.bench.speed import Speed, load_timed, measure_speed
from latentdiff.bench.timing import network_calls
from latentdiff.compat import progress_bar_config
from latentdiff.errors import InputError
from latentdiff.evaluation.references import Reference
from latentdiff.evaluation.samples import DEFAULT_FEATURES
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.options import check_count
from latentdiff.pipelines.run_state import default_guidance_scale
from latentdiff.schedulers.select import scheduler_name
from latentdiff.tasks import NUM_INFERENCE_STEPS


@dataclass(frozen=True)
class BenchReport:
    """What was measured.

    Attributes:
        facts: What was measured, on what.
        speed: The speed of the first solver at the most steps.
        against: The comparison with diffusers; None if none was asked for.
        quality: The table; None without a reference.
    """

    facts: Mapping[str, object]
    speed: Speed
    against: Against | None
    quality: Quality | None


class Bench:
    """Measurements that are checked when this is made, and then carried out by `measure`.

    Args:
        model: A model, as `DiffusionPipeline.from_pretrained` takes it, or a loaded pipeline.
        solvers: Names of solvers; None takes the model's own, which has its options. The speed is that of the first.
        steps: Numbers of steps. The speed is that at the most.
        reference: As for `QualityTable`; None makes no table of quality, and then one solver and number is given.
        count: Images of a cell of the table.
        target: As for `QualityTable`.
        features: As for `QualityTable`.
        reference_count: As for `QualityTable`.
        resolution: As for `QualityTable`.
        guidance_scale: The strength of classifier-free guidance; None takes the default of the model's task.
        seed: The seed of the first image of a cell.
        batch_size: Images that are made at once.
        rounds: How many calls the medians of speeds are of.
        against: "diffusers", to take turns with its pipeline of the same weights; None for no comparison.
        samples_dir: As for `QualityTable`.
        cache: As for `QualityTable`.
        device: Where the model is put; None leaves a loaded pipeline where it is, and others on the CPU.
        dtype: The data type of the weights of a model that is loaded here; None is float32.
        revision: A branch, tag or commit on the hub, likewise.

    Raises:
        LatentDiffError: If the model can't be loaded, or an argument isn't valid.
    """

    def __init__(
        self,
        model: str | DiffusionPipeline,
        *,
        solvers: Sequence[str] | None = None,
        steps: Sequence[int] = (NUM_INFERENCE_STEPS,),
        reference: str | Path | Reference | None = None,
        count: int | None = None,
        target: str | None = None,
        features: str = DEFAULT_FEATURES,
        reference_count: int | None = None,
        resolution: int | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        batch_size: int = 8,
        rounds: int = 5,
        against: str | None = None,
        samples_dir: str | Path = "bench",
        cache: str | Path | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> None:
        check_arguments(solvers, steps, reference, count, target)
        for name, value in (("batch_size", batch_size), ("rounds", rounds)):
            check_count(name, value)
        if against not in (None, "diffusers"):
            raise InputError(f"against is {against!r}; known: diffusers")
        self.load_seconds: float | None = None
        if isinstance(model, DiffusionPipeline):
            for name, option in (("dtype", dtype), ("revision", revision)):
                if option is not None:
                    raise InputError(f"{name} is {option}, but the model is loaded already; leave it out")
            self.pipe, self.name = model, str(model.config.get("_name_or_path") or type(model).__name__)
            if device is not None:
                self.pipe.to(device)
        else:
            if revision is not None and (model.startswith("builtin:") or Path(model).is_dir()):
                raise InputError(f"revision is {revision!r}, but {model} is not on the hub; leave it out")
            self.pipe, self.load_seconds = load_timed(
                model, torch.device(device or "cpu"), dtype or torch.float32, revision
            )
            self.name = model
        self.batch_size, self.rounds = batch_size, rounds
        self.stock = stock_pipeline(self.pipe) if against else None
        self.guidance_scale = guidance_of(self.pipe, guidance_scale)
        self.options = {} if self.guidance_scale is None else {"guidance_scale": self.guidance_scale}
        own = scheduler_name(self.pipe.scheduler)
        self.solver, self.steps = None if solvers is None else solvers[0], max(steps)
        self._check_speed()
        self.table: QualityTable | None = None
        if reference is not None and count is not None:
            self.table = QualityTable(
                self.pipe,
                reference,
                solvers=solvers or [own],
                steps=steps,
                count=count,
                target=target,
                features=features,
                reference_count=reference_count,
                resolution=resolution,
                options=self.options,
                seed=seed,
                batch_size=batch_size,
                samples_dir=samples_dir,
                cache=cache,
            )

    def _check_speed(self) -> None:
        with solver_of(self.pipe, self.solver):
            limit = self.pipe.scheduler.config.num_train_timesteps
            if self.steps > limit:
                raise InputError(f"steps is {self.steps}; it must be an integer from 1 to {limit}")
            if network_calls(self.pipe, self.steps) < 2:
                raise InputError(f"steps is {self.steps}; the seconds of a step are those of all but the first, give 2")

    def measure(
        self,
        said: Callable[[str], None] = lambda what: None,
        done: Callable[[int], None] = lambda images: None,
    ) -> BenchReport:
        """Measure everything.

        Args:
            said: Hears what is measured next, and the table's cells as they are finished.
            done: Hears how many images of the table have been made.

        Raises:
            LatentDiffError: If an image of the reference can't be read, or the model's samples aren't finite.
        """
        bars = progress_bar_config(self.pipe)
        self.pipe.set_progress_bar_config(disable=True)  # bars would be timed, too
        try:
            return self._measure(said, done)
        finally:
            self.pipe.set_progress_bar_config(**bars)

    def _measure(self, said: Callable[[str], None], done: Callable[[int], None]) -> BenchReport:
        said("speed")
        with solver_of(self.pipe, self.solver):
            speed = measure_speed(
                self.pipe,
                self.steps,
                batch_size=self.batch_size,
                rounds=self.rounds,
                options=self.options,
                load_seconds=self.load_seconds,
            )
            solver = scheduler_name(self.pipe.scheduler)
        against = None
        if self.stock is not None:
            said("diffusers in turns")
            against = compare_with_diffusers(
                self.pipe,
                self.stock,
                self.steps,
                batch_size=self.batch_size,
                rounds=self.rounds,
                guidance_scale=self.guidance_scale,
            )
        quality = None
        if self.table is not None:
            said("quality")
            quality = self.table.compute(
                done,
                lambda cell: said(
                    f"{cell.solver} {cell.steps} steps: {cell.distance:.6g}, {cell.samples_per_second:.4g} samples/s"
                ),
            )
        return BenchReport(self._facts(solver), speed, against, quality)

    def _facts(self, solver: str) -> dict[str, object]:
        device, (height, width) = self.pipe.device, own_size(self.pipe)
        return {
            "model": self.name,
            "task": task_name(self.pipe),
            "size": f"{width}x{height}",
            "dtype": str(self.pipe.unet.dtype).removeprefix("torch."),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "solver": solver,
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "latentdiff": __version__,
            "torch": torch.__version__,
        }


def check_arguments(
    solvers: Sequence[str] | None,
    steps: Sequence[int],
    reference: object,
    count: int | None,
    target: str | None,
) -> None:
    """Check what can be told to be wrong without the model.

    Raises:
        InputError: If arguments are missing or contradict each other.
    """
    if not steps or (solvers is not None and not solvers):
        raise InputError("solvers or steps is empty; give one or more of both")
    for number in steps:
        check_count("steps", number)
    if reference is not None and count is None:
        raise InputError(
            "count is missing; say how many images of each solver and number of steps are made, such as 1000"
        )
    if reference is None:
        given = {"count": count is not None, "target": target is not None}
        given |= {"several solvers": len(solvers or ()) > 1, "several numbers of steps": len(steps) > 1}
        for what, is_given in given.items():
            if is_given:
                raise InputError(f"{what}: that is for the table of quality, which needs a reference; give one")


def guidance_of(pipe: DiffusionPipeline, given: float | None) -> float | None:
    """The strength of classifier-free guidance of a model; None for one that takes no condition that can be dropped.

    Raises:
        InputError: If one is given to such a model.
    """
    default = default_guidance_scale(pipe.components)
    if default is None and given is not None:
        raise InputError(f"guidance_scale is {given:g}, but this model has no condition to drop; leave it out")
    return default if given is None else given
