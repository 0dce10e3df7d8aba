"""Training checkpoints on disk: one folder each, complete or absent, with a manifest by which damage is seen."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from latentdiff.errors import CheckpointError, LatentDiffWarning
from latentdiff.io.files import atomic_folder, remove_folder
from latentdiff.io.system import link_or_copy
from latentdiff.types import JSON

PREFIX = "checkpoint-"
MANIFEST = "manifest.json"
WEIGHTS_FILE, AVERAGES_FILE, MOMENTS_FILE, NUMBERS_FILE = (
    "model.safetensors",
    "ema.safetensors",
    "optimizer.pt",
    "state.json",
)
FILES = {WEIGHTS_FILE, AVERAGES_FILE, MOMENTS_FILE, NUMBERS_FILE, MANIFEST}


def step_of(path: Path) -> int:
    """The number of steps after which a checkpoint was made."""
    return int(path.name.removeprefix(PREFIX))


def existing(output_dir: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, whole or not."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if holds_checkpoint(path)]
    return sorted(found, key=step_of)


def holds_checkpoint(path: Path) -> bool:
    """Whether a path is a folder of a checkpoint's name that holds a file of one."""
    number = path.name.removeprefix(PREFIX)
    if not (number.isascii() and number.isdigit() and path.name == f"{PREFIX}{int(number)}"):
        return False
    return any((path / name).exists() for name in FILES)


def remove(path: Path) -> None:
    """Remove a checkpoint, but nothing else that lies in its folder."""
    if all(entry.name in FILES for entry in path.iterdir()):
        remove_folder(path)
        return
    for name in (MANIFEST, *sorted(FILES - {MANIFEST})):  # what goes first tells that it is not whole
        (path / name).unlink(missing_ok=True)


@contextmanager
def written(output_dir: Path, step: int, keep: int, best: Collection[int] = ()) -> Iterator[Path]:
    """Yield a folder that becomes `checkpoint-STEP` when all in it is safely on disk.

    Only then older ones are dropped but for the newest `keep`, this one included, and those of the steps in `best`.
    Later ones, which are there when a run goes on from an earlier checkpoint, stay until they are replaced.

    Raises:
        FileExistsError: If there is a file of that name.
    """
    path = output_dir / f"{PREFIX}{step}"
    path = path.resolve() if path.is_symlink() else path  # the folder behind a link is replaced, not the link
    if path.exists() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, "File exists", str(path))
    with atomic_folder(path) as folder:
        yield folder
        files = {path.name: _fingerprint(path) for path in sorted(folder.iterdir())}
        (folder / MANIFEST).write_text(json.dumps({"files": files}, indent=1))
        _keep_others(path, folder)
    until_now = [path for path in existing(output_dir) if step_of(path) <= step]
    for old in until_now[:-keep]:
        if not old.is_symlink() and step_of(old) not in best:
            remove(old)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint: a file is missing, or differs from what was written; None if all is well."""
    wrong = f"{MANIFEST} is not what was written"
    try:
        files = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"]
        if files.keys() == FILES - {MANIFEST}:
            return next((reason for name in sorted(files) if (reason := _damage(path / name, files[name]))), None)
    except FileNotFoundError:
        wrong = f"{MANIFEST} is missing"
    except OSError as error:
        wrong = f"{error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    return wrong


def _damage(file: Path, fingerprint: JSON) -> str | None:
    if not file.is_file():
        return f"{file.name} is missing"
    return None if _fingerprint(file) == fingerprint else f"{file.name} is not what was written"


def latest(output_dir: Path) -> Path:
    """The newest whole checkpoint of a run; a warning says which damaged ones were passed over.

    Raises:
        CheckpointError: If there are none, or none is whole.
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
    raise CheckpointError(
        f"there is no checkpoint in {output_dir} to go on from; leave resume_from_checkpoint out to start anew"
    )


def resolve(output_dir: Path, choice: str) -> Path:
    """The checkpoint that `resume_from_checkpoint` names: "latest", one of the run by its name, or a path.

    Raises:
        CheckpointError: If it isn't there or is damaged.
    """
    if choice == "latest":
        return latest(output_dir)
    path = next((path for path in (output_dir / choice, Path(choice)) if path.is_dir()), None)
    if path is None or not holds_checkpoint(path):
        names = ", ".join(found.name for found in existing(output_dir))
        raise CheckpointError(
            f"{choice!r} is not a checkpoint; this run has {names or 'none'}; give one of them or 'latest'"
        )
    reason = damage(path)
    if reason is not None:
        raise CheckpointError(f"{choice} is damaged ({reason}); give another, or 'latest' for the newest whole one")
    return path


def _keep_others(old: Path, new: Path) -> None:
    """Give a new checkpoint what else lies in the folder that it replaces, if there is one."""
    for entry in old.iterdir() if old.is_dir() else ():
        if entry.name in FILES:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True)
        else:
            link_or_copy(entry, new / entry.name)


def _fingerprint(path: Path) -> JSON:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}
