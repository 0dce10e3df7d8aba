"""The pipeline of a task, whatever the model's own is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline as StockPipeline

from latentdiff.errors import ConfigError
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.registry import PIPELINES
from latentdiff.tasks import TASKS, task_of_pipeline


class AutoPipeline:
    """Loads a model, and makes the pipeline of a task of it.

    `AutoPipeline.from_pretrained("model", task="image-to-image")` is the model's own pipeline, whose components serve
    another task; without `task` it is `DiffusionPipeline.from_pretrained`.
    """

    def __init__(self) -> None:
        raise ConfigError("AutoPipeline makes other pipelines; call AutoPipeline.from_pretrained or from_pipe")

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | Path, *, task: str | None = None, **options: Any
    ) -> DiffusionPipeline:
        """Load a model for a task.

        Args:
            pretrained_model_name_or_path: A folder, a hub id ("owner/name"), or "builtin:NAME".
            task: A task of the registry, such as "image-to-image", or the command that runs it, such as "img2img"; the
                model's own by default.
            **options: Options of `DiffusionPipeline.from_pretrained`.

        Raises:
            ConfigError: If there is no such task, or the model has not got what it needs.
        """
        if task is None:
            return DiffusionPipeline.from_pretrained(pretrained_model_name_or_path, **options)
        wanted = _pipeline_of(task)  # before anything is loaded
        return wanted.from_pipe(DiffusionPipeline.from_pretrained(pretrained_model_name_or_path, **options))

    @staticmethod
    def from_pipe(pipe: StockPipeline, task: str | None = None, **options: Any) -> DiffusionPipeline:
        """Make the pipeline of a task that shares another's components.

        Args:
            pipe: A pipeline of this package or of diffusers.
            task: A task of the registry, such as "image-to-image", or the command that runs it, such as "img2img"; the
                pipeline's own task by default.
            **options: Options of `DiffusionPipeline.from_pipe`: `dtype`, and components to use in place of the other's.

        Raises:
            ConfigError: If there is no such task, or a component is missing.
        """
        return _pipeline_of(_own_task(pipe) if task is None else task).from_pipe(pipe, **options)


def _own_task(pipe: StockPipeline) -> str:
    """The task of a pipeline of this package or of diffusers.

    Raises:
        ConfigError: If it has none here.
    """
    name = type(pipe).__name__
    registered = [task for task in PIPELINES.names() if PIPELINES.get(task).__name__ == name]
    spec = task_of_pipeline(name)
    if registered:
        return registered[0]
    if spec is None:
        raise ConfigError(f"{name} is the pipeline of no task here; give one: {', '.join(PIPELINES.names())}")
    return spec.name


def _pipeline_of(task: str) -> type[DiffusionPipeline]:
    """Look a task's pipeline up, by the name of the task or of its command.

    Raises:
        ConfigError: If there is no such task, or what is registered is no pipeline of this package.
    """
    found = PIPELINES.get({spec.command: name for name, spec in TASKS.items()}.get(task, task))
    if not issubclass(found, DiffusionPipeline):
        raise ConfigError(f"{found.__name__}, registered for {task}, is no latentdiff.DiffusionPipeline; make it one")
    return found
