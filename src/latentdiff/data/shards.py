"""Reading WebDataset shards: tar files in which the members that differ by their suffixes alone are one sample.

The order of samples is a function of the seed, so members are read in random order, at offsets that an index holds. The
index is made once for each shard and kept beside it, with the texts, as `.NAME.index.json`.
"""

from __future__ import annotations

import json
import os
import posixpath
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from latentdiff.data.metadata import METADATA, size_in
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Records, check_columns
from latentdiff.data.texts import decode_text
from latentdiff.data.walk import is_hidden, walk
from latentdiff.errors import InputError, one_line
from latentdiff.io.files import atomic_file
from latentdiff.io.stored import IMAGE_SUFFIXES, TarMember
from latentdiff.labels import integer_in
from latentdiff.registry import nearest
from latentdiff.types import JSON

TEXT_SUFFIXES = ("txt", "text", "caption", "cls", "json")
# The suffixes of what is known of an image, or its names in the JSON of a sample, unless the recipe says another.
DEFAULT_NAMES = {
    "text": ("txt", "text", "caption"),
    "label": ("cls", "label"),
    "objects": ("objects",),
    "label_map": ("label_map.png", "seg.png"),
}
DEFAULT_IMAGES = (*sorted(suffix[1:] for suffix in IMAGE_SUFFIXES), "npy")
MAX_TEXT_BYTES = 2**20  # larger members are not read as texts
INDEX_FORMAT = 3


class ShardSample(TypedDict):
    """A sample of a shard.

    Attributes:
        key: The path and name of its members, without their suffixes.
        files: The offset and size of each member that is no text, by its suffix.
        texts: The content of each member that is a text, by its suffix; bytes that are no UTF-8 as lone surrogates.
    """

    key: str
    files: dict[str, tuple[int, int]]
    texts: dict[str, str]


class ShardIndex(TypedDict):
    """The index of a shard.

    Attributes:
        stamp: The format of the index, and the size and time of the shard.
        samples: The samples, in the order of the shard.
        damaged: Why the shard could not be read to its end; None if it could.
    """

    stamp: list[int]
    samples: list[ShardSample]
    damaged: str | None


def is_shards(path: Path) -> bool:
    """Whether a path is a tar file, a pattern of tar files, or a folder with tar files and without metadata."""
    if path.is_dir():
        return not any((path / name).exists() for name in METADATA) and bool(_shards_in(path, "*.tar"))
    return path.suffix == ".tar"


def _refuse_images_beside(folder: Path) -> None:
    """InputError if a folder of shards has images, too, so that it isn't clear which are meant."""
    images = walk(folder).images
    if images:
        raise InputError(
            f"{folder} has shards and images, such as {images[0]}; for the shards give {folder / '*.tar'} as "
            "train_data_dir, for the images move the .tar files elsewhere"
        )


def _shards_in(folder: Path, pattern: str) -> list[Path]:
    """The shards of a folder, without hidden files such as `._0.tar`, which macOS writes beside others."""
    return sorted(path for path in folder.glob(pattern) if not is_hidden(path.name))


def _shards_of(source: Path) -> list[Path]:
    """The shards that a folder, a file or a pattern means."""
    if source.is_dir():
        _refuse_images_beside(source)
        return _shards_in(source, "*.tar")
    return [source] if source.is_file() else _shards_in(source.parent, source.name)


def read_shards(options: DataOptions) -> Records:
    """The records of all samples that have an image, shard by shard.

    Raises:
        InputError: If there are none, a shard is no tar file, or something is known of some samples only.
    """
    root = Path(str(options.train_data_dir))
    shards = _shards_of(root)
    if not shards:
        raise InputError(f"{root} matches no tar file; give a folder of them, or a pattern such as shards/train-*.tar")
    records = Records(root, [], {name: [] for name in KNOWN}, watched=shards)
    suffixes = DEFAULT_IMAGES if options.image_column is None else (options.image_column,)
    files, metadata, without = [], [], 0
    for shard in shards:
        index = _index_of(shard)
        if index["damaged"]:
            records.damaged.append((str(shard), index["damaged"]))
        for sample in index["samples"]:
            image = next((name for name in suffixes if name in sample["files"]), None)
            if image is None:
                without += 1
                continue
            files.append(_member(shard, sample, image))
            row = _row(shard, sample)
            metadata.append(row)
            for known in KNOWN:
                records.columns[known].append(_value(shard, sample, row, known, options))
    if without:
        records.notes.append(f"{root}: {without} samples have no image ({', '.join(suffixes)}), left out")
    records.files, records.metadata = files, metadata
    if any(records.columns["objects"]):
        records.frames = [size_in(row) for row in metadata]
    if not files:
        raise InputError(f"{root} holds no images; looked for were members with the suffix {', '.join(suffixes)}")
    for known in KNOWN:
        column = options.column(known)
        if column is not None and all(value is None for value in records.columns[known]):
            there = [name for row in metadata[:1] for name in row]
            raise InputError(f"{root} has nothing called {column!r}; {nearest(column, there)}")
    return check_columns(records)


def _member(shard: Path, sample: ShardSample, suffix: str) -> TarMember:
    offset, size = sample["files"][suffix]
    return TarMember(shard, f"{sample['key']}.{suffix}", offset, size)


def _row(shard: Path, sample: ShardSample) -> JSON:
    """All that a sample says: its texts by their suffixes, the content of its JSON, and None for each of its files.

    Raises:
        InputError: If a text is no UTF-8, or the JSON is none.
    """
    names = {suffix: f"{shard}/{sample['key']}.{suffix}" for suffix in sample["texts"]}
    texts = {
        suffix: decode_text(text.encode("utf-8", "surrogateescape"), names[suffix])
        for suffix, text in sample["texts"].items()
    }
    try:
        described = json.loads(texts.get("json") or "{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{names['json']} is not JSON ({one_line(error)}); correct it") from None
    return {**dict.fromkeys(sample["files"]), **texts, **(described if isinstance(described, dict) else {})}


def _value(shard: Path, sample: ShardSample, row: JSON, known: str, options: DataOptions) -> object:
    """The value of a sample in one of the columns `KNOWN`, or None if it has none."""
    given = options.column(known)
    name = next((name for name in ((given,) if given else DEFAULT_NAMES[known]) if name in row), None)
    if name is None:
        return None
    if known == "label_map":
        return _member(shard, sample, name) if name in sample["files"] else None
    value = row[name].strip() if isinstance(row[name], str) else row[name]
    number = integer_in(value) if known == "label" and isinstance(value, str) else None
    return value if number is None else number


def _index_of(shard: Path) -> ShardIndex:
    """The index of a shard, read from the file beside it, or made if there is none of this very shard."""
    stat, kept = shard.stat(), shard.with_name(f".{shard.name}.index.json")
    stamp = [INDEX_FORMAT, stat.st_size, stat.st_mtime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):
        index: ShardIndex = json.loads(kept.read_text(encoding="utf-8"))
        if index["stamp"] == stamp:
            return index
    samples, damaged = _scan(shard, stat.st_size)
    index = {"stamp": stamp, "samples": samples, "damaged": damaged}
    if os.access(shard.parent, os.W_OK):
        with suppress(InputError), atomic_file(kept) as aside:  # without room for it, it is made again the next time
            aside.write_text(json.dumps(index), encoding="utf-8")
    return index


def _scan(shard: Path, length: int) -> tuple[list[ShardSample], str | None]:
    """The samples of a shard of `length` bytes, from its headers, and the reason if it can't be read to its end."""
    samples: dict[str, ShardSample] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, base = posixpath.normpath(member.name).rpartition("/")
                stem, _, suffix = base.partition(".")
                if not member.isfile() or not stem or not suffix or any(map(is_hidden, folder.split("/"))):
                    continue
                if member.offset_data + member.size > length:
                    return _without_last(samples), f"it ends in the middle of {member.name}"
                key = f"{folder}/{stem}" if folder else stem
                sample = samples.setdefault(key, {"key": key, "files": {}, "texts": {}})
                suffix = suffix.lower()
                if suffix in TEXT_SUFFIXES and member.size <= MAX_TEXT_BYTES:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    sample["texts"][suffix] = stream.read().decode("utf-8", "surrogateescape")
                else:
                    sample["files"][suffix] = (member.offset_data, member.size)
            if archive.offset + tarfile.BLOCKSIZE > length:
                return _without_last(samples), "it has no end mark"
    except tarfile.TarError as error:
        if not samples:
            raise InputError(f"{shard} is not an uncompressed tar file ({error}); replace it") from None
        return _without_last(samples), str(error)
    return list(samples.values()), None


def _without_last(samples: dict[str, ShardSample]) -> list[ShardSample]:
    """All samples but the last, of which members may be missing."""
    return list(samples.values())[:-1]
