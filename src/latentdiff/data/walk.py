"""The files of a folder: hidden ones are left out, linked folders are read once, and what is left out is said."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from latentdiff.errors import InputError, one_line
from latentdiff.io.stored import IMAGE_SUFFIXES

DATA_SUFFIXES = {*IMAGE_SUFFIXES, ".npy"}
# Pictures of which people expect that they are trained on, so that leaving them out deserves a warning.
OTHER_PICTURES = frozenset(
    [
        ".apng",
        ".arw",
        ".avif",
        ".cr2",
        ".cr3",
        ".dng",
        ".eps",
        ".exr",
        ".gif",
        ".hdr",
        ".heic",
        ".heif",
        ".hif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpf",
        ".jpx",
        ".jxl",
        ".mpo",
        ".nef",
        ".orf",
        ".pbm",
        ".pgm",
        ".ppm",
        ".psd",
        ".raf",
        ".raw",
        ".rw2",
        ".svg",
        ".tga",
    ]
)
# Folders that systems and network drives make beside the user's own, for thumbnails, copies, or what was deleted; in
# lower case, since Windows has more than one spelling.
SYSTEM_FOLDERS = frozenset(
    [
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "__macosx",
        "__pycache__",
        "lost+found",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
        "~snapshot",
    ]
)

Identity = tuple[int, int] | str
"""What is the same for all names of a file: its device and number, or its path if there is no such file."""


@dataclass
class Walked:
    """What `walk` found.

    Attributes:
        images: The files with a suffix of images or arrays, sorted.
        others: All other files.
        notes: A line for each link that is not followed and each thing that is no file.
        hidden: The names of the hidden files and folders, which are left out.
    """

    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def pictures_left_out(self) -> list[str]:
        """A line if there are pictures in formats that are not read, such as HEIC."""
        counts = Counter(path.suffix.lower() for path in self.others if path.suffix.lower() in OTHER_PICTURES)
        if not counts:
            return []
        return [f"{_listed(counts)} are not read, left out; convert them to PNG or JPEG"]

    def ignored(self, used: Iterable[Path] = ()) -> list[str]:
        """Lines on everything that is left out without a warning: what is hidden, and files that are no images.

        Args:
            used: The files among `others` that are used.
        """
        known = set(used)
        counts = Counter(
            path.suffix.lower() or "(without suffix)"
            for path in self.others
            if path not in known and path.suffix.lower() not in OTHER_PICTURES
        )
        lines = [f"{_listed(counts)} are no images"] if counts else []
        if self.hidden:
            lines.append(f"{len(self.hidden)} are hidden, the first is {self.hidden[0]}")
        return lines


def _listed(counts: Counter[str]) -> str:
    """Suffixes with their counts, such as "3 files .heic and 1 file .gif"."""
    parts = [f"{count} file{'s' * (count > 1)} {suffix}" for suffix, count in sorted(counts.items())]
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's data: `._x.png`, `.ipynb_checkpoints`, `@eaDir`."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def identity(path: str | Path) -> Identity:
    """What is the same for all names of a file or folder: links, hard links and relative paths."""
    try:
        stat = os.stat(path)
    except OSError:
        return os.path.abspath(path)
    return stat.st_dev, stat.st_ino


def walk(root: Path, excluded: Iterable[str | Path] = ()) -> Walked:
    """All files in a folder and its sub-folders, but for hidden ones.

    A link to a folder is followed if that folder isn't read anyway and doesn't hold `root`, so that no file comes twice
    and the walk ends. Folders that are no links come first: their names are the ones that count.

    Args:
        root: The folder.
        excluded: Folders in it that are left out.

    Raises:
        InputError: If a folder can't be read.
    """
    found = Walked()
    kept_out = {identity(folder) for folder in excluded}
    above = {identity(parent) for parent in Path(os.path.realpath(root)).parents}
    seen: set[Identity] = set()
    folders, links = deque([str(root)]), deque[str]()
    while folders or links:
        linked = not folders
        folder = links.popleft() if linked else folders.popleft()
        own = identity(folder)
        if own in kept_out and seen:
            continue
        if own in seen or (linked and own in above):
            found.notes.append(f"{folder} leads to a folder that is read already or holds {root}, left out")
            continue
        seen.add(own)
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            reason = error.strerror or one_line(error)
            raise InputError(f"folder {folder} can't be read ({reason}); allow it, or move it elsewhere") from None
        for entry in entries:
            if is_hidden(entry.name):
                found.hidden.append(entry.path)
            elif entry.is_dir():
                (links if entry.is_symlink() else folders).append(entry.path)
            else:
                _sort_in(entry, found)
    found.images.sort()
    return found


def _sort_in(entry: os.DirEntry[str], found: Walked) -> None:
    """Put what is no folder in its place; a link to an image that is gone stays, as a file that can't be read."""
    path = Path(entry.path)
    image = path.suffix.lower() in DATA_SUFFIXES
    if entry.is_file() or (image and entry.is_symlink()):
        (found.images if image else found.others).append(path)
    else:
        kind = "a link to nothing" if entry.is_symlink() else "no regular file"
        found.notes.append(f"{path} is {kind}, left out")
