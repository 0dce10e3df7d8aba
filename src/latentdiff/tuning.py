"""`tune_steps`: the timesteps of N steps whose results are nearest to what a model would make with very many."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from latentdiff.errors import CheckpointError, InputError
from latentdiff.io.files import write_text
from latentdiff.io.lock import locked
from latentdiff.pipelines.base import DiffusionPipeline, temporary_scheduler
from latentdiff.pipelines.options import check_count
from latentdiff.reading import parse_json, read_text
from latentdiff.sampling import Guidance, Predictor, SamplingContext
from latentdiff.schedulers.base import TableScheduler
from latentdiff.schedulers.noise_schedule import NoiseSchedule
from latentdiff.schedulers.step_search import (
    Timesteps,
    cheapest_path,
    descend,
    gits_costs,
    model_free_timesteps,
    untuned_timesteps,
    whole,
)
from latentdiff.schedulers.tuned import FIELD, TunedTimesteps, fingerprint, schedule_of, solver_options, with_tuned
from latentdiff.types import Float64Array

TEACHER, TEACHER_STEPS = "dpmpp_2m", 80  # over the levels of Karras et al.; 60 and 200 steps differ by 0.002
GITS_GAMMAS = {"x0": (1.1, 1.2), "latents": (1.0, 1.1)}  # by the scale in which errors are counted
ROUNDS = 4
TINY = 1e-9

Progress = Callable[[str], object]
"""Called with a word on what is at work whenever the network has run over a batch of images."""


@dataclass
class _Recorder:
    """Guidance that changes nothing and keeps what the network saw and said of the first batch, for GITS.

    Attributes:
        latents: The latents (B, C, h, w) at each level of the teacher's run.
        estimates: The estimate of x0 (B, C, h, w) at each level.
        timesteps: The timestep of each level.
        sigmas: The levels at unit image scale, and the last, on which the run lands.
    """

    latents: list[Tensor] = field(default_factory=list)
    estimates: list[Tensor] = field(default_factory=list)
    timesteps: list[float] = field(default_factory=list)
    sigmas: list[float] = field(default_factory=list)

    def __call__(self, predict: Predictor, context: SamplingContext) -> Predictor:
        if self.latents:
            return predict
        assert isinstance(context.scheduler, TableScheduler)
        self.sigmas = context.scheduler.sigmas.tolist()

        def recorded(latents: Tensor, timestep: Tensor, fraction: float) -> Tensor:
            prediction = predict(latents, timestep, fraction)
            self.latents.append(latents.double().cpu())
            self.estimates.append(context.parametrization.x0(latents, prediction, timestep).double().cpu())
            self.timesteps.append(float(timestep))
            return prediction

        return recorded


@dataclass
class _Runs:
    """Runs of a pipeline for images of fixed seeds and conditions.

    Args:
        pipe: The pipeline.
        images: The arguments of each image.
        first_seed: The seed of the first.
        options: Further arguments of every call.
        batch_size: How many images are made at once.
        progress: Told of every batch.
    """

    pipe: DiffusionPipeline
    images: Sequence[Mapping[str, object]]
    first_seed: int
    options: Mapping[str, object]
    batch_size: int
    progress: Progress

    def __call__(self, what: str, schedule: Mapping[str, object], guidance: Sequence[Guidance] = ()) -> Float64Array:
        """The latents (B, D) of a schedule, as `set_timesteps` takes it."""
        made = []
        own = self.options.get("guidance", ())
        assert isinstance(own, Sequence)
        for start in range(0, len(self.images), self.batch_size):
            part = self.images[start : start + self.batch_size]
            batch: dict[str, object] = {name: [values[name] for values in part] for name in part[0]}
            latents = self.pipe(
                **(batch or {"batch_size": len(part)}),
                **{**self.options, "guidance": [*own, *guidance], "output_type": "latent", "return_dict": True},
                **schedule,
                seed=[self.first_seed + start + place for place in range(len(part))],
            ).images
            made.append(latents.double().cpu().flatten(1).numpy())
            self.progress(what)
        return np.concatenate(made)


def tune_steps(
    pipe: DiffusionPipeline,
    num_inference_steps: int,
    inputs: Sequence[Mapping[str, object]] = (),
    *,
    num_images: int = 16,
    seed: int = 0,
    batch_size: int = 8,
    rounds: int = ROUNDS,
    call: Mapping[str, object] = MappingProxyType({}),
    progress: Progress = lambda what: None,
) -> TunedTimesteps:
    """Find the timesteps of a number of steps for the pipeline's solver, model and guidance.

    The teacher is a run of many steps. Candidates are the usual schedules, those of GITS (Chen et al. 2024, arXiv
    2405.11326) on the teacher's trajectories, and the model-free ones of Xue et al. 2024 (arXiv 2402.17376) for
    this solver. The one that ends nearest to the teacher's latents is refined by a descent on that distance. As many
    images again, of other seeds, decide whether the result is better than the usual schedules.

    Args:
        pipe: The pipeline, its solver set; a deterministic one of this package.
        num_inference_steps: The number of steps N.
        inputs: Arguments of the pipeline's call for one image each, such as `[{"prompt": "a red apple"}]`, which images
            take in turn; none for a model without a condition.
        num_images: The number of images to tune on, and of those that the result is checked on.
        seed: The first image's seed; the others follow.
        batch_size: How many images are made at once.
        rounds: The most rounds of the descent, of N + 2 runs or less each; 0 leaves it out.
        call: Further arguments of every call, such as `{"guidance_scale": 5.0}`.
        progress: Called whenever a batch of images is through.

    Returns:
        The timesteps, with the distances; `save_tuned` writes them into the model's folder.

    Raises:
        InputError: If an argument is not valid, or the solver adds noise or isn't one of this package.
    """
    for name, value in {"num_images": num_images, "batch_size": batch_size}.items():
        check_count(name, value)
    scheduler = _solver_of(pipe, check_count("num_inference_steps", num_inference_steps))
    if not all(isinstance(each, Mapping) and each.keys() == inputs[0].keys() for each in inputs):
        raise InputError(f"inputs is {inputs!r:.80}; give a mapping of the same arguments for each image")
    conditions = [inputs[number % len(inputs)] if inputs else {} for number in range(2 * num_images)]

    def runs(first: int) -> _Runs:
        part = conditions[first : first + num_images]
        return _Runs(pipe, part, seed + first, call, batch_size, progress)

    tuned_on, held_out = runs(0), runs(num_images)
    recorder = _Recorder()
    target = _teach(tuned_on, recorder)
    schedule = scheduler.schedule
    usual = untuned_timesteps(schedule, num_inference_steps)
    candidates = usual | _gits(recorder, target, schedule, num_inference_steps)
    model_free = (model_free_timesteps(scheduler, usual[name]) for name in ("trailing", "logsnr"))
    candidates |= {f"model-free {number}": found for number, found in enumerate(model_free, start=1)}
    seen: dict[Timesteps, Float64Array] = {}

    def residual(timesteps: Timesteps) -> Float64Array:
        if timesteps not in seen:
            latents = tuned_on(f"tuning {num_inference_steps} steps", schedule_of(scheduler, timesteps))
            missed = latents - target
            # The sum of its squares is that of the distances: a single image that becomes another one, as some do
            # whatever the timesteps are, would outweigh all others by the squares.
            seen[timesteps] = (missed / np.sqrt(distances(missed)[:, None] + TINY)).ravel()
        return seen[timesteps]

    method = min(candidates, key=lambda name: float(np.mean(residual(candidates[name]) ** 2)))
    best, _ = descend(candidates[method], residual, len(schedule), rounds)
    found = {method: candidates[method], f"{method}, refined": best}

    target = _teach(held_out)
    checked = {
        name: float(distances(held_out("checking", schedule_of(scheduler, timesteps)) - target).mean())
        for name, timesteps in (usual | found).items()
    }
    method = min(checked, key=lambda name: checked[name])
    return TunedTimesteps(
        solver=type(scheduler).__name__,
        options=solver_options(scheduler),
        noise_schedule=fingerprint(scheduler.config),
        guidance_scale=float(pipe.guidance_scale),
        timesteps=(usual | found)[method],
        method=method,
        distance=checked[method],
        untuned={name: checked[name] for name in usual},
    )


def runs_needed(num_inference_steps: int, rounds: int = ROUNDS) -> int:
    """About how many runs of so many steps `tune_steps` makes, at most; the teacher's count as what they take."""
    teacher = 2 * math.ceil(TEACHER_STEPS / num_inference_steps)
    return teacher + 4 + 6 + rounds * (num_inference_steps + 2) + 6


def distances(missed: Float64Array) -> Float64Array:
    """The root mean square of each image's latents (B, D), as (B,)."""
    return np.asarray(np.sqrt(np.mean(missed**2, axis=1)))


def _solver_of(pipe: DiffusionPipeline, steps: int) -> TableScheduler:
    """The pipeline's scheduler; InputError unless it is one of the package's, and adds no noise in so many steps."""
    scheduler = pipe.scheduler
    name = type(scheduler).__name__
    if not isinstance(scheduler, TableScheduler):
        raise InputError(f"{name} is not one of latentdiff's solvers; set one that is, such as 'dpmpp_2m'")
    most = len(scheduler.schedule) // 2
    if not 2 <= steps <= min(most, TEACHER_STEPS // 2):
        most = min(most, TEACHER_STEPS // 2)
        raise InputError(f"num_inference_steps is {steps}; steps are tuned for 2 to {most}, half of the teacher's")
    trial = type(scheduler).from_config(scheduler.config)
    trial.set_timesteps(**schedule_of(scheduler, untuned_timesteps(scheduler.schedule, steps)["trailing"]))
    if trial.adds_noise() or trial.rises:
        raise InputError(f"{name} adds noise, and no schedule brings its results nearer; tune 'ddim' or 'dpmpp_2m'")
    return scheduler


def _teach(runs: _Runs, recorder: _Recorder | None = None) -> Float64Array:
    """The teacher's latents (B, D)."""
    with temporary_scheduler(runs.pipe, TEACHER, use_karras_sigmas=True):
        return runs("the teacher", {"num_inference_steps": TEACHER_STEPS}, [recorder] if recorder else [])


def _gits(recorder: _Recorder, target: Float64Array, schedule: NoiseSchedule, steps: int) -> dict[str, Timesteps]:
    """The schedules of GITS on the recorded trajectory, by name.

    Errors are counted where x0 has unit scale, as in the paper, and in the latents' own scale, where those at high
    noise, which the rest of a run corrects, count less.
    """
    sigmas = np.array(recorder.sigmas)
    alphas = 1 / np.sqrt(1 + sigmas**2)
    latents, estimates = (torch.stack(parts).flatten(2).numpy() for parts in (recorder.latents, recorder.estimates))
    states = np.concatenate([latents, target[None, : latents.shape[1]]]) / alphas[:, None, None]
    slopes = (states[:-1] - estimates) / sigmas[:-1, None, None]
    costs = gits_costs(sigmas, states, slopes)
    weighted = {"x0": costs, "latents": costs * alphas}
    return {
        f"GITS in {scale}, gamma {gamma:g}": whole(
            np.array(recorder.timesteps)[cheapest_path(weighted[scale], steps, gamma)], len(schedule)
        )
        for scale, gammas in GITS_GAMMAS.items()
        for gamma in gammas
    }


def save_tuned(folder: str | Path, tuned: TunedTimesteps) -> Path:
    """Write tuned timesteps into the scheduler's config of a model's folder; every other file stays as it is.

    Those of the same solver, guidance and number of steps are replaced. diffusers' schedulers load the config as
    before.

    Returns:
        The config's path.

    Raises:
        CheckpointError: If the folder has no scheduler's config, or it can't be read.
        InputError: If it can't be written, or another process is at work in it.
    """
    path = Path(folder) / "scheduler" / "scheduler_config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no scheduler/scheduler_config.json; give a model's folder")
    with locked(path.parent):
        try:
            config = parse_json(read_text(path))
            if not isinstance(config, dict):
                raise ValueError("it is no mapping")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} can't be read ({error}); restore it") from None
        content = json.dumps({**config, FIELD: with_tuned(config, tuned)}, indent=2, sort_keys=True) + "\n"
        write_text(path, content)
    return path
