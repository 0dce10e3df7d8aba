"""All images of a run in one `.npz`, as evaluation suites read them: they go to disk as they are made."""

from __future__ import annotations

import json
import shutil
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from latentdiff.bulk import processes
from latentdiff.errors import InputError, LatentDiffError
from latentdiff.io.files import atomic_file
from latentdiff.io.system import NO_ROOM, allocate, sync_open
from latentdiff.reading import parse_json, read_text
from latentdiff.types import JSON

PARTIAL = ".partial"  # what the name of the folder ends in where an unfinished array lies
RUN, IMAGES, LABELS, MADE = "run.json", "images", "labels", "made"  # the files in it
LONGEST_START, PAUSE = 600, 0.1  # seconds
PART_BYTES = 2**20  # bytes at once


class Placed(NamedTuple):
    """An image in an array: its place, its pixels, and the number of its class, if there are classes."""

    place: int
    image: Image.Image
    label: int | None


class ArrayFile:
    """An array of images that is being made, by one process or several.

    The images lie in a file in a folder beside the array, with one byte for each that says whether it is there; so
    memory does not grow with their number, and an interrupted run goes on. What was asked for lies there too: images of
    other options are not mixed. The finished array has uint8 (N, H, W, 3) as `arr_0`, and int64 (N,) as `arr_1` where
    there are classes, as `numpy.savez` writes them.

    Args:
        path: The array.
        count: The number of images N.
        asked: What is asked for, as JSON values.

    Raises:
        InputError: If images of other options have been begun there.
    """

    def __init__(self, path: Path, count: int, asked: Mapping[str, object]) -> None:
        self.path, self.count, self.asked = path, count, dict(asked)
        self.folder = path.with_name(path.name + PARTIAL)
        run = self._run()
        if run is not None and run.get("asked") != self.asked:
            raise InputError(
                f"{self.folder} holds images that were made with other options; give those, or remove the folder"
            )
        self.made = bytes(count) if run is None else (self.folder / MADE).read_bytes()
        if len(self.made) != count:
            raise InputError(f"{self.folder / MADE} is damaged; remove the folder")

    def has(self, place: int) -> bool:
        """Whether the image of a place has been made, as far as this process knows."""
        return bool(self.made[place])

    def put(self, entries: Sequence[Placed]) -> None:
        """Write images; each counts as made when it is on the disk.

        Raises:
            InputError: If there is no room on the disk, or they are of another size than those before.
        """
        pixels = [np.asarray(entry.image.convert("RGB")) for entry in entries]
        labelled = entries[0].label is not None
        try:
            self._prepare(pixels[0].shape, labelled)
            with open(self.folder / IMAGES, "r+b") as images:
                for entry, values in zip(entries, pixels, strict=True):
                    _write_at(images, entry.place * values.nbytes, values.tobytes())
                sync_open(images.fileno())
            if labelled:
                with open(self.folder / LABELS, "r+b") as labels:
                    for entry in entries:
                        _write_at(labels, entry.place * 8, np.array(entry.label, np.int64).tobytes())
                    sync_open(labels.fileno())
            with open(self.folder / MADE, "r+b") as made:
                for entry in entries:
                    _write_at(made, entry.place, b"\1")
        except OSError as error:
            raise self._no_room(error) from None

    def finish(self) -> bool:
        """Make the array of all images, and remove the folder; False if some are still missing."""
        if self._run() is None or not all((self.folder / MADE).read_bytes()):
            return False
        run = self._run()
        assert run is not None
        with atomic_file(self.path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            self._pack(archive, "arr_0.npy", IMAGES, np.dtype(np.uint8), (self.count, *run["shape"]))
            if run["labelled"]:
                self._pack(archive, "arr_1.npy", LABELS, np.dtype(np.int64), (self.count,))
        shutil.rmtree(self.folder)
        return True

    def _pack(self, archive: zipfile.ZipFile, name: str, file: str, dtype: np.dtype[np.generic], shape: object) -> None:
        """Copy a file of numbers into the archive as a `.npy`."""
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        entry = zipfile.ZipInfo(name)  # without a date, so that equal images are equal files
        with archive.open(entry, "w", force_zip64=True) as member, open(self.folder / file, "rb") as data:
            np.lib.format.write_array_header_1_0(member, header)
            shutil.copyfileobj(data, member, PART_BYTES)

    def _prepare(self, shape: Sequence[int], labelled: bool) -> None:
        """Have the files ready: the first process makes them, of their full size, and the others wait for it."""
        wanted = {"asked": self.asked, "shape": list(shape), "labelled": labelled}
        if self._run() is None and processes.rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Room is taken at once, so that a full disk shows now and not after hours.
            sizes = {IMAGES: int(np.prod(shape)), LABELS: 8 if labelled else 0, MADE: 1}
            for name, size in sizes.items():
                with open(self.folder / name, "wb") as file:
                    if size:
                        allocate(file.fileno(), self.count * size)
            with atomic_file(self.folder / RUN) as aside:
                aside.write_text(json.dumps(wanted), encoding="utf-8")
        end = time.monotonic() + LONGEST_START
        while self._run() is None:
            if time.monotonic() > end:
                late = f"the first process has not begun {self.folder} in {LONGEST_START} seconds"
                raise InputError(f"{late}; start all of them anew")
            time.sleep(PAUSE)
        if self._run() != wanted:
            raise InputError(f"{self.folder} holds images of another size or model; remove the folder")

    def _run(self) -> JSON | None:
        """What the folder says of the run whose images it holds; None if there is none."""
        path = self.folder / RUN
        if not path.exists():
            return None
        try:
            run = parse_json(read_text(path))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); remove the folder") from None
        return run if isinstance(run, dict) else {}

    def _no_room(self, error: OSError) -> Exception:
        if isinstance(error, LatentDiffError) or error.errno not in NO_ROOM:
            return error
        return InputError(f"cannot write {self.path}: {error.strerror}; free some space or choose another --output")


def _write_at(file: IO[bytes], place: int, data: bytes) -> None:
    file.seek(place)
    file.write(data)
