"""What a command that makes images consists of: what it reads, and how that becomes the call of a pipeline."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from cyclopts import Parameter

from latentdiff.cli.batch.plan import BatchPlan, Item, Job, make_batch_plan
from latentdiff.cli.options import BulkOptions, Grid, GuidanceOptions, ModelOptions, OutputOptions, Size, SolverOptions
from latentdiff.hub.find import model_of_run, weights_of_folder
from latentdiff.reading import parse_json, read_text
from latentdiff.registry import SCHEDULERS
from latentdiff.tasks import TASKS

if TYPE_CHECKING:
    from PIL.Image import Image

    from latentdiff.pipelines.base import DiffusionPipeline
    from latentdiff.types import JSON

Arguments = dict[str, object]
"""Arguments of a pipeline for one image, by their names."""

NOT_OF_IMAGES = {
    *("sampling", "guidance", "output", "grid", "bulk", "prompts"),
    *("seed", "num_images", "batch_size", "device", "compile"),
}
"""Fields and options that are parts, or on which an image of one input and one seed doesn't depend."""


@dataclass(eq=False, kw_only=True)
class ImageCommand:
    """Base of the commands that make images. Importing one imports no torch.

    Its fields are the command's flags, those that aren't `kw_only` what is given without one, and its docstring is the
    text of its --help.

    Attributes:
        model: Which model is used, and how.
        sampling: Seeds and the solver.
        output: Where images go.
        size: Width and height in pixels; None is the model's own.
        guidance: Classifier-free guidance; None for a command that has none.
        grid: Whether all images go into one.
        bulk: What runs the workers.
        task: The command's own task, by which it is named.
        takes: The tasks of the models that it takes; its own by default.
        array: Whether its images may go into one array.
    """

    model: ModelOptions
    sampling: SolverOptions = SolverOptions()
    output: OutputOptions = OutputOptions()
    size: Annotated[Size, Parameter(parse=False)] = None  # a flag of those commands that say so
    guidance: Annotated[GuidanceOptions | None, Parameter(parse=False)] = None
    grid: Annotated[Grid, Parameter(parse=False)] = False
    bulk: Annotated[BulkOptions, Parameter(parse=False)] = BulkOptions()
    task: ClassVar[str]
    takes: ClassVar[tuple[str, ...]] = ()
    array: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The command's name."""
        return TASKS[self.task].command or self.task

    def plan(self) -> BatchPlan:
        """All that will be made; InputError for what can be told to be wrong without the model."""
        return make_batch_plan(self.sampling, self.output, self.items(), self.file_name, self.grid, self.array)

    def asked(self, plan: BatchPlan) -> dict[str, object]:
        """All that the images of a plan depend on and that is known before the model is loaded, as JSON values."""
        return {**self._options, "seed": plan.seed_text}

    def fingerprint(self, job: Job) -> str:
        """What tells an image of other options, or of another input or seed, before the model is loaded."""
        source = job.item.file if job.item.path else job.item.source
        text = json.dumps([self._options, job.seed, source], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @cached_property
    def _options(self) -> dict[str, object]:
        """The options that all images depend on, as JSON values; inputs are none, nor what changes no image."""
        parts = (self.model, self.sampling, self.guidance)
        values = {name: value for part in parts if part is not None for name, value in vars(part).items()}
        values |= {part.name: getattr(self, part.name) for part in fields(self) if part.kw_only}
        kept = {name: value for name, value in values.items() if name not in NOT_OF_IMAGES}
        kept["model"] = os.path.normpath(self.model.model)
        models = (self.model.model, self.model.decoder, self.sampling.autoguidance)
        kept["weights"] = [weights_of_folder(name) for name in models if name is not None]  # they may be trained again
        if self.model.dtype == "auto":  # what it means is the device's matter, and the images are of that
            from latentdiff.cli.batch.device import dtype_name

            kept["dtype"] = dtype_name(self.model.dtype, self.model.device)
        if isinstance(self.sampling.steps, str):  # they may have been tuned again since
            kept["tuned"] = self._tuned_timesteps(self.sampling.steps)
        return dict(json.loads(json.dumps(kept, default=str)))

    def _tuned_timesteps(self, steps: str) -> list[list[float]]:
        """The guidance and timesteps of "tuned:N" that the model's folder keeps for the solver, none of a hub model."""
        from latentdiff.schedulers.tuned import read_tuned, tuned_count

        config: JSON = {}
        with suppress(OSError, ValueError):  # loading the model says what is wrong
            path = Path(model_of_run(self.model.model)) / "scheduler" / "scheduler_config.json"
            config = cast("JSON", parse_json(read_text(path)))
        name = self.sampling.scheduler
        solver = config.get("_class_name") if name is None else SCHEDULERS.get(name).__name__
        found = [entry for entry in read_tuned(config) if (entry.steps, entry.solver) == (tuned_count(steps), solver)]
        return sorted([entry.guidance_scale, *entry.timesteps] for entry in found)

    def items(self) -> Sequence[Item]:
        """The inputs; every one is used with every seed."""
        raise NotImplementedError

    def file_name(self, number: int, item: Item, seed: int, several: bool) -> str:
        """The name of image `number` in the output folder, without suffix; `several` if there is more than one seed."""
        return f"{number:05d}-{item.name}-seed{seed}"

    def read(self, job: Job) -> Arguments:
        """A job's arguments of the pipeline as far as they can be read without it; arrays are grouped by shape.

        Raises:
            InputError: If the input is not valid; the others are made nevertheless.
        """
        return {}

    def prepare(self, pipe: DiffusionPipeline) -> DiffusionPipeline:
        """The pipeline to call, of the loaded one; InputError if options don't fit it."""
        return pipe

    def fit(self, pipe: DiffusionPipeline, job: Job, inputs: Arguments) -> Arguments:
        """What was read, checked against the model; raises as `read`."""
        return inputs

    def arguments(self) -> Arguments:
        """Further arguments of every call; those that aren't None are told in the image's file, too."""
        return {}

    def record(self, job: Job) -> dict[str, object]:
        """What an image's file says of the job's input, under the names of the command's own parameters."""
        return {}

    def class_number(self, job: Job) -> int | None:
        """The number of the class that an image in an array is of; None if there are no classes."""
        return None

    def finish(self, job: Job, image: Image) -> Image:
        """What is written of an image."""
        return image
