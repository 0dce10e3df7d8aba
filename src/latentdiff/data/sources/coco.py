"""COCO (Lin et al. 2014) and COCO-Stuff (Caesar et al. 2018): folders of images, and annotations in folders beside."""

from __future__ import annotations

from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.sources.layout import first_there as find
from latentdiff.data.sources.layout import read_images, root_and_split
from latentdiff.errors import InputError

KINDS = ("captions", "instances")


def read_coco_folder(options: DataOptions) -> Records:
    """The images of a split with the captions and boxes that `annotations/` has of them.

    Args:
        options: Their train_data_dir is the folder in which `train2017` and `annotations` are, or `train2017` itself.

    Raises:
        InputError: If the split or its annotations aren't there.
    """
    root, images = root_and_split(options, ("", "images"))
    places = [root / "annotations" / f"{kind}_{images.name}.json" for kind in KINDS]
    files = [str(place) for place in places if place.is_file()]
    if not files and not options.annotations:
        raise InputError(f"{root} has no annotations; looked for were {' and '.join(map(str, places))}")
    return read_images(options, images, annotations=files)


def read_coco_stuff(options: DataOptions) -> Records:
    """The images of a split with their maps of things and stuff: classes 0 to 181, and 255 for none.

    Args:
        options: As for `read_coco_folder`; the maps are in `stuffthingmaps` or `cocostuffthings`, in the same folder or
            beside it.

    Raises:
        InputError: If the split or its maps aren't there.
    """
    root, images = root_and_split(options, ("", "images"))
    names = ("stuffthingmaps", "cocostuffthings")
    places = [folder / name / images.name for folder in (root, root.resolve().parent) for name in names]
    maps = options.label_maps or find(places, "maps of things and stuff", root)
    return read_images(options, images, label_maps=str(maps))
