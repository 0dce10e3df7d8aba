"""Images of any source as tensors, with what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import Dataset

from latentdiff.data.records import Records
from latentdiff.io.arrays import kind_of, read_values, resize_square
from latentdiff.io.images import centre_square, load_image, to_picture, to_tensor
from latentdiff.io.stored import Stored, read_into_memory


class Images(Dataset[torch.Tensor]):
    """Images as tensors (channels, resolution, resolution) in [-1, 1]: the centre square, resized.

    Args:
        records: Of any source.
        resolution: Side of the tensors in pixels.
        channels: Of the tensors; 3 are RGB, 1 is grey.
        value_range: What becomes -1 and 1, see `latentdiff.io.arrays`.

    Attributes:
        root: What errors call the data.
        files: The images; of a folder they are paths.
        metadata: The lines of the metadata, none without it.
        captions: One caption an image, or a list of them; None if there are none.
        labels: The number of each image's class, or None.
        class_names: Names of the classes, sorted, by number; None where the data has numbers.
        objects: The objects in each image as the data has them, or None.
        boxes: The format of their boxes where the source has its own, and whether they are in pixels.
        label_maps: The file of each image's label map, or None.
    """

    def __init__(
        self,
        records: Records,
        resolution: int,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.records, self.resolution, self.channels, self.value_range = records, resolution, channels, value_range
        self.root, self.files, self.boxes = records.root, records.files, records.boxes
        self.metadata: Sequence[Mapping[str, Any]] = records.metadata
        self.captions: list[Any] | None = records.known.get("text")
        self.objects: list[Any] | None = records.known.get("objects")
        self.label_maps: list[Stored] | None = records.known.get("label_map")
        self.labels: list[int] | None = None
        self.class_names: list[str] | None = None
        if classes := records.known.get("label"):
            self.class_names = sorted(set(classes)) if isinstance(classes[0], str) else None
            numbers = {name: number for number, name in enumerate(self.class_names or ())}
            self.labels = [numbers[name] for name in classes] if self.class_names else classes

    @property
    def num_classes(self) -> int:
        """Number of classes; those of numbers alone end with the largest. 0 where there are none."""
        return max(self.labels) + 1 if self.labels else 0

    def first(self, count: int | None) -> Images:
        """The first `count` images alone, or all."""
        if count is None or count >= len(self):
            return self
        return Images(self.records.chosen(range(count)), self.resolution, self.channels, self.value_range)

    def fingerprint(self) -> str:
        """Changes with the files and how they are read."""
        how = f"{self.resolution} {self.channels} {self.value_range} {self.records.fingerprint()}"
        return hashlib.sha256(how.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def square(self, index: int) -> Image.Image:
        """Image `index` as RGB pixels: the centre square, resized."""
        return self._square(read_into_memory(self.files[index]))

    def __getitem__(self, index: int) -> torch.Tensor:
        file = read_into_memory(self.files[index])
        if self.channels == 3 and kind_of(file) == "pillow":
            return to_tensor(self._square(file))
        return self._values(file)

    def _square(self, file: Stored) -> Image.Image:
        if kind_of(file) == "pillow":  # 8 bits all the way, as sampling reads images
            return centre_square(load_image(file, str(file)), self.resolution)
        return to_picture(self._values(file))

    def _values(self, file: Stored) -> torch.Tensor:
        values = read_values(file, self.channels, self.value_range)
        return torch.from_numpy(resize_square(values, self.resolution)).permute(2, 0, 1).contiguous()
