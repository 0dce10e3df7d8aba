"""ADE20K as its scene parsing benchmark has it (Zhou et al. 2017): label maps of 150 classes, and images' scenes."""

from __future__ import annotations

from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.sources.layout import first_there, lines_of, read_images, root_and_split
from latentdiff.errors import InputError

SCENES = "sceneCategories.txt"  # lines such as "ADE_train_00000001 airport_terminal"


def read_ade20k(options: DataOptions) -> Records:
    """The images of a split with their label maps, 0 for none of the 150 classes, and their scenes as classes.

    Args:
        options: Their train_data_dir is the folder in which `images` and `annotations` are, or `images/training`.

    Raises:
        InputError: If the split, its maps, or the scene of an image aren't there.
    """
    root, images = root_and_split(options, ("images",))
    maps = options.label_maps or first_there([root / "annotations" / images.name], "label maps", root)
    records = read_images(options, images, label_maps=str(maps))
    path = root / SCENES
    if path.is_file():
        scenes = dict(line.split(maxsplit=1) for line in lines_of(path) if len(line.split()) > 1)
        names = [file.name.rpartition(".")[0] for file in records.files]
        absent = [name for name in names if name not in scenes]
        if absent:
            raise InputError(f"{path} has no scene for {absent[0]}; add it, or take the file away")
        records.columns["label"] = [scenes[name] for name in names]
    return records
