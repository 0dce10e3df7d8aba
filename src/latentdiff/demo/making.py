"""From a request of the page to an image, by the code of the task's command."""

from __future__ import annotations

import io
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from latentdiff.cli import replay
from latentdiff.cli.batch.preview import Preview
from latentdiff.cli.batch.runner import Runner
from latentdiff.cli.batch.sampler import Sampler
from latentdiff.demo.controls import command_of
from latentdiff.demo.drawing import Drawn
from latentdiff.demo.models import Model
from latentdiff.demo.settings import Settings
from latentdiff.demo.worker import Progress, Request
from latentdiff.errors import LatentDiffError
from latentdiff.io.generated import read_parameters
from latentdiff.pipelines.base import DiffusionPipeline

PREVIEW_SECONDS = 0.1  # from one preview to the next, at least
IMAGE = "image.png"


@dataclass(frozen=True)
class Made:
    """An image that was made.

    Attributes:
        name: The name of its file, which is the one that the command gives it.
        png: The file, with its parameters.
        parameters: They themselves.
        command: The command line that makes the file again in a folder with what was drawn.
        drawn: What was drawn.
    """

    name: str
    png: bytes
    parameters: Mapping[str, object]
    command: str
    drawn: Drawn

    def inputs(self) -> tuple[str, bytes] | None:
        """What was drawn as a file to download, its name first: several as a ZIP archive; None if nothing was."""
        files = self.drawn.files
        if len(files) <= 1:
            return next(iter(files.items()), None)
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return f"{Path(self.name).stem}-inputs.zip", stream.getvalue()


class LivePreview(Preview):
    """Tells a page of each step, and shows it now and then what the image is becoming.

    Args:
        request: The page's request; if it is cancelled, the run ends with this step.
    """

    tensor_inputs: ClassVar[list[str]] = ["pred_original_sample"]

    def __init__(self, request: Request[Made]) -> None:
        super().__init__(every=1, screen=None, path=None)
        self.request, self.shown_at = request, 0.0

    def __call__(
        self, pipe: DiffusionPipeline, step: int, timestep: Tensor | float, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Tell of a step; the pipeline calls this, and goes on with its own latents."""
        self.request.check()
        now, picture = time.monotonic(), None
        if now - self.shown_at >= PREVIEW_SECONDS:
            self.shown_at, picture = now, pipe.preview(tensors["pred_original_sample"])[0]
        self.request.tell(Progress(step + 1, pipe.num_timesteps, picture))
        return {}


def make(model: Model, settings: Settings, drawn: Drawn, request: Request[Made]) -> Made:
    """Make an image.

    Args:
        model: The model.
        settings: What is asked for.
        drawn: What was drawn.
        request: Hears of the progress.

    Raises:
        LatentDiffError: If something is not valid, or there is no memory.
        CancelledError: If the request is cancelled.
    """
    with tempfile.TemporaryDirectory(prefix="latentdiff-demo-") as folder:
        for name, content in drawn.files.items():
            Path(folder, name).write_bytes(content)
        output = Path(folder, IMAGE)
        try:
            command = command_of(model.controls, settings, model.options, model.takes_prompt, Path(folder), str(output))
            plan = command.plan()
            runner = Runner(command, plan, _unheard)
            runner.sampler = Sampler(command, 1, model.pipeline_of_call())
            runner.sampler.pipeline.set_progress_bar_config(disable=True)
            runner.sampler.preview = LivePreview(request)
            runner.run(_unheard)
        except LatentDiffError as error:
            raise type(error)(str(error).replace(f"{folder}/", "")) from None
        parameters = read_parameters(output) or {}
        (job,) = plan.jobs
        return Made(
            name=f"{Path(job.item.name).name}-seed{job.seed}.png",
            png=output.read_bytes(),
            parameters=parameters,
            command=replay.command(parameters) or "",
            drawn=drawn,
        )


def _unheard(line: str) -> None:
    """The page hears of one image by what `make` returns."""
