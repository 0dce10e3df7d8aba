"""A pipeline out of a checkpoint of the original code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from latentdiff.conversion.original import load_original
from latentdiff.errors import ConfigError
from latentdiff.registry import PIPELINES
from latentdiff.tasks import TASKS


def pipeline_from_original(
    cls: Any,
    checkpoint: str | Path,
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    ema: bool = True,
    dtype: torch.dtype | None = torch.float32,
    tokenizer: Any = None,
) -> Any:
    """See `DiffusionPipeline.from_original`."""
    loaded = load_original(checkpoint, config, ema=ema, dtype=dtype)
    wanted = next((task for task in PIPELINES.names() if PIPELINES.get(task) is cls), None)
    if loaded.task is None or loaded.task not in PIPELINES or (wanted is not None and wanted != loaded.task):
        what = f"a model for {loaded.task}" if loaded.task else "a first stage alone"
        known = ", ".join(sorted(name for name, spec in TASKS.items() if spec.original_encoders))
        raise ConfigError(
            f"{checkpoint} holds {what}, {cls.__name__} takes {wanted or known}; load its components with load_original"
        )
    components = {**loaded.components, **({} if tokenizer is None else {"tokenizer": tokenizer})}
    hint = TASKS[loaded.task].tokenizer
    if hint is not None and "tokenizer" not in components:
        raise ConfigError(f"no tokenizer is in {checkpoint}, and the package has none for it; give tokenizer, {hint}")
    return PIPELINES.get(loaded.task)(**components)
