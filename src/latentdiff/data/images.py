"""The images of a data set as tensors, with what is known of them; `read_records` finds the reader of any source."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import Dataset

from latentdiff.data.annotations import annotate
from latentdiff.data.folder import read_folder
from latentdiff.data.mixture import join
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Records
from latentdiff.data.shards import is_shards, read_shards
from latentdiff.data.tables import is_table, read_table
from latentdiff.errors import ConfigError
from latentdiff.io.arrays import kind_of, read_values, resize_square
from latentdiff.io.images import centre_square, load_image, to_picture, to_tensor
from latentdiff.io.stored import Stored, read_into_memory
from latentdiff.labels import sorted_names
from latentdiff.types import JSON


def read_records(
    options: DataOptions, output_dir: str | Path | None = None, held_out: str | Path | None = None
) -> Records:
    """The records of the data that a recipe names, whatever kind of source it is; no image is opened.

    Args:
        options: The options of the data.
        output_dir: Where a run writes; its images are no data.
        held_out: The data that is validated on, if it has a folder of its own, which is left out here.

    Raises:
        InputError: If the data isn't there, holds no images, or something is known of some of them only.
        ConfigError: If an option does not go with this source, or an extra of the package is needed and missing.
    """
    if options.train_data:
        parts = [read_records(part, output_dir, held_out) for part in options.parts()]
        return join(parts, [one.weight for one in options.train_data])
    source = Path(options.train_data_dir or "")
    if options.dataset_name is None and options.dataset_config_name is not None:
        raise ConfigError("dataset_config_name is given without dataset_name; give both, or neither")
    if options.dataset_name is not None or is_table(source):
        _refuse_folder_options(options)
        return read_table(options, held_out)
    if is_shards(source):
        if options.given_split():
            raise ConfigError(f"dataset_split is given, but {source} is not a data set of Hugging Face; leave it out")
        _refuse_folder_options(options)
        return read_shards(options)
    return annotate(read_folder(options, output_dir, held_out), options)


def _refuse_folder_options(options: DataOptions) -> None:
    """ConfigError if an option is given that goes with a folder of images alone."""
    for name in ("annotations", "label_maps"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name} is given, but goes with a folder of images alone; use a column of the data")


class Images(Dataset[torch.Tensor]):
    """Images as tensors (channels, resolution, resolution) in [-1, 1]: the centre square, resized.

    Args:
        records: The records of the images, from any source.
        resolution: Side of the tensors in pixels.
        channels: Channels of the tensors; 3 is RGB, 1 is grey.
        value_range: The values that become -1 and 1, see `latentdiff.io.arrays`.

    Attributes:
        root: The name of the data in errors.
        files: The images; those of a folder are paths.
        metadata: All else that the source says of each image; may be empty.
        captions: A caption, or a list of captions, for each image; None if there are none.
        labels: The class number of each image; None if there are none.
        class_names: The names of the classes by number: sorted, by value if all are numbers; None if the data has
            numbers.
        objects: The objects in each image, as the data has them; None if there are none.
        boxes: The format of the objects' boxes, and whether they are in pixels; None if the source doesn't say it.
        label_maps: The file of each image's label map; None if there are none.
    """

    def __init__(
        self,
        records: Records,
        resolution: int,
        channels: int = 3,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        self.records = records
        self.resolution = resolution
        self.channels = channels
        self.value_range = value_range
        self.root = records.root
        self.files = records.files
        self.metadata = records.metadata
        self.captions: list[str | list[str]] | None = records.columns.get("text")
        self.objects: list[list[JSON]] | None = records.columns.get("objects")
        self.boxes = records.boxes
        self.label_maps: list[Stored] | None = records.columns.get("label_map")
        self.labels: list[int] | None = records.columns.get("label") or None
        self.class_names: list[str] | None = None
        if self.labels and isinstance(self.labels[0], str):
            self.class_names = sorted_names(records.columns["label"])
            numbers = {name: number for number, name in enumerate(self.class_names)}
            self.labels = [numbers[name] for name in records.columns["label"]]

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there are none; where the data has numbers, the largest is that of the last."""
        return max(self.labels) + 1 if self.labels else 0

    def hint(self, option: str) -> str:
        """The end of a message about what is not known of the images: the columns that the data has, and what may help.

        Args:
            option: The option that names such a column.
        """
        used = {"file_name", "width", "height", *KNOWN}
        there = sorted(set(self.metadata[0]) - used) if len(self.metadata) else []
        return f"; for one of its columns {', '.join(there)}, give data.{option}" if there else ""

    def first(self, count: int | None) -> Images:
        """The first `count` images, or all of them for None."""
        if count is None or count >= len(self):
            return self
        return Images(self.records.subset(range(count)), self.resolution, self.channels, self.value_range)

    def fingerprint(self) -> str:
        """A text that changes with the files and with the way in which they are read."""
        how = f"{self.resolution} {self.channels} {self.value_range} {self.records.fingerprint()}"
        return hashlib.sha256(how.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def square(self, index: int) -> Image.Image:
        """The centre square of image `index` as RGB pixels, resized."""
        return self._square(read_into_memory(self.files[index]))

    def __getitem__(self, index: int) -> torch.Tensor:
        file = read_into_memory(self.files[index])
        if self.channels == 3 and kind_of(file) == "pillow":
            return to_tensor(self._square(file))
        return self._values(file)

    def _square(self, file: Stored) -> Image.Image:
        if kind_of(file) == "pillow":  # 8 bits all the way, which is how sampling reads images
            return centre_square(load_image(file, str(file)), self.resolution)
        return to_picture(self._values(file))

    def _values(self, file: Stored) -> torch.Tensor:
        values = read_values(file, self.channels, self.value_range)
        return torch.from_numpy(resize_square(values, self.resolution)).permute(2, 0, 1).contiguous()


class ImageFolder(Images):
    """The RGB images of a folder, without a recipe.

    Args:
        root: The folder. `metadata.jsonl` in it (or `.csv` or `.parquet`) names the images (`file_name`) and what is
            known of them: captions (`text`), classes (`label`, all names or all numbers from 0), objects (`objects`, a
            list of `{"class": ..., "box": ...}`) and label maps (`label_map`, a file). Without this file every image in
            the folder counts, and if all of them are in sub-folders, those are the classes. Captions are also those in
            `.txt` files beside the images.
        resolution: Side of the tensors in pixels.

    Raises:
        InputError: If the folder is missing, holds no image, or the metadata names a missing file or has a column that
            isn't filled in every line.
    """

    def __init__(self, root: str | Path, resolution: int) -> None:
        super().__init__(read_folder(DataOptions(train_data_dir=str(root), resolution=resolution)), resolution)
