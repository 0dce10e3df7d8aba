"""Features of a set of images in files: computed in parts by any number of processes, and kept for the next time.

A part is 256 images, whose features one process computes in the same blocks however many processes there are. So the
bits of a feature depend on the image, its number, the network and the kind of device alone.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import cached_assets_path

from latentdiff.bulk.shards import SHARD, Shard, Tell, Told, missing, split
from latentdiff.bulk.threads import map_in_threads
from latentdiff.errors import InputError
from latentdiff.evaluation.features import FeatureExtractor
from latentdiff.evaluation.image_sets import ImageSet
from latentdiff.evaluation.moments import Moments, moments_of
from latentdiff.io.files import atomic_file
from latentdiff.types import Array, Float32Array

PART = SHARD
VERSION = 1  # of the way in which features are computed and kept


@dataclass(frozen=True)
class Computation:
    """All that features depend on, by which they are found again.

    Attributes:
        images: The fingerprint of the images.
        extractor: The hash of the network's weights.
        name: The name of its features.
        resize: How it resizes images.
        count: The number of images.
        device: The kind of device.
        version: VERSION.
    """

    images: str
    extractor: str
    name: str
    resize: str
    count: int
    device: str
    version: int = VERSION

    @property
    def key(self) -> str:
        """The name of its folder."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:32]


def default_cache() -> Path:
    """The folder in which features are kept: that of the hub's libraries for what they make (`HF_ASSETS_CACHE`)."""
    return Path(cached_assets_path("latentdiff", "evaluation", "features"))


class FeatureStore:
    """The features of the first `count` images of a set.

    Args:
        images: The images.
        extractor: The network.
        count: How many images, from the first on.
        cache: The folder that has a folder for each computation.
    """

    def __init__(self, images: ImageSet, extractor: FeatureExtractor, count: int, cache: Path) -> None:
        self.images, self.extractor, self.count = images, extractor, count
        self.computation = Computation(
            images.fingerprint(), extractor.identity, extractor.name, extractor.resize, count, extractor.device.type
        )
        self.folder = cache / self.computation.key

    def shards(self) -> list[Shard]:
        """All parts, as shards of some work."""
        return split(self.count, PART)

    def parts(self) -> range:
        """The numbers of all parts."""
        return range(-(-self.count // PART))

    def missing(self, parts: Sequence[int] | None = None) -> list[int]:
        """Those of some parts, by default of all, that have not been computed, or whose files are damaged."""
        return [part for part in (self.parts() if parts is None else parts) if not self._is_there(part)]

    def compute(self, parts: Sequence[int], done: Callable[[int], None] = lambda images: None) -> None:
        """Compute some parts and write their files; `done` hears of every block how many images it had.

        Raises:
            InputError: If an image can't be read or has another size, or a feature isn't finite.
        """
        self._describe()
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            for part in parts:
                numbers = range(part * PART, min((part + 1) * PART, self.count))
                size = self.extractor.block
                blocks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
                found: dict[str, list[torch.Tensor]] = {name: [] for name in self.extractor.dims}
                computed = map_in_threads(self._of_block, blocks, self.extractor.device)
                for block, features in zip(blocks, computed, strict=True):
                    for name, values in features.items():
                        self._check(values, block)
                        found[name].append(values)
                    done(len(block))
                for name, outputs in found.items():
                    with atomic_file(self._path(name, part)) as aside:
                        np.save(aside, torch.cat(outputs).numpy())

    def _of_block(self, numbers: range) -> dict[str, torch.Tensor]:
        pixels = np.stack([self.images.pixels(number) for number in numbers])
        return self.extractor.of_block(torch.from_numpy(pixels).permute(0, 3, 1, 2))

    def moments(self, output: str, count: int | None = None) -> Moments:
        """The moments of an output's features, of all images or the first `count`; all parts must be there.

        Those of all images are kept in a file.
        """
        rows = self.rows(output)
        if count is not None:
            return moments_of(rows.in_order(count), rows.dim)
        path = self.folder / f"moments-{output}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                return Moments(file["mean"], file["covariance"], self.count)
        except (OSError, ValueError, KeyError, EOFError):  # not there yet, or damaged
            found = moments_of(rows.in_order(self.count), rows.dim)
        with atomic_file(path) as aside, open(aside, "wb") as stream:
            np.savez(stream, mean=found.mean, covariance=found.covariance)
        return found

    def rows(self, output: str) -> StoredRows:
        """The features of an output, read from their files when they are needed."""
        return StoredRows([self._path(output, part) for part in self.parts()], self.count, self.extractor.dims[output])

    def _path(self, output: str, part: int) -> Path:
        return self.folder / f"{output}-{part:05d}.npy"

    def _is_there(self, part: int) -> bool:
        rows = min(PART, self.count - part * PART)
        for name, dim in self.extractor.dims.items():
            try:
                if np.load(self._path(name, part), mmap_mode="r", allow_pickle=False).shape != (rows, dim):
                    return False
            except (OSError, ValueError, EOFError):
                return False
        return True

    def _describe(self) -> None:
        """Say in the folder what its numbers are."""
        path = self.folder / "computation.json"
        if not path.exists():
            with atomic_file(path) as aside:
                aside.write_text(json.dumps({"of": self.images.name, **asdict(self.computation)}, indent=2))

    def _check(self, values: torch.Tensor, numbers: range) -> None:
        finite = values.isfinite().all(dim=1)
        if not finite.all():
            place = numbers[int(finite.logical_not().nonzero()[0])]
            raise InputError(
                f"the features {self.extractor.name} of image {place} of {self.images.name} are infinite or not a "
                "number; check the network's weights"
            )


class SharedFeatures(ABC):
    """What evaluations of sets of images have in common: stores of features, which processes fill together."""

    @abstractmethod
    def stores(self) -> Sequence[FeatureStore]:
        """All features that are needed."""

    def shards(self) -> list[Shard]:
        """The parts of all features that are needed."""
        return list(self._parts())

    def is_done(self, shard: Shard) -> bool:
        """Whether the features of a part are there."""
        store, part = self._parts()[shard]
        return not store.missing([part])

    def do(self, shards: Sequence[Shard], tell: Tell) -> None:
        """Compute the features of some parts.

        Raises:
            InputError: If an image can't be read or is of another size, or a feature isn't finite.
        """
        parts = self._parts()
        for store in self.stores():
            own = [part for of, part in map(parts.__getitem__, shards) if of is store]
            if own:
                store.compute(own, lambda images: tell(Told(images)))

    def size(self) -> int:
        """How many images features are computed of in all."""
        return sum(store.count for store in self.stores())

    def compute(self, done: Callable[[int], None] = lambda images: None) -> None:
        """Compute all features that aren't there, in this process.

        Args:
            done: Hears how many images each step had.

        Raises:
            InputError: As `do` raises it.
        """
        self.do(missing(self, self.shards()), lambda told: done(told.images))

    def _parts(self) -> dict[Shard, tuple[FeatureStore, int]]:
        """The parts of the stores, by the shards that they are."""
        return {
            Shard(f"{number}-{shard.name}", shard.items): (store, part)
            for number, store in enumerate(self.stores())
            for part, shard in enumerate(store.shards())
        }


class StoredRows:
    """Features (N, D) in files of PART rows each."""

    def __init__(self, paths: Sequence[Path], count: int, dim: int) -> None:
        self.paths, self.count, self.dim = paths, count, dim

    def __len__(self) -> int:
        return self.count

    def take(self, places: Array) -> Float32Array:
        """The features (len(places), D) of some images."""
        parts = places // PART
        rows = np.empty((len(places), self.dim), np.float32)
        for part in np.unique(parts):
            chosen = parts == part
            rows[chosen] = np.load(self.paths[part], mmap_mode="r", allow_pickle=False)[places[chosen] % PART]
        return rows

    def in_order(self, count: int) -> Iterator[Float32Array]:
        """The features of the first `count` images, a part at a time."""
        for number, path in enumerate(self.paths):
            left = count - number * PART
            if left > 0:
                yield np.load(path, allow_pickle=False)[:left]
