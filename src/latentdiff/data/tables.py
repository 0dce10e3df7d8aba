"""Reading data sets of Hugging Face's `datasets`: saved on disk, Parquet files, or by name from the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latentdiff.compat import dataset_fingerprint
from latentdiff.data.metadata import METADATA, SIZE, size_in
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import OBJECT_KEYS, Column, Records, as_objects, check_columns
from latentdiff.data.walk import identity, is_hidden
from latentdiff.errors import BadFileError, ConfigError, InputError
from latentdiff.io.stored import Cell
from latentdiff.registry import nearest

if TYPE_CHECKING:
    from datasets import Dataset

SAVED = ("state.json", "dataset_dict.json")  # the files of a saved data set with one split, and with several


def is_table(path: Path) -> bool:
    """Whether a path is a folder that `datasets` saved, a Parquet file, or a folder of Parquet files."""
    saved = any((path / name).is_file() for name in SAVED)
    return saved or (path.suffix == ".parquet" and not path.is_dir()) or (path.is_dir() and bool(_parquet_in(path)))


def _parquet_in(folder: Path) -> list[Path]:
    """The Parquet files of a folder, without hidden ones and those that are beside the images which they are of.

    Those are the metadata of a folder of images, and what img2dataset writes of each shard or sub-folder, such as
    `00000.parquet` beside `00000.tar` or `00000`.
    """
    return sorted(
        path
        for path in folder.glob("*.parquet")
        if not (is_hidden(path.name) or path.name in METADATA)
        and not (path.with_suffix(".tar").exists() or path.with_suffix("").is_dir())
    )


def read_table(options: DataOptions, held_out: str | Path | None = None) -> Records:
    """The records of a data set's rows. Images are read when they are needed, all other columns now.

    Args:
        options: The options of the data, which name the data set.
        held_out: Parquet files that are validated on, or their folder, which are left out here.

    Raises:
        InputError: If the data set can't be loaded, has no images, or something is known of some rows only.
        ConfigError: If `datasets` is missing.
    """
    root = Path(options.train_data_dir or str(options.dataset_name))
    table = _load(options, root, held_out)
    features = table.features
    image = options.image_column or next((name for name in features if _is_image(features[name])), "image")
    columns = {known: options.column(known) or known for known in KNOWN}
    asked = [options.column(known) for known in KNOWN if options.column(known)]
    for name in (image, *asked):
        if name not in features:
            paths = "; beside images, call it metadata.parquet" if "file_name" in features else ""
            raise InputError(f"{root} has no column {name!r}; {nearest(str(name), list(features))}{paths}")
    known = {name: _column(table, column, root, name) for name, column in columns.items() if column in features}
    files = _image_cells(table, image, root)
    if not files:
        raise InputError(f"{root} holds no images; the data set is empty")
    pictures = [name for name in features if _is_image(features[name]) or name == image]
    identity = f"{dataset_fingerprint(table)} {image}"
    metadata = table.remove_columns(pictures)
    sized = "objects" in known and set(SIZE) <= set(metadata.column_names)
    frames = [size_in(row) for row in metadata.select_columns(list(SIZE))] if sized else ()
    return check_columns(Records(root, files, known, metadata, frames=frames, identity=identity))


def _load(options: DataOptions, root: Path, held_out: str | Path | None) -> Dataset:
    """Load the data set, one split of it."""
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
            if isinstance(saved, dict):
                _check_split(options, root, list(saved))
                return saved[split]
            _check_no_split(options, root)
            return saved
        return datasets.load_dataset(
            "parquet", data_files={split: _parquet_files(options, root, held_out)}, split=split
        )
    except InputError:
        raise
    except Exception as error:  # one of the library, of Arrow or of the network
        raise InputError(f"{root} can't be loaded as a data set ({error}); see the documentation of datasets") from None


def _check_split(options: DataOptions, root: Path, known: Sequence[str]) -> None:
    """InputError unless the recipe's split is one of the data set's."""
    if options.dataset_split not in known:
        raise InputError(f"{root} has no split {options.dataset_split!r}; {nearest(options.dataset_split, known)}")


def _check_no_split(options: DataOptions, root: Path) -> None:
    """InputError if the recipe names a split, which the data set doesn't have."""
    if options.given_split():
        raise InputError(f"dataset_split is {options.dataset_split!r}, but {root} has no splits; leave it out")


def _parquet_files(options: DataOptions, root: Path, held_out: str | Path | None) -> list[str]:
    """The file, or the files of a folder that belong to the split.

    The name of a file may begin with its split, as in `train-00000-of-00002.parquet`. If no name begins with the split
    and the recipe doesn't name one, all files are read.
    """
    if not root.is_dir():
        _check_no_split(options, root)
        return [str(root)]
    splits: dict[str, list[str]] = {}
    unseen = [] if held_out is None else [Path(held_out), *Path(held_out).glob("*.parquet")]
    kept_out = set(map(identity, unseen))
    for path in _parquet_in(root):
        if identity(path) in kept_out:
            continue
        splits.setdefault(path.stem.partition("-")[0], []).append(str(path))
    if options.dataset_split in splits:
        return splits[options.dataset_split]
    if options.given_split():
        _check_split(options, root, list(splits))
    return [path for files in splits.values() for path in files]


def _is_image(feature: object) -> bool:
    """Whether a feature of `datasets` is a column of images."""
    return type(feature).__name__ == "Image"


class _ImageColumn:
    """A column of images, as a function from row numbers to bytes."""

    def __init__(self, table: Dataset, column: str) -> None:
        import datasets

        self.table = table.select_columns([column])
        if _is_image(table.features[column]):
            self.table = self.table.cast_column(column, datasets.Image(decode=False))
        self.column = column

    def __call__(self, row: int) -> bytes:
        value = self.table[row][self.column]
        if isinstance(value, dict):
            content, path = value["bytes"], value["path"]
            value = Path(path).read_bytes() if content is None and path else content
        if not isinstance(value, bytes):
            raise BadFileError(f"row {row} has no image in column {self.column!r}")
        return value


def _image_cells(table: Dataset, column: str, root: Path) -> list[Cell]:
    """The images of a column, not read yet."""
    read = _ImageColumn(table, column)
    return [Cell(f"{root} row {row}", row, read) for row in range(len(table))]


def _column(table: Dataset, column: str, root: Path, known: str) -> Column:
    """The values of a column, as `Records` has them for the column `known` of `KNOWN`."""
    feature = table.features[column]
    if known == "label_map":
        return _image_cells(table, column, root)
    values = list(table[column])
    if known == "label" and hasattr(feature, "int2str"):
        return [feature.int2str(value) if value is not None and value >= 0 else None for value in values]
    return [_objects(value, feature) for value in values] if known == "objects" else values


def _objects(value: object, feature: object) -> object:
    """The objects of an image, in which numbers of classes become the names that the column's feature has for them."""
    features = getattr(feature, "feature", feature)
    named: Mapping[str, object] = features if isinstance(features, dict) else {}
    classes = next((named[name] for name in ("class", *OBJECT_KEYS["class"]) if name in named), None)
    name_of = getattr(getattr(classes, "feature", classes), "int2str", None)
    objects = as_objects(value)
    if not isinstance(objects, list):
        return objects
    found = []
    for item in objects:
        label = item.get("class")
        found.append({"class": name_of(label) if name_of and isinstance(label, int) else label, "box": item.get("box")})
    return found
