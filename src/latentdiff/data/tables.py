"""Data sets of Hugging Face's `datasets`: saved on disk, Parquet files, or by name from the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentdiff.compat import dataset_fingerprint
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Records, check_known
from latentdiff.errors import BadFileError, ConfigError, InputError
from latentdiff.io.stored import Cell
from latentdiff.registry import nearest

SAVED = ("state.json", "dataset_dict.json")  # of one split, of several


def is_table(path: Path) -> bool:
    """Whether it is a folder that `datasets` saved, Parquet files, or a folder of them."""
    saved = any((path / name).is_file() for name in SAVED)
    return saved or path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))


def read_table(options: DataOptions) -> Records:
    """The rows of a data set. Images stay where they are; all else that is known is read now.

    Raises:
        InputError: If the data set can't be loaded, has no images, or something is known of some rows only.
        ConfigError: If `datasets` is missing.
    """
    root = Path(options.train_data_dir or str(options.dataset_name))
    table = _load(options, root)
    features = table.features
    image = options.image_column or next((name for name in features if _is_image(features[name])), "image")
    columns = {known: options.column(known) or known for known in KNOWN}
    asked = [options.column(known) for known in KNOWN if options.column(known)]
    for name in (image, *asked):
        if name not in features:
            raise InputError(f"{root} has no column {name!r}; {nearest(str(name), list(features))}")
    known = {name: _column(table, column, root, name) for name, column in columns.items() if column in features}
    files = _cells(table, image, root)
    if not files:
        raise InputError(f"{root} holds no images; the data set is empty")
    pictures = [name for name in features if _is_image(features[name]) or name == image]
    identity = f"{dataset_fingerprint(table)} {image}"
    return check_known(Records(root, files, known, table.remove_columns(pictures), identity=identity))


def _load(options: DataOptions, root: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{root} needs Hugging Face datasets; install latentdiff[datasets] to read it") from None
    split = options.dataset_split
    try:
        if options.dataset_name is not None:
            return datasets.load_dataset(options.dataset_name, options.dataset_config_name, split=split)
        if any((root / name).is_file() for name in SAVED):
            saved = datasets.load_from_disk(str(root))
            return (
                saved[_split(options, root, list(saved))] if isinstance(saved, dict) else _whole(options, root, saved)
            )
        return datasets.load_dataset("parquet", data_files={split: _parquet_files(options, root)}, split=split)
    except InputError:
        raise
    except Exception as error:  # of the library, of Arrow, or of the network
        raise InputError(f"{root} can't be loaded as a data set ({error}); see the documentation of datasets") from None


def _split(options: DataOptions, root: Path, known: Sequence[str]) -> str:
    if options.dataset_split not in known:
        raise InputError(f"{root} has no split {options.dataset_split!r}; {nearest(options.dataset_split, known)}")
    return options.dataset_split


def _whole(options: DataOptions, root: Path, found: Any) -> Any:
    """What has no splits."""
    if options.given_split():
        raise InputError(f"dataset_split is {options.dataset_split!r}, but {root} has no splits; leave it out")
    return found


def _parquet_files(options: DataOptions, root: Path) -> list[str]:
    """The file, or those in a folder that are of the split, if names begin with one: `train-00000-of-00002.parquet`."""
    if not root.is_dir():
        return _whole(options, root, [str(root)])  # type: ignore[no-any-return]
    splits: dict[str, list[str]] = {}
    for path in sorted(root.glob("*.parquet")):
        splits.setdefault(path.stem.partition("-")[0], []).append(str(path))
    if options.dataset_split in splits:
        return splits[options.dataset_split]
    if options.given_split():
        _split(options, root, list(splits))
    return [path for files in splits.values() for path in files]


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


class _Bytes:
    """Row numbers to the bytes of a column of images."""

    def __init__(self, table: Any, column: str) -> None:
        import datasets

        table = table.select_columns([column])
        self.table = (
            table.cast_column(column, datasets.Image(decode=False)) if _is_image(table.features[column]) else table
        )
        self.column = column

    def __call__(self, row: int) -> bytes:
        value = self.table[row][self.column]
        if isinstance(value, dict):
            value = value["bytes"] if value["bytes"] is not None else value["path"] and Path(value["path"]).read_bytes()
        if not isinstance(value, bytes):
            raise BadFileError(f"row {row} has no image in column {self.column!r}")
        return value


def _cells(table: Any, column: str, root: Path) -> Sequence[Cell]:
    read = _Bytes(table, column)
    return [Cell(f"{root} row {row}", row, read) for row in range(len(table))]


def _column(table: Any, column: str, root: Path, known: str) -> list[Any]:
    """A column of `KNOWN` as `Records` has it."""
    feature = table.features[column]
    if known == "label_map":
        return list(_cells(table, column, root))
    values = list(table[column])
    if known == "label" and hasattr(feature, "int2str"):
        return [feature.int2str(value) if value is not None and value >= 0 else None for value in values]
    return [_objects(value, feature) for value in values] if known == "objects" else values


def _objects(value: Any, feature: Any) -> list[dict[str, Any]] | None:
    """Objects as a list of {"class", "box"}; in tables they are often columns, called `category` and `bbox`."""
    if isinstance(value, dict):
        value = [dict(zip(value, item, strict=True)) for item in zip(*value.values(), strict=True)]
    inner = getattr(feature, "feature", feature)
    inner = inner if isinstance(inner, dict) else {}
    objects = []
    for item in value or []:
        class_name = next((name for name in ("class", "category", "label") if name in item), "class")
        kind = getattr(inner.get(class_name), "feature", inner.get(class_name))
        found = item.get(class_name)
        named = (
            kind.int2str(found) if kind is not None and hasattr(kind, "int2str") and isinstance(found, int) else found
        )
        objects.append({"class": named, "box": item.get("box", item.get("bbox"))})
    return objects
