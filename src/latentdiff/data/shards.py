"""WebDataset shards: tar files in which members of one name, their suffixes aside, are one sample.

The order of samples is a function of the seed, so members are read at random, at offsets that an index holds. It is
made once for each shard and kept beside it, with the texts, as `.NAME.index.json`.
"""

from __future__ import annotations

import json
import os
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Records, check_known
from latentdiff.errors import InputError
from latentdiff.io.files import atomic_file
from latentdiff.io.images import IMAGE_SUFFIXES
from latentdiff.io.stored import TarMember
from latentdiff.registry import nearest

TEXT_SUFFIXES = ("txt", "text", "caption", "cls", "json")
USUAL = {
    "text": ("txt", "text", "caption"),
    "label": ("cls", "label"),
    "objects": ("objects",),
    "label_map": ("label_map.png", "seg.png"),
}
IMAGES = (*sorted(suffix[1:] for suffix in IMAGE_SUFFIXES), "npy")
LONGEST_TEXT = 2**20
INDEX_FORMAT = 1

Sample = dict[str, Any]  # "key", "files": suffix to (offset, size), "texts": suffix to text


def is_shards(path: Path) -> bool:
    """Whether it is a tar file, a pattern of them, or a folder that holds some beside no metadata of its own."""
    in_folder = path.is_dir() and not (path / "metadata.jsonl").exists() and any(path.glob("*.tar"))
    return path.suffix == ".tar" or in_folder


def read_shards(options: DataOptions) -> Records:
    """The samples of all shards that have an image, shard by shard.

    Raises:
        InputError: If there are none, a shard is no tar file, or something is known of some samples only.
    """
    root = Path(str(options.train_data_dir))
    shards = sorted(root.glob("*.tar") if root.is_dir() else root.parent.glob(root.name))
    if not shards:
        raise InputError(f"{root} matches no tar file; give a folder of them, or a pattern such as shards/train-*.tar")
    records = Records(root, [], {name: [] for name in KNOWN}, parts=shards)
    files, metadata, without = [], [], 0
    for shard in shards:
        index = _index_of(shard)
        if index["damaged"]:
            records.damaged.append((str(shard), index["damaged"]))
        for sample in index["samples"]:
            image = next((name for name in _images(options) if name in sample["files"]), None)
            if image is None:
                without += 1
                continue
            files.append(_member(shard, sample, image))
            row = _row(sample)
            metadata.append(row)
            for known in KNOWN:
                records.known[known].append(_value(shard, sample, row, known, options))
    if without:
        records.notes.append(f"{root}: {without} samples have no image ({', '.join(_images(options))}), left out")
    records.files, records.metadata = files, metadata
    if not files:
        raise InputError(
            f"{root} holds no images; looked for were members with the suffix {', '.join(_images(options))}"
        )
    for known in KNOWN:
        column = options.column(known)
        if column is not None and all(value is None for value in records.known[known]):
            there = [name for row in metadata[:1] for name in row]
            raise InputError(f"{root} has nothing called {column!r}; {nearest(column, there)}")
    return check_known(records)


def _images(options: DataOptions) -> tuple[str, ...]:
    return IMAGES if options.image_column is None else (options.image_column,)


def _member(shard: Path, sample: Sample, suffix: str) -> TarMember:
    offset, size = sample["files"][suffix]
    return TarMember(shard, f"{sample['key']}.{suffix}", offset, size)


def _row(sample: Sample) -> dict[str, Any]:
    """All that a sample says: texts and files by their suffix, and what its JSON has."""
    row: dict[str, Any] = {**dict.fromkeys(sample["files"]), **sample["texts"]}
    with suppress(ValueError):
        described = json.loads(sample["texts"].get("json", "{}"))
        row |= described if isinstance(described, dict) else {}
    return row


def _value(shard: Path, sample: Sample, row: dict[str, Any], known: str, options: DataOptions) -> Any:
    """What is known of a sample under one of `KNOWN`, or None."""
    given = options.column(known)
    name = next((name for name in ((given,) if given else USUAL[known]) if name in row), None)
    if name is None:
        return None
    if known == "label_map":
        return _member(shard, sample, name) if name in sample["files"] else None
    value = row[name].strip() if isinstance(row[name], str) else row[name]
    return int(value) if known == "label" and isinstance(value, str) and value.isdecimal() else value


def _index_of(shard: Path) -> dict[str, Any]:
    """The samples of a shard, from its index if that is of this very file."""
    stat, kept = shard.stat(), shard.with_name(f".{shard.name}.index.json")
    stamp = [INDEX_FORMAT, stat.st_size, stat.st_mtime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):
        index: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        if index["stamp"] == stamp:
            return index
    samples, damaged = _scan(shard, stat.st_size)
    index = {"stamp": stamp, "samples": samples, "damaged": damaged}
    if os.access(shard.parent, os.W_OK):
        with atomic_file(kept) as aside:
            aside.write_text(json.dumps(index, ensure_ascii=False), encoding="utf-8")
    return index


def _scan(shard: Path, length: int) -> tuple[list[Sample], str | None]:
    """The samples of a shard by its headers, and why it ended early if it did."""
    samples: dict[str, Sample] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if not member.isfile() or not stem or not suffix:
                    continue
                if member.offset_data + member.size > length:
                    return _whole(samples), f"it ends in the middle of {member.name}"
                key = f"{folder}/{stem}" if folder else stem
                sample = samples.setdefault(key, {"key": key, "files": {}, "texts": {}})
                suffix = suffix.lower()
                if suffix in TEXT_SUFFIXES and member.size <= LONGEST_TEXT:
                    stream = archive.extractfile(member)
                    assert stream is not None
                    sample["texts"][suffix] = stream.read().decode("utf-8", "replace")
                else:
                    sample["files"][suffix] = (member.offset_data, member.size)
            if archive.offset + tarfile.BLOCKSIZE > length:
                return _whole(samples), "it has no end mark"
    except tarfile.TarError as error:
        if not samples:
            raise InputError(f"{shard} is no uncompressed tar file ({error}); replace it") from None
        return _whole(samples), str(error)
    return list(samples.values()), None


def _whole(samples: dict[str, Sample]) -> list[Sample]:
    """The samples before the last, of which a part may be missing."""
    return list(samples.values())[:-1]
