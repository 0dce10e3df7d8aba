"""Which file a name means, where names come from another place than the files: annotations, folders of label maps."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.stored import IMAGE_SUFFIXES

Parts = tuple[str, ...]
SUFFIXES = (*IMAGE_SUFFIXES, ".npy")


def relative_name(path: str | Path, root: str | Path) -> str | None:
    """The path in a folder with slashes, whether both are relative, absolute or by a link; None if it is outside."""
    if str(path).startswith(f"{root}{os.sep}") and os.pardir not in str(path):
        return str(path)[len(f"{root}{os.sep}") :].replace(os.sep, "/")
    for resolved in (os.path.abspath, os.path.realpath):
        inside = os.path.relpath(resolved(path), resolved(root))
        if not inside.startswith(os.pardir) and not os.path.isabs(inside):
            return Path(inside).as_posix()
    return None


def match_names(names: Sequence[str], files: Sequence[str], root: Path, source: str) -> list[str | None]:
    """The name that is meant for each file, None for a file that none is meant for.

    Names match by the whole path in `root` first, then by the end of the path (`images/day/1.png` is `day/1.png`), and
    by the bare name only if no other file has it. Names without a suffix match whatever the file's suffix is.

    Args:
        names: Names as somebody wrote them, with slashes or backslashes, relative or absolute; all different.
        files: The paths of files.
        root: The folder that the names should be relative to.
        source: What the names come from, for messages.

    Raises:
        InputError: If one name means several files, or several names one file.
    """
    wanted = {name: _parts_of_name(name, root) for name in names}
    inside = [relative_name(file, root) for file in files]
    whole = [_parts(os.path.abspath(file)) for file in files]
    relative = [parts if name is None else _parts(name) for name, parts in zip(inside, whole, strict=True)]
    by_last: dict[str, list[int]] = defaultdict(list)
    for place, parts in enumerate(whole):
        by_last[parts[-1]].append(place)
        if (stem := _without_suffix(parts)[-1]) != parts[-1]:
            by_last[stem].append(place)
    found: list[str | None] = [None] * len(files)
    given: set[str] = set()

    def exact(name: Parts, place: int) -> bool:
        return inside[place] is not None and name in (relative[place], _without_suffix(relative[place]))

    def by_end(name: Parts, place: int) -> bool:
        own, short = whole[place], relative[place]
        return any(_ends(path, name) for path in (own, _without_suffix(own))) or any(
            _ends(name, path) for path in (short, _without_suffix(short))
        )

    def bare(name: Parts, place: int) -> bool:
        return True

    levels: list[Callable[[Parts, int], bool]] = [exact, by_end, bare]
    for level in levels:
        left = {name: parts for name, parts in wanted.items() if name not in given}
        claims: dict[int, list[str]] = defaultdict(list)
        for name, parts in left.items():
            places = [place for place in by_last.get(parts[-1], ()) if level(parts, place)]
            free = [place for place in places if found[place] is None]
            if free and len(places) > 1:
                known = " and ".join(files[place] for place in places[:2])
                raise InputError(
                    f"{source} has {name!r}, which is {len(places)} files, such as {known}; "
                    f"give names with their path in {root}"
                )
            for place in free:
                claims[place].append(name)
        for place, claimants in claims.items():
            if len(claimants) > 1:
                raise InputError(
                    f"{source} has {' and '.join(map(repr, claimants[:2]))}, which both seem to mean {files[place]}; "
                    f"give names with their path in {root}"
                )
            found[place] = claimants[0]
            given.add(claimants[0])
    return found


def _parts(path: str) -> Parts:
    """The parts of a path; letters with accents in one form, since macOS writes file names in another than most."""
    return tuple(unicodedata.normalize("NFC", path).replace(os.sep, "/").split("/"))


def _parts_of_name(name: str, root: Path) -> Parts:
    """The parts of a name that somebody wrote, relative to `root` if it is an absolute path there."""
    path = posixpath.normpath(name.replace("\\", "/"))
    return _parts((relative_name(path, root) if posixpath.isabs(path) else None) or path)


def _ends(path: Parts, end: Parts) -> bool:
    """Whether a path ends with another of more than a bare name."""
    return len(end) > 1 and path[-len(end) :] == end


def _without_suffix(parts: Parts) -> Parts:
    """The same without the suffix of an image."""
    stem, suffix = os.path.splitext(parts[-1])
    return (*parts[:-1], stem) if suffix.lower() in SUFFIXES else parts
