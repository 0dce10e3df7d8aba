"""The images of a data set as tensors, with what is known of them; `read_records` finds the reader of any source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from latentdiff.data.annotations import annotate
from latentdiff.data.folder import read_folder
from latentdiff.data.options import KNOWN, DataOptions
from latentdiff.data.records import Records
from latentdiff.data.shards import is_shards, read_shards
from latentdiff.data.stream import VisitedDataset
from latentdiff.data.tables import is_table, read_table
from latentdiff.data.views import View, Views
from latentdiff.errors import ConfigError
from latentdiff.io.arrays import filter_area, kind_of, read_values, resize_part, size_of
from latentdiff.io.images import FULL_SIZE, Box, load_image, to_picture, to_tensor
from latentdiff.io.stored import Stored, read_into_memory
from latentdiff.io.tiff import read_rgb_area
from latentdiff.labels import sorted_names
from latentdiff.types import JSON

LARGE_FILE = 2**23  # bytes from which on a file is read in parts, if it can be
IN_PARTS = 2  # how many times smaller than the image a part has to be for that
REDUCED = 2  # an image is decoded with at least so many times the pixels of the result, so that the filter has all


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
    """Images as tensors (channels, resolution, resolution) in [-1, 1]: the centre square, resized, or any other view.

    Of a large image no more is decoded than its format asks for: of JPEG one of at least twice the size that is needed,
    of `.npy` files and TIFFs the rows or tiles of the part.

    Args:
        records: The records of the images, from any source.
        resolution: Side of the tensors in pixels.
        channels: Channels of the tensors; 3 is RGB, 1 is grey.
        value_range: The values that become -1 and 1, see `latentdiff.io.arrays`.
        views: How the images are shown in training; None for centre squares.

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
        views: Views | None = None,
    ) -> None:
        self.records = records
        self.views = views or Views(resolution)
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
        kept = range(count)
        records, views = self.records.subset(kept), self.views.subset(kept)
        return Images(records, self.resolution, self.channels, self.value_range, views)

    def fingerprint(self) -> str:
        """A text that changes with the files and with the way in which they are read."""
        how = f"{self.resolution} {self.channels} {self.value_range} {self.records.fingerprint()}"
        how += self.views.fingerprint()
        return hashlib.sha256(how.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.at(index, self.views.centre(index))

    def at(self, index: int, view: View) -> torch.Tensor:
        """A view of image `index` as (channels, H, W) in [-1, 1]; BadFileError if it can't be decoded."""
        part = self._part(self.files[index], view)
        pixels = to_tensor(part) if isinstance(part, Image.Image) else part
        return view.lay(view.paint(pixels)).contiguous()

    def picture(self, index: int, view: View) -> Image.Image:
        """The same view as RGB pixels of 8 bits."""
        part = self._part(self.files[index], view)
        if isinstance(part, Image.Image) and view == View(view.size, view.zoom, view.place):
            return part
        pixels = to_tensor(part) if isinstance(part, Image.Image) else part
        return to_picture(view.lay(view.paint(pixels)))

    def _part(self, file: Stored, view: View) -> Image.Image | torch.Tensor:
        """The part that a view shows, resized: RGB of 8 bits, or values (channels, H, W) in [-1, 1]."""
        large = isinstance(file, Path) and file.exists() and file.stat().st_size > LARGE_FILE
        source: Stored = file if large else read_into_memory(file)
        if self.channels == 3 and kind_of(source) == "pillow":  # 8 bits all the way, which is how sampling reads images
            return _photo(source, view, large)
        height, width = size_of(source)
        box = view.box(height, width)
        area = filter_area(box, view.size, height, width)
        values = read_values(source, self.channels, self.value_range, area)
        return torch.from_numpy(resize_part(values, _within(box, area), view.size)).permute(2, 0, 1).contiguous()


def _photo(source: Stored, view: View, in_parts: bool) -> Image.Image:
    """The part of an RGB image of 8 bits that a view shows, resized; of large TIFFs no more is read, if it can be."""
    if in_parts:
        height, width = size_of(source)
        box = view.box(height, width)
        area = filter_area(box, view.size, height, width)
        small = IN_PARTS * (area[2] - area[0]) * (area[3] - area[1]) < height * width
        pixels = read_rgb_area(source, area) if small else None
        if pixels is not None:
            return _resized(Image.fromarray(pixels), _within(box, area), view.size)

    def reduce(height: int, width: int) -> int:
        left, top, right, bottom = view.box(height, width)
        return min((bottom - top) // (REDUCED * view.size[0]), (right - left) // (REDUCED * view.size[1]))

    image = load_image(source, str(source), reduce)
    height, width = image.info.get(FULL_SIZE, (image.height, image.width))
    factor = round(width / image.width)
    left, top, right, bottom = view.box(height, width)
    return _resized(image, (left / factor, top / factor, right / factor, bottom / factor), view.size)


def _within(box: Box, area: Box) -> Box:
    """A box relative to the left top corner of an area."""
    return box[0] - area[0], box[1] - area[1], box[2] - area[0], box[3] - area[1]


def _resized(image: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
    """A part of an image at a size (height, width)."""
    left, top, right, bottom = box
    if (bottom - top, right - left) == size:
        return image if image.size == size[::-1] else image.crop((int(left), int(top), int(right), int(bottom)))
    return image.resize(size[::-1], Image.Resampling.LANCZOS, box=box)


class Visits(VisitedDataset[torch.Tensor]):
    """The views of images that are drawn anew at every visit.

    Args:
        images: The images.
        seed: The seed of the run.
        places: The numbers of those that are visited; None for all.
    """

    def __init__(self, images: Images, seed: int, places: Sequence[int] | None = None) -> None:
        self.images, self.seed = images, seed
        self.places = range(len(images)) if places is None else places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> torch.Tensor:
        """The square that stands for an image outside of training."""
        return self.images[self.places[index]]

    def visit(self, index: int, number: int) -> torch.Tensor:
        """A view of an image as sample `number` of the run."""
        image = self.places[index]
        return self.images.at(image, self.images.views.draw(self.seed, number, image))

    def groups(self) -> list[NDArray[np.int64]]:
        """The items of each size."""
        return self.images.views.subset(self.places).groups(len(self))


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
