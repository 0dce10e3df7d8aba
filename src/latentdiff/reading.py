"""Reading files that a user names: regular files only, and JSON and YAML whose size, depth and numbers have limits."""

from __future__ import annotations

import errno
import functools
import json
import math
import os
import stat
from collections import Counter
from pathlib import Path
from typing import BinaryIO, NoReturn

import yaml

from latentdiff.errors import one_line

MAX_TEXT_BYTES = 2**30  # the annotations of COCO have half of that
MAX_YAML_CHARACTERS = 2**20  # recipes and configurations have thousands
MAX_YAML_VALUES = 100_000  # with what stands behind an alias counted wherever the alias stands
MAX_YAML_DEPTH = 64
LFS_POINTER = b"version https://git-lfs.github.com/spec"  # how a file begins that git has not fetched

FILE_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
SYSTEM_FOLDERS = ("/proc", "/sys")  # their files are views into the system, which may have no end or wait for events


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file for reading its bytes, as `open(path, "rb")` does.

    Raises:
        OSError: If it can't be opened, or is anything else: the reading of a pipe or a device may never end, and it is
            refused before it is opened.
    """
    _check_regular(os.stat(path), path)
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    try:
        _check_regular(os.fstat(file.fileno()), path)  # it may have become something else since
    except BaseException:
        file.close()
        raise
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _check_regular(found: os.stat_result, path: str | Path) -> None:
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG or found.st_dev in _system_devices():
        what = FILE_KINDS.get(kind, "a file of the system")
        raise OSError(errno.EINVAL, f"it is {what}, and only files on a disk are read; save it as one", str(path))


@functools.cache
def _system_devices() -> frozenset[int]:
    """The devices of SYSTEM_FOLDERS where they are file systems of their own."""
    devices = {os.stat(folder).st_dev for folder in SYSTEM_FOLDERS if os.path.isdir(folder)}
    return frozenset(devices - {os.stat(os.sep).st_dev})


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        OSError: As `open_file`, and if it is longer than any text that is read here, or a pointer of Git LFS.
        UnicodeDecodeError: If it is not UTF-8.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_TEXT_BYTES:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and at most {MAX_TEXT_BYTES} are read", str(path))
        content = file.read()
    if content.startswith(LFS_POINTER):
        raise OSError(errno.EINVAL, "it is a pointer of Git LFS, fetch the file with git lfs pull", str(path))
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def parse_json(text: str) -> object:
    """The value of a JSON text.

    Raises:
        ValueError: If it is not JSON, is nested too deeply, has a name twice in one object, or a number that is none or
            that no computer number holds (NaN, Infinity, 1e999, an integer of thousands of digits).
    """
    try:
        value: object = json.loads(
            text, parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_with_names_once
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _with_names_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        _check_names([name for name, _ in pairs], "object")
    return values


def parse_yaml(text: str) -> object:
    """The value of a YAML text.

    Raises:
        ValueError: If it is not YAML, too long, nested too deeply, describes more values by its aliases than any
            configuration has, contains itself, has a name twice in one mapping, or a value that is not of its tag.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it has {len(text)} characters; at most {MAX_YAML_CHARACTERS} are read")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(one_line(error)) from None  # PyYAML checks no value of an explicit tag, such as !!int x


def _measure(node: yaml.Node, known: dict[yaml.Node, tuple[int, int]]) -> tuple[int, int]:
    """The number of values that a node stands for, and of its levels; ValueError if there are too many."""
    if node in known:
        return known[node]
    known[node] = MAX_YAML_VALUES, MAX_YAML_DEPTH  # until they are known: what contains itself has no end
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inside = list(node.value)
    elif isinstance(node, yaml.MappingNode):
        inside = [part for pair in node.value for part in pair]
        _check_names([name.value for name, _ in node.value if isinstance(name, yaml.ScalarNode)], "mapping")
    sizes = [_measure(part, known) for part in inside]
    count, depth = 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
    if depth > MAX_YAML_DEPTH:
        raise ValueError("it is nested too deeply")
    if count > MAX_YAML_VALUES:
        raise ValueError(f"it describes more than {MAX_YAML_VALUES} values")
    known[node] = count, depth
    return count, depth


def _check_names(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        name, _ = Counter(names).most_common(1)[0]
        raise ValueError(f"{name!r} stands twice in one {where}")
