"""What a user may name as a model beside what the hub knows."""

from __future__ import annotations

from pathlib import Path

EXPORTED = (("pipeline", "model_index.json"), ("vae", "config.json"))  # what training runs write, with a file of each
LOG = "log.jsonl"  # in the folder of every run


def model_of_run(name: str) -> str:
    """The model that a name stands for: of the output folder of a training run, what that run has written."""
    run = Path(name)
    if (run / LOG).is_file():
        for part, file in EXPORTED:
            if (run / part / file).is_file():
                return str(run / part)
    return name
