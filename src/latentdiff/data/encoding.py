"""The encoding of a data set to a latent cache: in shards, by any number of processes, to the same bytes."""

from __future__ import annotations

import json
import math
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from latentdiff.bulk import processes
from latentdiff.bulk.shards import SHARD, Shard, Tell, Told, missing, split
from latentdiff.bulk.threads import map_in_threads
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.images import Images
from latentdiff.data.latent_cache import LatentCache, weights_fingerprint
from latentdiff.errors import BadFileError, InputError, one_line
from latentdiff.io.files import atomic_file, remove_folder
from latentdiff.io.latent_files import META, MOMENTS, PLAN, SHARDS, read_bad, stamp_of
from latentdiff.io.lock import LOCK, BusyError, locked
from latentdiff.io.mapped import MappedArray, create_mapped
from latentdiff.io.staging import recover_all
from latentdiff.io.system import sync_open
from latentdiff.pipelines.precision import has_bfloat16
from latentdiff.types import FirstStage

PARTIAL = ".partial"  # what the name of the folder ends in where an unfinished cache lies
PAUSE = 0.1  # seconds
CPU_PIXELS, ACCELERATOR_PIXELS = 2**17, 2**22  # that are encoded at once


class Encoded(NamedTuple):
    """Some images' rows, float16 (copies, N, ...), and why others have none, by the numbers of the images."""

    rows: NDArray[np.float16]
    bad: dict[int, str]


class LatentEncoding:
    """The work of encoding a data set, of which the result is a `LatentCache`.

    Rows go into one file of its full size in the folder `NAME.partial` beside the cache; each shard whose rows are on
    the disk has a file there, which also says which of its images can't be decoded. On the CPU every block of images
    is encoded by one thread, so the bytes are the same for any number of processes and threads. While one block is
    encoded, others are decoded.

    Args:
        folder: The folder of the cache.
        vae: The first stage, on the device that encodes.
        images: The images to encode.
        bad_files: The reporter of images that can't be decoded.
        bfloat16: Whether to encode in bfloat16, on a device that multiplies in it.
        shard: The number of images in a shard.
    """

    def __init__(
        self,
        folder: Path,
        vae: FirstStage,
        images: Images,
        bad_files: BadFiles,
        *,
        bfloat16: bool = False,
        shard: int = SHARD,
    ) -> None:
        self.folder, self.partial = folder, folder.with_name(folder.name + PARTIAL)
        self.vae, self.images, self.bad_files, self.shard = vae, images, bad_files, shard
        self.views, self.copies = images.views, images.views.copies
        self.device = next(vae.parameters()).device
        self.bfloat16 = bfloat16 and has_bfloat16(self.device)
        self.asked = {
            "first_stage": weights_fingerprint(vae),
            "images": images.fingerprint(),
            "random_flip": images.views.flip,
        }
        self.precision = "bfloat16" if self.bfloat16 else "float32"
        at_once = CPU_PIXELS if self.device.type == "cpu" else ACCELERATOR_PIXELS
        self.block = min(shard, max(1, at_once // images.resolution**2))
        self.one_at_a_time = nullcontext() if self.device.type == "cpu" else threading.Lock()

    def cache(self) -> LatentCache | None:
        """The finished cache; None if there is none, it is of other weights or images, or it is damaged."""
        found = self._open()
        if isinstance(found, str):
            return None
        for image, reason in found.bad.items():
            self.bad_files.add(str(self.images.files[image]), reason)
        return found

    def fault(self) -> str | None:
        """What is wrong with the folder, to follow its name in a sentence; None if it holds the finished cache."""
        found = self._open()
        return found if isinstance(found, str) else None

    def _open(self) -> LatentCache | str:
        """The finished cache, or what the folder is instead."""
        stamp = stamp_of(self.folder)
        faults = {
            "doesn't exist": not self.folder.exists(),
            "holds no finished latents": not (self.folder / META).exists(),
            f"has a {META} that is damaged": not stamp,
            "holds latents of another first stage": stamp.get("first_stage") != self.asked["first_stage"],
            "holds latents with another random_flip": stamp.get("random_flip") != self.asked["random_flip"],
            "holds latents of other images, or of another resolution or crop": stamp.get("images")
            != self.asked["images"],
        }
        for fault, is_one in faults.items():
            if is_one:
                return fault
        try:
            return LatentCache(self.folder, len(self.images), self.views)
        except (OSError, ValueError, TypeError) as error:
            return f"holds damaged latents ({one_line(error)})"

    def begin(self, *, replace: bool) -> None:
        """Have the folder ready in which the shards are written, with room for all of them.

        Processes may call it at the same time, unless it replaces.

        Args:
            replace: Whether latents of other weights, images or precision that were begun there are removed, or
                damaged ones.

        Raises:
            InputError: If such latents were begun there and stay, or the disk has no room.
        """
        plan = {**self.asked, "precision": self.precision, "shard": self.shard}
        begun = self.partial / PLAN
        fault = None
        if begun.exists() and stamp_of(self.partial, PLAN) != plan:
            fault = "holds latents of another first stage, data or options; give those, or remove it"
        elif begun.exists() and not self._has_room():
            fault = f"has a {MOMENTS} that is damaged or missing; remove the folder, and the latents are made anew"
        if fault is not None and not replace:
            raise InputError(f"{self.partial} {fault}")
        if fault is not None:
            remove_folder(self.partial)
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(f"{self.partial} is a file, and unfinished latents would go there; remove it") from None
        while not begun.exists():
            with suppress(BusyError), locked(self.partial):
                if not begun.exists():
                    self._make_room()
                    with atomic_file(begun) as aside:
                        aside.write_text(json.dumps(plan), encoding="utf-8")
            time.sleep(PAUSE * (not begun.exists()))

    def _make_room(self) -> None:
        """Make the file of rows, in its full size."""
        shapes = self._shapes()
        row = shapes[0] if len(shapes) == 1 else (max(math.prod(shape) for shape in shapes),)
        shape = (self.copies * len(self.images), *row)
        try:
            create_mapped(self.partial / MOMENTS, np.float16, shape)
        except OSError as error:
            shutil.rmtree(self.partial, ignore_errors=True)
            reason = f"{error.strerror}; free some space or choose another output"
            raise InputError(f"cannot write {self.folder}: {reason}") from None

    def _shapes(self) -> list[tuple[int, ...]]:
        """The shape (C, h, w) of the latents of each size of views; rows of several shapes are flat in the file."""
        sizes = self.views.shapes
        channels, *latents = self._moments(torch.zeros(1, self.images.channels, *sizes[0])).shape[1:]
        factor = sizes[0][0] // latents[0]
        return [(channels, height // factor, width // factor) for height, width in sizes]

    def _has_room(self) -> bool:
        """Whether the file of rows is there in its full size."""
        try:
            return len(MappedArray(self.partial / MOMENTS).rows) == self.copies * len(self.images)
        except (OSError, ValueError):
            return False

    def shards(self) -> list[Shard]:
        """All shards."""
        return split(len(self.images), self.shard)

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard's rows are on the disk."""
        return self._found_bad(shard) is not None

    def do(self, shards: Sequence[Shard], tell: Tell) -> None:
        """Encode some shards.

        Raises:
            InputError: If too many images can't be decoded, or the disk is full.
        """
        blocks = list(self._blocks(shards))
        shape = MappedArray(self.partial / MOMENTS).rows.shape[1:]
        results = map_in_threads(lambda block: self._encode(block[1], shape), blocks, self.device, processes.cores())
        found: dict[int, str] = {}
        with closing(results), open(self.partial / MOMENTS, "r+b") as file:
            np.lib.format.read_magic(file)
            (_, *row), *_ = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), 2 * int(np.prod(row))
            for (shard, numbers), encoded in zip(blocks, results, strict=True):
                found |= encoded.bad
                if self.bad_files.too_many(len(found)):
                    break
                for copy, rows in enumerate(encoded.rows):
                    file.seek(start + size * (copy * len(self.images) + numbers.start))
                    file.write(rows.tobytes())
                if numbers.stop == shard.items.stop:
                    file.flush()
                    sync_open(file.fileno())
                    bad = {image: found[image] for image in shard.items if image in found}
                    with atomic_file(self._mark(shard)) as aside:
                        aside.write_text(json.dumps(bad), encoding="utf-8")
                tell(Told(len(numbers)))
        for image, reason in found.items():  # when no thread decodes any more, as Pillow's warnings are hushed for all
            self.bad_files.add(str(self.images.files[image]), reason)

    def finish(self) -> bool:
        """Make the cache of the shards; False if some are missing.

        Raises:
            InputError: If no image could be decoded.
        """
        if self.cache() is not None:
            return True
        shards = self.shards()
        if missing(self, shards):
            return False
        bad: dict[int, str] = {}
        for shard in shards:
            bad |= self._found_bad(shard) or {}
        if len(bad) == len(self.images):
            first = next(iter(bad.values()))
            remove_folder(self.partial)
            raise InputError(f"{self.images.root}: no image can be decoded, the first: {first}; give others")
        with atomic_file(self.partial / META) as aside:
            made = {"precision": self.precision, "bad": bad} | ({"shapes": self._shapes()} if self.views.sizes else {})
            aside.write_text(json.dumps({**self.asked, **made}), encoding="utf-8")
        recover_all(self.partial)  # what killed workers have left
        (self.partial / LOCK).unlink(missing_ok=True)
        if self.folder.exists():
            remove_folder(self.folder)
        try:
            self.partial.rename(self.folder)
        except FileNotFoundError:  # another job of an array has found all done at the same time
            return self.cache() is not None
        (self.folder / PLAN).unlink()
        shutil.rmtree(self.folder / SHARDS)
        return True

    def _found_bad(self, shard: Shard) -> dict[int, str] | None:
        """The images of a shard that can't be decoded; None if the shard is not done, or what is said of it damaged."""
        try:
            return read_bad(json.loads(self._mark(shard).read_text(encoding="utf-8")), shard.items)
        except (OSError, ValueError):
            return None

    def _mark(self, shard: Shard) -> Path:
        return self.partial / SHARDS / f"{shard.name}.json"

    def _blocks(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, range]]:
        """What is encoded at once: always the same images, as the last bits depend on it."""
        for shard in shards:
            for start in range(shard.items.start, shard.items.stop, self.block):
                yield shard, range(start, min(start + self.block, shard.items.stop))

    def _encode(self, numbers: range, row: tuple[int, ...]) -> Encoded:
        """The rows of some images, of the shape that the file has; see `_shapes`."""
        bad: dict[int, str] = {}
        rows = np.zeros((self.copies, len(numbers), *row), np.float16)
        flat = rows.reshape(self.copies, len(numbers), -1)
        for crop in range(self.views.crops):
            decoded: dict[int, torch.Tensor] = {}
            for number in numbers:
                try:
                    decoded[number] = self.images.at(number, self.views.copy(number, crop))
                except BadFileError as error:
                    bad[number] = str(error)
            sizes = dict.fromkeys(pixels.shape for pixels in decoded.values())
            for copy in range(crop, self.copies, self.views.crops):
                for size in sizes:
                    alike = [number for number, pixels in decoded.items() if pixels.shape == size]
                    whole = torch.stack([self.views.copy(number, copy).lay(decoded[number]) for number in alike])
                    with self.one_at_a_time:  # so that the device has the memory for one, while others are decoded
                        moments = self._moments(whole).flatten(1).numpy()
                    flat[copy, [number - numbers.start for number in alike], : moments.shape[1]] = moments
        return Encoded(rows, bad)

    @torch.no_grad()
    def _moments(self, pixels: torch.Tensor) -> torch.Tensor:
        """The row of the cache for each image, as `LatentCache` describes it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            encoded = self.vae.encode(pixels.to(self.device))
        moments: torch.Tensor = encoded.latent_dist.parameters if hasattr(encoded, "latent_dist") else encoded.latents
        return moments.float().cpu()
