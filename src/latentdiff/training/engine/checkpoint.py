"""Training checkpoints on disk: one folder each, complete or absent, with a manifest by which damage is seen."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latentdiff.errors import CheckpointError, LatentDiffWarning
from latentdiff.io.files import atomic_folder, remove_folder
from latentdiff.types import JSON

PREFIX = "checkpoint-"
MANIFEST = "manifest.json"


def step_of(path: Path) -> int:
    """The number of steps after which a checkpoint was made."""
    return int(path.name.removeprefix(PREFIX))


def existing(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


@contextmanager
def written(output_dir: Path, step: int, keep: int) -> Iterator[Path]:
    """Yield a folder that becomes `checkpoint-STEP` when all in it is safely on disk.

    Only then older ones are dropped but for the newest `keep`, this one included. Later ones, which are there when a
    run goes on from an earlier checkpoint, stay until they are replaced.
    """
    with atomic_folder(output_dir / f"{PREFIX}{step}") as folder:
        yield folder
        files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
    until_now = [path for path in existing(output_dir) if step_of(path) <= step]
    for old in until_now[:-keep]:
        remove_folder(old)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint: a file is missing, or differs from what was written; None if all is well."""
    try:
        files: JSON = json.loads((path / MANIFEST).read_text())["files"]
        for name, fingerprint in files.items():
            if _fingerprint(path / name) != fingerprint:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is not what was written"
    return None


def latest(output_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run; a warning says which damaged ones were passed over.

    Raises:
        CheckpointError: If there are checkpoints, but none is whole.
    """
    damaged: list[str] = []
    for path in reversed(existing(output_dir)):
        reason = damage(path)
        if reason is None:
            if damaged:
                warnings.warn(LatentDiffWarning(f"{', '.join(damaged)}: going on from {path.name}"), stacklevel=2)
            return path
        damaged.append(f"{path.name} is damaged ({reason})")
    if damaged:
        raise CheckpointError(
            f"no checkpoint in {output_dir} is whole: {', '.join(damaged)}; start anew in another folder"
        )
    return None


def resolve(output_dir: Path, choice: str | None) -> Path | None:
    """The checkpoint that `resume_from_checkpoint` names: None to start anew, also for "latest" where there is none.

    Raises:
        CheckpointError: If it isn't there or is damaged, or if a run would start anew over the checkpoints of another.
    """
    names = ", ".join(path.name for path in existing(output_dir))
    if choice is None and names:
        raise CheckpointError(
            f"{output_dir} has checkpoints of a run ({names}); set resume_from_checkpoint to 'latest' to go on, or "
            "choose another output_dir"
        )
    if choice is None or choice == "latest":
        return latest(output_dir)
    path = Path(choice) if Path(choice).is_dir() else output_dir / choice
    if not path.name.removeprefix(PREFIX).isdigit() or not path.is_dir():
        raise CheckpointError(
            f"{choice} is not a checkpoint; this run has {names or 'none'}; give one of them or 'latest'"
        )
    reason = damage(path)
    if reason is not None:
        raise CheckpointError(f"{choice} is damaged ({reason}); give another, or 'latest' for the newest whole one")
    return path


def _fingerprint(path: Path) -> JSON:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
