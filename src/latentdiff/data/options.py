"""What a recipe says of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from latentdiff.config import check

# What can be known of an image, and what it is called unless the recipe says so.
KNOWN = ("text", "label", "objects", "label_map")


@dataclass(frozen=True)
class DataOptions:
    """Where the images come from and what is known of them; the names are those of diffusers' training scripts.

    Attributes:
        train_data_dir: Folder of images, with what is known of them, if anything, in `metadata.jsonl` (columns
            `file_name`, `text`, `label`, `objects` and `label_map`); classes also as sub-folders. Or WebDataset shards:
            a folder of `.tar` files, one of them, or a pattern such as `shards/train-*.tar`. Or a folder that
            `datasets` saved, or of Parquet files.
        dataset_name: In place of train_data_dir, what `datasets.load_dataset` takes: one of the hub, or a folder.
        dataset_config_name: The configuration of such a data set, if it has several.
        dataset_split: The split of such a data set.
        annotations: For a folder of images: a COCO file of instances or captions, an Open Images file of boxes, and its
            class descriptions; one or a list of them.
        label_maps: For a folder of images: a folder of label maps with the images' names, whatever their suffix.
        image_column: Of the images, where it has not its usual name: `file_name`, `image`, or any suffix of images.
        caption_column: Of the captions, by default `text`; in shards also `txt`.
        label_column: Of the classes, by default `label`; in shards also `cls`.
        objects_column: Of the objects, by default `objects`.
        label_map_column: Of the label maps, by default `label_map`; in shards a suffix such as `seg.png`.
        resolution: Side of the square training images, in pixels.
        value_range: The two values that become -1 and 1, for images of floats or signed integers; by default 0 and 1 of
            floats, 0 and the largest number of unsigned integers.
        max_bad_share: Share of images that can't be decoded from which on a run stops; fewer are replaced by others.
    """

    train_data_dir: str | None = None
    dataset_name: str | None = None
    dataset_config_name: str | None = None
    dataset_split: str = "train"
    annotations: str | list[str] | None = None
    label_maps: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None
    objects_column: str | None = None
    label_map_column: str | None = None
    resolution: int = 256
    value_range: tuple[float, float] | None = None
    max_bad_share: float = 0.1

    def __post_init__(self) -> None:
        check(self.resolution > 0, f"resolution is {self.resolution}; it must be at least 1")
        for name in ("train_data_dir", "dataset_name", "label_maps"):
            check(getattr(self, name) != "", f"{name} is empty; give a path or a name, or leave it out")
        given = [name for name in ("train_data_dir", "dataset_name") if getattr(self, name) is not None]
        check(len(given) == 1, f"{' and '.join(given) or 'no train_data_dir'} is given; give one, or dataset_name")
        low, high = self.value_range or (0, 1)
        check(low < high, f"value_range is {self.value_range}; the first number must be below the second")
        check(0 <= self.max_bad_share <= 1, f"max_bad_share is {self.max_bad_share}; it must be in [0, 1]")

    def given_split(self) -> bool:
        """Whether the split is another than the default."""
        return self.dataset_split != type(self).dataset_split

    def columns_given(self) -> list[str]:
        """The options that name columns and are given."""
        names = ("image_column", "caption_column", *(f"{known}_column" for known in KNOWN[1:]))
        return [name for name in names if getattr(self, name) is not None]

    def column(self, known: str) -> str | None:
        """The name that the recipe gives a column of `KNOWN`, if any."""
        name: str | None = getattr(self, "caption_column" if known == "text" else f"{known}_column")
        return name


@dataclass(frozen=True)
class FolderOptions(DataOptions):
    """Options of data that no recipe describes.

    Attributes:
        box_format: Of the boxes in the data, "xywh" (left, top, width, height), which is the default, or "xyxy".
        box_units: "pixels" of the image file, which is the default, or "relative" to the image.
    """

    box_format: Literal["xywh", "xyxy"] | None = None
    box_units: Literal["pixels", "relative"] | None = None
