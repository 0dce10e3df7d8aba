"""Metadata beside the images of a folder: `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, a row an image."""

from __future__ import annotations

import ast
import csv
import io
import json
import math
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Size
from latentdiff.data.texts import read_text_file
from latentdiff.errors import ConfigError, InputError, one_line
from latentdiff.labels import integer_in
from latentdiff.registry import nearest
from latentdiff.types import JSON

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
SIZE = ("width", "height")  # columns with the size of the image that boxes in pixels are of


@dataclass
class Row:
    """What a file of metadata says of one image.

    Attributes:
        file: The file of metadata.
        place: The row's place in it, for messages.
        values: The columns.
    """

    file: Path
    place: str
    values: JSON

    def path(self, column: str) -> Path:
        """The file that a column names, by its path relative to the metadata or by an absolute one.

        Raises:
            InputError: If the column has no path, or there is no such file.
        """
        if column not in self.values:
            option = "label_map_column" if column == "label_map" else "image_column"
            raise InputError(
                f"{self.file} {self.place} has no {column!r}; give the column as data.{option}, "
                f"{nearest(column, list(self.values))}"
            )
        name = self.values[column]
        if not isinstance(name, str) or not name.strip():
            raise InputError(
                f"{self.file} {self.place} has {name!r}, which is no path, as {column!r}; correct the line"
            )
        try:
            for spelling in (name, name.replace("\\", "/")):  # as Windows writes paths
                if (path := self.file.parent / spelling).is_file():
                    return path
        except ValueError:  # a null character
            pass
        raise InputError(f"{self.file} names {name}, which does not exist; restore the file or drop the line")


def read_rows(files: Sequence[Path], options: DataOptions) -> list[Row]:
    """The rows of files of metadata.

    Args:
        files: Files of the names in `METADATA`, of which a folder has one at most.
        options: Name the columns.

    Raises:
        InputError: If a file can't be read.
        ConfigError: If a Parquet file can't be read without an extra of the package.
    """
    for file in files:
        others = [other.name for other in files if other.parent == file.parent and other != file]
        if others:
            raise InputError(f"{file.parent} has {file.name} and {others[0]}; keep one of them")
    rows = [row for file in files for row in _READERS[file.suffix](file)]
    written = [row for row in rows if row.file.suffix == ".csv"]
    for name in (options.column("label") or "label", *SIZE):
        _read_integers(written, name)
    return rows


def size_in(values: Mapping[str, object]) -> Size | None:
    """The width and height that metadata says of an image, in pixels; None if it doesn't."""
    width, height = (values.get(name) for name in SIZE)
    return (width, height) if type(width) is int and type(height) is int and min(width, height) > 0 else None


def _read_integers(rows: Sequence[Row], name: str) -> None:
    """Make a column of CSV one of numbers if all of it is numbers; CSV itself knows texts alone."""
    texts = [row.values.get(name) for row in rows]
    numbers = [integer_in(text) if isinstance(text, str) else None for text in texts]
    if None not in numbers:
        for row, number in zip(rows, numbers, strict=True):
            row.values[name] = number


def check_rows(rows: Sequence[Row], options: DataOptions) -> None:
    """InputError if a label is not valid, or a column is in some rows alone or, though asked for, in none."""
    first_label: object = None
    names = {known: options.column(known) or known for known in KNOWN}
    for row in rows:
        if names["label"] not in row.values:
            continue
        label = row.values[names["label"]]
        first_label = label if first_label is None else first_label
        number = type(label) is int and label >= 0
        if not (number or type(label) is str) or type(label) is not type(first_label):
            raise InputError(
                f"{row.file} {row.place}: the label is {label!r}; give a name, or a number from 0, in all lines alike"
            )
    file_name = options.image_column or "file_name"
    for known, name in names.items():
        count = sum(name in row.values for row in rows)
        if 0 < count < len(rows):
            missing = next(row for row in rows if name not in row.values)
            raise InputError(
                f"{missing.file}: {name!r} is in {count} of {len(rows)} lines, not in that of "
                f"{missing.values.get(file_name)}; give it in all or none"
            )
        if rows and not count and options.column(known) is not None:
            raise InputError(f"{rows[0].file} has no column {name!r}; {nearest(name, list(rows[0].values))}")


def _read_jsonl(file: Path) -> Iterator[Row]:
    # str.splitlines would also split captions, at U+2028 for example.
    for number, line in enumerate(read_text_file(file).split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} {place} is not JSON ({one_line(error)}); correct the line") from None
        if not isinstance(values, dict):
            raise InputError(f'{file} {place} is {values!r}; give {{"file_name": ...}} with what is known of the image')
        yield Row(file, place, values)


def _read_csv(file: Path) -> list[Row]:
    """The rows of a CSV file with a header; an empty field is nothing, and a blank after a comma is none of a field."""
    rows = []
    reader = csv.DictReader(io.StringIO(read_text_file(file), newline=""), strict=True, skipinitialspace=True)
    try:
        header = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        if twice := [name for name, count in Counter(header).items() if name and count > 1]:
            raise InputError(f"{file} has two columns {twice[0]!r}; give each its own name")
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            raise InputError(f"{file} has the header {header[0]!r}; separate the columns by commas")
        for values in reader:
            place = f"line {reader.line_num}"
            if None in values or None in values.values():
                raise InputError(f"{file} {place} has not {len(header)} fields as its header; put quotes around commas")
            rows.append(Row(file, place, {name: _field(text) for name, text in values.items()}))
    except csv.Error as error:
        raise InputError(f"{file} line {reader.line_num} is not CSV ({error}); correct the line") from None
    return rows


def _field(text: str) -> object:
    """The value of a field of CSV: None for nothing, a list where it is written as JSON, Python or numpy writes one."""
    if not text.strip():
        return None
    if text[0] == "[" and text[-1] == "]":
        for read in (json.loads, _texts_in, ast.literal_eval):
            with suppress(ValueError, SyntaxError, tokenize.TokenError, RecursionError, MemoryError):
                value = read(text)
                if isinstance(value, list):
                    return value
    return text


def _texts_in(text: str) -> list[str]:
    """The texts of an array as numpy writes it, `['a' 'b']` without commas, which Python would read as one text.

    Raises:
        ValueError, SyntaxError: If it is anything else.
    """
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    texts = [token.string for token in tokens if token.type == tokenize.STRING]
    between = {token.string for token in tokens if token.type != tokenize.STRING} - {"[", "]", "\n", ""}
    if between or not texts:
        raise ValueError("it is no array of texts")
    return [ast.literal_eval(item) for item in texts]


def _read_parquet(file: Path) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(f"{file} is a Parquet file; install latentdiff[datasets] to read it") from None
    try:
        values = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} can't be read as Parquet ({one_line(error)}); replace it") from None
    return [
        Row(file, f"row {number}", {name: None if _is_nan(value) else value for name, value in row.items()})
        for number, row in enumerate(values)
    ]


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


_READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
