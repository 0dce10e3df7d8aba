"""The pipeline of a task, whatever the model's own is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentdiff.errors import ConfigError
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.registry import PIPELINES


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
        """Load a model for a task of the registry, its own by default; `options` are `from_pretrained`'s.

        Raises:
            ConfigError: If there is no such task, or the model has not got what it needs.
        """
        wanted: Any = None if task is None else PIPELINES.get(task)  # before anything is loaded
        pipe: DiffusionPipeline = DiffusionPipeline.from_pretrained(pretrained_model_name_or_path, **options)
        return pipe if wanted is None else wanted.from_pipe(pipe)

    @staticmethod
    def from_pipe(pipe: Any, task: str, **components: Any) -> DiffusionPipeline:
        """A pipeline of a task that shares `pipe`'s components; `components` replace some of them.

        Raises:
            ConfigError: If there is no such task, or a component is missing.
        """
        wanted: Any = PIPELINES.get(task)
        made: DiffusionPipeline = wanted.from_pipe(pipe, **components)
        return made
