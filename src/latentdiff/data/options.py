"""The part `data` of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from latentdiff.config import Part, check, option

# What can be known of an image, and what it is called unless the recipe says so.
KNOWN = ("text", "label", "objects", "label_map")


class DataSetOptions(Part):
    """One of several data sets; all else is that of the part `data`."""

    dir: str
    """What train_data_dir would be."""
    weight: float = option(1.0, gt=0)
    """Its share of the samples, in the unit of the other data sets'."""
    annotations: str | list[str] | None = None
    """What annotations would be."""
    label_maps: str | None = None
    """What label_maps would be."""


class DataOptions(Part):
    """Where the images come from, what is known of them and how they are read; many names are those of diffusers."""

    train_data_dir: str | None = option(None, resume="free")
    """Folder of images, with what is known of them, if anything, in `metadata.jsonl`, `.csv` or `.parquet` (columns
    `file_name`, `text`, `label`, `objects` and `label_map`); captions also in `.txt` files beside them, classes as
    sub-folders. Or WebDataset shards: a folder of `.tar` files, one of them, or a pattern such as `shards/train-*.tar`.
    Or a folder that `datasets` saved, or of Parquet files."""
    train_data: list[DataSetOptions] = option([])
    """In place of train_data_dir, several data sets, each with its `dir` and `weight`, such as `[{dir: photos, weight:
    3}, {dir: paintings}]`."""
    dataset_name: str | None = option(None, resume="free")
    """In place of train_data_dir, what `datasets.load_dataset` takes: a data set of the hub, or a folder."""
    dataset_config_name: str | None = None
    """The configuration of such a data set, if it has several."""
    dataset_split: str = "train"
    """The split of such a data set, or of a folder with sub-folders such as `train` and `test`."""
    annotations: str | list[str] | None = option(None, resume="free")
    """For a folder of images: a COCO file of instances or captions, an Open Images file of boxes, and its class
    descriptions; one or a list of them."""
    label_maps: str | None = option(None, resume="free")
    """For a folder of images: a folder of label maps with the images' names, whatever their suffix."""
    image_column: str | None = None
    """The images' column where it has not its usual name: `file_name`, `image`, or any suffix of images."""
    caption_column: str | None = None
    """The captions' column, by default `text`, in shards also `txt`; or the suffix of files beside the images."""
    label_column: str | None = None
    """The classes' column, by default `label`; in shards also `cls`."""
    objects_column: str | None = None
    """The objects' column, by default `objects`."""
    label_map_column: str | None = None
    """The label maps' column, by default `label_map`; in shards a suffix such as `seg.png`."""
    box_format: Literal["xywh", "xyxy"] | None = None
    """Format of the objects' boxes: "xywh" (left, top, width, height) or "xyxy" (left, top, right, bottom); annotations
    have their own, else it is "xywh"."""
    box_units: Literal["pixels", "relative"] | None = None
    """Units of the objects' boxes: "pixels" of the image file, as COCO has them, or "relative" to the image; else
    "pixels"."""
    resolution: int = option(256, ge=1)
    """Side of the square training images, in pixels."""
    value_range: tuple[float, float] | None = None
    """The two values that become -1 and 1, for images of floats or signed integers; by default 0 and 1 of floats, 0 and
    the largest number of unsigned integers."""
    random_flip: bool = False
    """Mirror half of the images."""
    max_bad_share: float = option(0.1, ge=0, le=1, resume="free")
    """Share of images that can't be decoded from which on a run stops; fewer are replaced by others."""
    num_workers: int = option(0, ge=0, resume="free")
    """Processes that read and prepare images; 0 reads them in the training process."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        for name in ("train_data_dir", "dataset_name", "label_maps"):
            check(getattr(self, name) != "", f"{name} is empty; give a path or a name, or leave it out")
        given = [name for name in ("train_data_dir", "dataset_name", "train_data") if self.given(name)]
        check(bool(given), "train_data_dir is missing; give it, or dataset_name")
        check(len(given) == 1, f"{given[0]} is given, and {given[-1]} too; give one of them")
        folders = [one.dir for one in self.train_data]
        twice = next((folder for folder in folders if folders.count(folder) > 1), None)
        check(twice is None, f"train_data has {twice} twice; give each data set once, and its weight")
        for name in ("annotations", "label_maps", "dataset_config_name"):
            check(not (folders and self.given(name)), f"{name} is given beside train_data; give each data set its own")
        low, high = self.value_range or (0, 1)
        check(low < high, f"value_range is {self.value_range}; the first number must be below the second")
        return self

    def of_folder(self, folder: str) -> Self:
        """The options for another folder whose images are read alike; what names these images alone is left out."""
        return self._of(DataSetOptions(dir=folder), {"dataset_split"})

    def parts(self) -> list[Self]:
        """The options of each data set of `train_data`."""
        return [self._of(one, set()) for one in self.train_data]

    def _of(self, one: DataSetOptions, also_own: set[str]) -> Self:
        own = {"train_data", "dataset_name", "dataset_config_name", "annotations", "label_maps", *also_own}
        shared = {name: getattr(self, name) for name in self.model_fields_set - own}
        theirs = {"train_data_dir": one.dir, "annotations": one.annotations, "label_maps": one.label_maps}
        return type(self)(**{**shared, **theirs})

    def given_split(self) -> bool:
        """Whether the split is another than that of data without splits."""
        return self.dataset_split != "train"

    def columns_given(self) -> list[str]:
        """The options that name columns and are given."""
        names = ("image_column", "caption_column", *(f"{known}_column" for known in KNOWN[1:]))
        return [name for name in names if getattr(self, name) is not None]

    def column(self, known: str) -> str | None:
        """The name that the recipe gives a column of `KNOWN`, if any."""
        name: str | None = getattr(self, "caption_column" if known == "text" else f"{known}_column")
        return name
