"""A loaded pipeline together with the options of a command."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image

from latentdiff import __version__
from latentdiff.cli.batch.command import Arguments, ImageCommand
from latentdiff.cli.batch.device import dtype_name, find_device
from latentdiff.cli.batch.plan import Job
from latentdiff.cli.batch.preview import check_preview_file, preview_of, shown
from latentdiff.cli.options import ModelOptions
from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError, LatentDiffWarning, TooLargeError
from latentdiff.guidance.auto import AutoGuidance, same_weights
from latentdiff.hub.find import model_of_run
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.pipelines.class_conditioning import ClassConditioningMixin
from latentdiff.pipelines.run_state import default_guidance_scale
from latentdiff.registry import PIPELINES, SCHEDULERS
from latentdiff.schedulers.select import scheduler_name
from latentdiff.schedulers.tuned import tuned_count
from latentdiff.tasks import AUTOGUIDANCE_SCALE, TASKS
from latentdiff.types import Labels
from latentdiff.windows import Windows


class Sampler:
    """Makes the images of a command.

    Args:
        command: What is made, with its options.
        batches: How many batches are to be made, by which `--compile auto` decides.
        loaded: The model's pipeline, whose solver is changed to the command's; None to load it.

    Raises:
        LatentDiffError: If the device or the model is not valid, or the options don't fit the model.
    """

    def __init__(self, command: ImageCommand, batches: int, loaded: DiffusionPipeline | None = None) -> None:
        self.command, self.sampling, self.name = command, command.sampling, command.model.model
        check_preview_file(command.output)
        device = find_device(command.model.device)
        loaded = load(command.model) if loaded is None else loaded
        self._check_task(loaded)
        self._check_guidance(loaded)
        self.pipeline = command.prepare(loaded)
        self.guidance, self.windows = self._guidance(), self._windows()
        self._set_scheduler()
        self.pipeline.set_progress_bar_config(leave=False)
        self.pipeline.to(device)
        self.weaker, self.autoguidance = self._load_weaker(device)
        self._set_decoder()
        self.preview = preview_of(command.output, self.pipeline)
        for pipe in (self.pipeline, *([] if self.weaker is None else [self.weaker])):
            self._compile(pipe, device, batches)

    def _set_decoder(self) -> None:
        """Let the decoder of --decoder take the first stage's place, also in a weaker model that has the same one."""
        name, weaker = self.command.model.decoder, self.weaker
        if name is None:
            return
        shared = weaker is not None and same_weights(weaker.vae, self.pipeline.components["vae"])
        self.pipeline.set_decoder(name)
        if weaker is not None and shared:
            weaker.register_modules(vae=self.pipeline.vae)

    def _check_task(self, loaded: DiffusionPipeline) -> None:
        classes = [PIPELINES.get(task) for task in self.command.takes or (self.command.task,)]
        if not isinstance(loaded, tuple(classes)):
            name, known = type(loaded).__name__, " or ".join(cls.__name__ for cls in classes)
            commands = [spec.command for spec in TASKS.values() if spec.pipeline_class == name]
            use = [f", which {f'latentdiff {own} uses' if own else 'is called in Python'}" for own in commands]
            raise InputError(f"{self.name} has {name}{''.join(use)}; latentdiff {self.command.name} needs {known}")

    def _check_guidance(self, loaded: DiffusionPipeline) -> None:
        given = self.command.guidance.given() if self.command.guidance else []
        if given and default_guidance_scale(loaded.components) is None:
            raise InputError(f"{self.name} is unconditional and has no use for {given[0]}; leave it out")
        embedder = loaded.components.get("class_embedder")
        scaled = self.command.guidance is not None and self.command.guidance.guidance_scale not in (None, 1)
        if scaled and embedder is not None and embedder.config.null_class is None:
            raise InputError(f"{self.name} has no null class and no use for --guidance-scale; leave it out")

    def _set_scheduler(self) -> None:
        """Take the named solver and spacing; InputError for a solver that spaces no timesteps."""
        name, spacing, current = self.sampling.scheduler, self.sampling.timestep_spacing, self.pipeline.scheduler
        if spacing is None:
            if name is not None:
                self.pipeline.set_scheduler(name)
            return
        kind = type(current) if name is None else SCHEDULERS.get(name)
        takes = inspect.signature(kind).parameters
        if "timestep_spacing" not in takes:
            raise InputError(f"--timestep-spacing is {spacing}, but {kind.__name__} chooses its own; leave it out")
        kept = {key: value for key, value in current.config.items() if key in takes} if name is None else {}
        self.pipeline.set_scheduler(kind, **{**kept, "timestep_spacing": spacing})

    def _compile(self, pipe: DiffusionPipeline, device: torch.device, batches: int) -> None:
        """Compile a pipeline's networks as --compile asks; how long a step takes, the first ones will tell."""
        asked = self.command.model.compile
        if asked == "yes":
            pipe.compile()
        elif asked == "auto" and self.command.model.quantize is not None:
            line = "--compile auto leaves networks as they are whose weights are int8; leave one of the two out"
            warnings.warn(line, LatentDiffWarning, stacklevel=2)
        elif asked == "auto" and device.type == "cpu":
            steps = self.sampling.steps
            count = tuned_count(steps) if isinstance(steps, str) else steps
            calls = {"unet": batches * count * self.pipeline.scheduler.order, "vae": batches}
            pipe.compile(planned_calls=calls)
        elif asked == "auto":
            warnings.warn(
                f"--compile auto knows when compiling repays itself on CPUs only, and leaves {device} as it is; "
                "--compile yes compiles there",
                LatentDiffWarning,
                stacklevel=2,
            )

    def _guidance(self) -> Arguments:
        """The options of classifier-free guidance, their defaults filled in; none for a command or model without."""
        guidance, default = self.command.guidance, default_guidance_scale(self.pipeline.components)
        if guidance is None or default is None:
            return {}
        filled = {
            **dataclasses.asdict(guidance),
            "guidance_scale": default if guidance.guidance_scale is None else guidance.guidance_scale,
            "guidance_interval": guidance.guidance_interval or (0.0, 1.0),
            "guidance_rescale": guidance.guidance_rescale or 0.0,
        }
        return {name: value for name, value in filled.items() if value is not None}

    def _load_weaker(self, device: torch.device) -> tuple[DiffusionPipeline | None, Arguments]:
        """The model of --autoguidance, and the options with the default filled in; none where it isn't given."""
        name, scale = self.sampling.autoguidance, self.sampling.autoguidance_scale
        if name is None:
            return None, {}
        weaker = load(dataclasses.replace(self.command.model, model=name, revision=None))
        weaker.to(device)
        filled = AUTOGUIDANCE_SCALE if scale is None else scale
        return weaker, {"autoguidance": name, "autoguidance_scale": filled}

    @torch.no_grad()
    def _autoguidance(self, batch: Arguments) -> list[AutoGuidance]:
        """The guidance by the weaker model, which encodes classes itself, as its classes are its own."""
        if self.weaker is None:
            return []
        conditioning = None
        if isinstance(self.weaker, ClassConditioningMixin) and "class_labels" in batch:
            conditioning = Conditioning(self.weaker.encode_labels(cast("Labels", batch["class_labels"])))
        return [
            AutoGuidance(self.weaker, cast(float, self.autoguidance["autoguidance_scale"]), conditioning=conditioning)
        ]

    def _windows(self) -> Windows | None:
        sampling, unit = self.sampling, self.pipeline.vae_scale_factor
        if sampling.window is None:
            return None
        overlap = sampling.window // 4 // unit * unit if sampling.window_overlap is None else sampling.window_overlap
        return Windows(sampling.window, overlap, sampling.wrap)

    def images(self, jobs: Sequence[Job], inputs: Sequence[Arguments]) -> list[Image.Image]:
        """The images of some jobs, computed as one batch; each depends on its own job alone.

        Raises:
            TooLargeError: If there isn't memory for one image.
            InputError: If there isn't for so many, or an option is not valid.
        """
        batch: Arguments = {name: [values[name] for values in inputs] for name in inputs[0]}
        batch = batch or {"batch_size": len(jobs)}
        size = {} if self.command.size is None else dict(zip(("width", "height"), self.command.size, strict=True))
        try:
            with shown(self.preview) as callback:
                images: list[Image.Image] = self.pipeline(
                    **batch,
                    **self.command.arguments(),
                    **self.guidance,
                    **size,
                    num_inference_steps=self.sampling.steps,
                    eta=self.sampling.eta,
                    temperature=self.sampling.temperature,
                    quantize_denoised=self.sampling.quantize_denoised,
                    cache_interval=self.sampling.cache_interval,
                    cache_branch=self.sampling.cache_branch,
                    cache_center=self.sampling.cache_center,
                    cache_power=self.sampling.cache_power,
                    windows=self.windows,
                    guidance=self._autoguidance(batch),
                    seed=[job.seed for job in jobs],
                    callback_on_step_end=callback,
                ).images
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
                raise
            if len(jobs) == 1:
                raise TooLargeError("no memory for an image of this size; make it smaller or give --window") from None
            raise InputError(f"no memory for {len(jobs)} images at once; lower --batch-size") from None
        return images

    def parameters(self, image: Image.Image, record: Arguments, seed: int | str) -> dict[str, object]:
        """All that is needed to make `image` of an input and a seed again, as JSON values.

        Args:
            image: As the pipeline made it.
            record: What is said of the input.
            seed: One, or those of a grid as --seed takes them.
        """
        windows, model, sampling = self.windows, self.command.model, self.sampling
        values = {
            "command": self.command.name,
            **record,
            **self.command.arguments(),
            "model": model.model,
            "revision": model.revision,
            "dtype": dtype_name(model.dtype, model.device),
            "quantize": model.quantize,
            "decoder": model.decoder,
            "seed": seed,
            "steps": sampling.steps,
            "scheduler": scheduler_name(self.pipeline.scheduler),
            "timestep_spacing": sampling.timestep_spacing,
            "eta": sampling.eta,
            "temperature": None if sampling.temperature == 1 else sampling.temperature,
            "quantize_denoised": sampling.quantize_denoised or None,
            "cache_interval": None if sampling.cache_interval == 1 else sampling.cache_interval,
            "cache_branch": sampling.cache_branch,
            "cache_center": sampling.cache_center,
            "cache_power": sampling.cache_power,
            **self.guidance,
            **self.autoguidance,
            **({"window": windows.size, "window_overlap": windows.overlap} if windows else {}),
            "wrap": sampling.wrap or None,
            "size": f"{image.width}x{image.height}",
            "version": __version__,
        }
        return {name: value for name, value in values.items() if value is not None}


def shapes(inputs: Arguments) -> tuple[tuple[int, ...], ...]:
    """The shapes of the arrays among a job's inputs: what must be equal within a batch."""
    return tuple(value.shape for value in inputs.values() if isinstance(value, np.ndarray))


def load(options: ModelOptions) -> DiffusionPipeline:
    """The pipeline of a model, in the named precision."""
    model, revision = model_of_run(options.model), options.revision
    if revision is not None and (model.startswith("builtin:") or Path(model).is_dir()):
        raise InputError(f"--revision is {revision!r}, but {model} is not on the hub; leave it out")
    pipeline: DiffusionPipeline = DiffusionPipeline.from_pretrained(
        model,
        revision=revision,
        dtype=getattr(torch, dtype_name(options.dtype, options.device)),
        quantize=options.quantize,
    )
    return pipeline
