"""The part `data` of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from latentdiff.config import Part, check, option

# Options that say which part of an image is seen, and how; what is validated on is the centre square as it is.
VIEWS = ("crop", "min_crop", "max_crop", "crops_per_image", "random_flip", "random_rotate", "colour_jitter", "buckets")
CACHED_CROPS = 4  # of an image, where they are drawn and nobody has said how many

# What can be known of an image, and what it is called unless the recipe says so.
KNOWN = ("text", "label", "objects", "label_map")


class BucketOptions(Part):
    """Aspect buckets: sizes of about one area, in which images of mixed ratios are trained on."""

    multiple: int = option(32, ge=1)
    """What divides the sides of all sizes; the model has to take such sides. At an eighth of the resolution or less,
    little is cut away."""
    max_ratio: float = option(2.0, ge=1)
    """The greatest ratio of the longer side to the shorter; images beyond it are refused."""


class DataOptions(Part):
    """Where the images come from, what is known of them and how they are read; many names are those of diffusers."""

    train_data_dir: str | None = option(None, resume="free")
    """Folder of images, with what is known of them, if anything, in `metadata.jsonl`, `.csv` or `.parquet` (columns
    `file_name`, `text`, `label`, `objects` and `label_map`); captions also in `.txt` files beside them, classes as
    sub-folders. Or WebDataset shards: a folder of `.tar` files, one of them, or a pattern such as `shards/train-*.tar`.
    Or a folder that `datasets` saved, or of Parquet files."""
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
    crop: Literal["centre", "random", "grid", "none"] = "centre"
    """What is cut of an image before it is resized: its "centre" square; a "random" square at every visit; each square
    of a "grid" of `resolution` pixels over the whole image; or with "none" nothing, for images that are square."""
    min_crop: float = option(0.5, gt=0, le=1)
    """The least side of a random square, as a share of the image's shorter side."""
    max_crop: float = option(1.0, gt=0, le=1)
    """The greatest side of a random square, as a share of the image's shorter side."""
    crops_per_image: int | None = option(None, ge=1)
    """Number of random crops or colours of an image that a latent cache has; by default 4. A first stage draws new
    ones at every visit."""
    random_flip: bool = False
    """Mirror half of the images."""
    random_rotate: bool = False
    """Turn the images by a random number of quarter turns; with random_flip they come in all eight ways."""
    colour_jitter: float = option(0.0, ge=0, le=1)
    """The most by which brightness, contrast and saturation of RGB images are changed, as a share; 0 for not at
    all."""
    buckets: BucketOptions | None = None
    """Aspect buckets: images keep about their ratio, and each step has images of one; null for squares."""
    max_bad_share: float = option(0.1, ge=0, le=1, resume="free")
    """Share of images that can't be decoded from which on a run stops; fewer are replaced by others."""
    num_workers: int = option(0, ge=0, resume="free")
    """Processes that read and prepare images; 0 reads them in the training process."""

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        for name in ("train_data_dir", "dataset_name", "label_maps"):
            check(getattr(self, name) != "", f"{name} is empty; give a path or a name, or leave it out")
        check(
            self.train_data_dir is not None or self.dataset_name is not None,
            "train_data_dir is missing; give it, or dataset_name",
        )
        check(
            self.train_data_dir is None or self.dataset_name is None,
            "train_data_dir is given, and dataset_name too; give one of them",
        )
        drawn = self.crop == "random"
        for name in ("min_crop", "max_crop"):
            fits = drawn or not self.given(name)
            check(fits, f"{name} is given, but crop is {self.crop!r}; give crop: random, or leave {name} out")
        check(
            self.min_crop <= self.max_crop,
            f"min_crop is {self.min_crop:g}, above max_crop {self.max_crop:g}; lower it",
        )
        check(
            drawn or self.colour_jitter > 0 or self.crops_per_image in (None, 1),
            f"crops_per_image is {self.crops_per_image}, but crop {self.crop!r} is the same at every visit; give crop: "
            "random, or leave it out",
        )
        if self.buckets is not None:
            fits = self.crop in ("centre", "random")
            check(fits, f"buckets is given, but crop {self.crop!r} gives squares; give centre or random, or drop one")
            check(not self.random_rotate, "buckets is given, and random_rotate too, which changes the ratio; drop one")
            multiple = self.buckets.multiple
            check(
                self.resolution % multiple == 0,
                f"buckets.multiple is {multiple}; resolution {self.resolution} must be a multiple of it, give another",
            )
        low, high = self.value_range or (0, 1)
        check(low < high, f"value_range is {self.value_range}; the first number must be below the second")
        return self

    def of_folder(self, folder: str) -> Self:
        """The options for another folder whose images are read alike; what names these images alone is left out."""
        own = {"dataset_name", "dataset_config_name", "dataset_split", "annotations", "label_maps", *VIEWS}
        shared = {name: getattr(self, name) for name in self.model_fields_set - own}
        return type(self)(**{**shared, "train_data_dir": folder})

    @property
    def crops(self) -> int:
        """The number of crops of an image in a latent cache."""
        drawn = self.crop == "random" or self.colour_jitter > 0
        return self.crops_per_image or (CACHED_CROPS if drawn else 1)

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
