"""Open Images (Kuznetsova et al. 2020): folders of splits; their boxes and the classes' names in CSV beside them."""

from __future__ import annotations

from pathlib import Path

from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.sources.layout import names_of_split, read_images, root_and_split
from latentdiff.errors import InputError

BOXES, CLASSES = "annotations-bbox.csv", "class-descriptions-boxable.csv"


def read_open_images(options: DataOptions) -> Records:
    """The images of a split with their boxes; the classes have their names where the file of these is there.

    Args:
        options: Their train_data_dir is the folder in which `train`, `oidv6-train-annotations-bbox.csv` and
            `class-descriptions-boxable.csv` are, or `train` itself.

    Raises:
        InputError: If the split or its boxes aren't there.
    """
    root, images = root_and_split(options)
    names = names_of_split(images.name)

    def there(ends: list[str]) -> list[str]:
        found = [path for folder in (root, root / "annotations") for path in sorted(Path(folder).glob("*.csv"))]
        return [str(path) for path in found if any(path.name.endswith(end) for end in ends)][:1]

    boxes = there([f"{name}-{BOXES}" for name in names])
    if not boxes and not options.annotations:
        raise InputError(f"{root} has no boxes of the split; looked for was {root / f'{images.name}-{BOXES}'}")
    return read_images(options, images, annotations=[*boxes, *there([CLASSES])])
