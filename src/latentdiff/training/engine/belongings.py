"""What a run has in its folder: whether it may begin there, and what of it `overwrite_output_dir` removes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from latentdiff.config import check, flat
from latentdiff.errors import CheckpointError, InputError
from latentdiff.hub.component_folder import CONFIG_FILES, TOKENIZER
from latentdiff.hub.find import model_of_run
from latentdiff.hub.index import INDEX
from latentdiff.hub.weight_files import ADAPTER, parse
from latentdiff.io.files import check_writable
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.ema_snapshots import FOLDER, forget_after
from latentdiff.training.engine.options import Recipe
from latentdiff.training.engine.trackers import PROJECT, TRACKER_FOLDER

LOG, BAD_FILES = "log.jsonl", "bad_files.jsonl"
BEST, STEPS, PICTURES, TRACKED = "best", "steps", "validation", Path(TRACKER_FOLDER, PROJECT)
WRITTEN_IN = (BEST, PICTURES, "captions", FOLDER)  # folders of a run in which files or folders are written
PICTURE = re.compile(r"(reconstructions|samples|denoising)-\d+\.png")
TRACKER_FILE = re.compile(r"events\.out\.tfevents\.[\w.-]+|hparams\.yml")
TOKENIZER_FILES = {TOKENIZER, "special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"}
ANY = re.compile(r".*", re.DOTALL)
MODEL_FILES = {INDEX, ADAPTER, *CONFIG_FILES, *TOKENIZER_FILES}


def check_start(recipe: Recipe) -> Path | None:
    """The checkpoint that a run goes on from, None for one that starts anew; nothing is made or changed.

    Raises:
        CheckpointError: If there is an earlier run in the output folder, or no whole checkpoint to go on from.
        ConfigError: If the checkpoint is after the last step, or what would be removed is a link, or the run's input.
        InputError: If the output folder can't be written, or holds something else where the result belongs.
    """
    folder = Path(recipe.output_dir)
    has = [*(path.name for path in checkpoint.existing(folder)), *results(recipe)]
    check_writable(folder / LOG)
    if (folder / LOG).is_dir():
        raise InputError(f"{folder / LOG} is a folder, where the run's log belongs; give another output_dir")
    for name, marker in recipe.results.items():
        _check_place(folder / name, marker)
    if recipe.resume_from_checkpoint is not None:
        return _to_go_on_from(recipe, has)
    _check_own_folder(recipe)
    if recipe.overwrite_output_dir:
        _check_removable(recipe)
    elif has:
        raise CheckpointError(
            f"{folder} holds an earlier run ({', '.join(has)}); go on by --resume_from_checkpoint latest, remove it by "
            "--overwrite_output_dir, or give another output_dir"
        )
    return None


def results(recipe: Recipe) -> list[str]:
    """The names of the results that the output folder of a run holds."""
    folder = Path(recipe.output_dir)
    return [name for name, marker in recipe.results.items() if (folder / name / marker).is_file()]


def remove_belongings(recipe: Recipe) -> None:
    """Remove what an earlier run has in the output folder: files of its own names, and folders that become empty."""
    folder = Path(recipe.output_dir)
    kept = [place for place in _folders(folder / STEPS) if place.name.isdigit()]
    for name, marker in recipe.results.items():
        for path in (folder / BEST / name, *(place / name for place in kept), folder / name):
            _remove(sorted(_model_files(path), key=lambda file: file.name == marker))  # that last by which it is known
            _remove_empty(*_folders(path), path)
    _remove(_files(folder / PICTURES, PICTURE))
    places = [*_folders(folder / TRACKED), folder / TRACKED]
    for place in places:
        _remove(_files(place, TRACKER_FILE))
    forget_after(folder, -1)
    emptied = [folder / BEST, *kept, *(folder / name for name in (STEPS, FOLDER, PICTURES)), *places]
    _remove_empty(*emptied, (folder / TRACKED).parent)
    _remove([path for path in (folder / LOG, folder / BAD_FILES) if path.is_file()])
    for path in checkpoint.existing(folder):
        checkpoint.remove(path)


def _to_go_on_from(recipe: Recipe, has: list[str]) -> Path:
    folder, choice = Path(recipe.output_dir), str(recipe.resume_from_checkpoint)
    found = checkpoint.resolve(folder, choice)
    if has and found.resolve().parent != folder.resolve():
        raise CheckpointError(
            f"{choice} is of another run than the one that {folder} holds ({', '.join(has)}); give another output_dir"
        )
    check(
        checkpoint.step_of(found) <= recipe.max_train_steps,
        f"{found} has made {checkpoint.step_of(found)} steps already, and max_train_steps is {recipe.max_train_steps}; "
        "give more, or go on from an earlier checkpoint",
    )
    return found


def _check_own_folder(recipe: Recipe) -> None:
    """Refuse a folder that stands for a model itself, or lies among the images, where pictures of the run would be."""
    folder = Path(recipe.output_dir)
    marker = next((name for name in (INDEX, *CONFIG_FILES) if (folder / name).is_file()), None)
    if marker is not None:
        raise InputError(f"{folder} has {marker}, so its name stands for the model there; give another output_dir")
    sources = {"data.train_data_dir": recipe.data.train_data_dir, "validation.data_dir": recipe.validation.data_dir}
    for name, images in sources.items():
        if images is not None and folder.resolve().is_relative_to(Path(images).resolve()):
            raise InputError(
                f"output_dir {folder} lies in {name} {images}, whose images would be joined by the run's own pictures; "
                "give another output_dir"
            )


def _check_place(path: Path, marker: str) -> None:
    """Refuse a place for a result in which a file would be replaced that is of no result."""
    check_writable(path.resolve() / marker if path.exists() else path)
    if path.is_dir() and not (path / marker).is_file() and (files := _model_files(path)):
        raise InputError(f"{path} holds {files[0].relative_to(path)}, but no {marker}; give another output_dir")


def _check_removable(recipe: Recipe) -> None:
    """Refuse to remove links, which lead to what is somewhere else, and what the run itself is made of."""
    folder = Path(recipe.output_dir)
    names: list[str | Path] = [*recipe.results, BEST, STEPS, FOLDER, PICTURES, TRACKED, TRACKED.parent, LOG, BAD_FILES]
    names += [Path(BEST, name) for name in recipe.results]
    own = [folder / name for name in names] + checkpoint.existing(folder)
    for path in own:
        check(
            not path.is_symlink(),
            f"{path} is a link, which overwrite_output_dir does not remove; remove it, or give another output_dir",
        )
    inputs = {name: value for name, value in flat(recipe.model_dump()).items() if name != "output_dir"}
    for name, value in inputs.items():
        used = Path(model_of_run(value)).resolve() if isinstance(value, str) and Path(value).exists() else None
        inside = [path for path in own if used is not None and used.is_relative_to(path.resolve())]
        check(
            not inside,
            f"{name} is {value}, which overwrite_output_dir would remove; give another output_dir",
        )


def _model_files(folder: Path) -> list[Path]:
    """The files of a saved model or component in a folder, and in the folders in it, that have names of such files."""
    found = [file for place in (folder, *_folders(folder)) for file in _files(place)]
    return [file for file in found if file.name in MODEL_FILES or parse(file.name)]


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, without links and what is hidden."""
    if not folder.is_dir():
        return []
    return [
        path for path in sorted(folder.iterdir()) if path.is_dir() and not path.is_symlink() and path.name[0] != "."
    ]


def _files(folder: Path, name: re.Pattern[str] = ANY) -> list[Path]:
    """The files in a folder that have such a name, without links."""
    if not folder.is_dir():
        return []
    entries = [path for path in sorted(folder.iterdir()) if name.fullmatch(path.name)]
    return [path for path in entries if path.is_file() and not path.is_symlink()]


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):  # it isn't empty, or isn't there
            folder.rmdir()
