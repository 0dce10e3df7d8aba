"""What a user may name as a model beside what the hub knows."""

from __future__ import annotations

from pathlib import Path

INDEX, LOG = "model_index.json", "log.jsonl"  # a file of every pipeline, and of the folder of every training run


def model_of_run(name: str) -> str:
    """The model that a name stands for: of the folder of a training run, the pipeline or first stage that it has made.

    A folder that is a model itself stands for itself, whatever lies in it.
    """
    run = Path(name)
    if (run / INDEX).exists():
        return name
    if (run / "pipeline" / INDEX).is_file():
        return str(run / "pipeline")
    return str(run / "vae") if (run / LOG).is_file() and (run / "vae" / "config.json").is_file() else name
