"""ImageNet: a folder for each synset, whose names people read stand in a file beside them (Russakovsky et al. 2015)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from latentdiff.config import check
from latentdiff.data.names import relative_name
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.sources.layout import folder_of, lines_of
from latentdiff.data.walk import walk
from latentdiff.errors import InputError
from latentdiff.reading import parse_yaml, read_text
from latentdiff.registry import nearest

SYNSET = re.compile(r"n\d{8}")
HUMAN = ("synset_human.txt", "LOC_synset_mapping.txt")  # lines such as "n01440764 tench, Tinca tinca"
INDEX = "index_synset.yaml"  # entries such as "0: n01440764"
VALIDATION = "validation_synset.txt"  # lines such as "ILSVRC2012_val_00000001.JPEG n01751748"


def read_imagenet(options: DataOptions, *, classes: list[str] | None = None) -> Records:
    """The images with the classes' numbers, those of `index_synset.yaml` if it is there, else in the synsets' order.

    Args:
        options: Their train_data_dir is the folder of the synsets' folders, or one that has it as `data`.
        classes: Synsets or names of classes; only these are read.

    Raises:
        InputError: If there are no synsets, or one is unknown to a file beside them.
        ConfigError: If a class that is asked for isn't there.
    """
    root = folder_of(options)
    data = root / "data" if (root / "data").is_dir() else root
    beside = (root, root.parent, root.parent.parent)
    found = walk(data)
    validation = dict(line.split()[:2] for place in (root, data) for line in _if_there(place / VALIDATION))
    synsets = [_synset_of(path, data, validation) for path in found.images]
    absent = [path for path, synset in zip(found.images, synsets, strict=True) if synset is None]
    if absent or not synsets:
        what = f"{absent[0]} is in no folder of a synset" if absent else f"{data} holds no images"
        raise InputError(
            f"{what}; ImageNet has folders such as {data / 'n01440764'}, or {VALIDATION} beside the images"
        )
    human = _human_names(beside)
    numbered = _numbers(beside, {synset for synset in synsets if synset is not None})
    names = _class_names(numbered, human)
    by_synset = dict(zip(numbered, names, strict=True))
    places = range(len(synsets))
    if classes is not None:
        for name in classes:
            known = [*by_synset, *names]
            check(name in known, f"data.source_options.classes has {name!r}; {nearest(name, known)}")
        wanted = {synset for synset, name in by_synset.items() if synset in classes or name in classes}
        numbered = names = [synset for synset in numbered if synset in wanted]
        names = [by_synset[synset] for synset in numbered]
        places = [place for place in places if synsets[place] in wanted]  # type: ignore[assignment]
    numbers = {synset: number for number, synset in enumerate(numbered)}
    files = [found.images[place] for place in places]
    labels = [numbers[str(synsets[place])] for place in places]
    metadata = [{"synset": synsets[place], "human_label": human.get(str(synsets[place]))} for place in places]
    records = Records(root, files, {"label": labels}, metadata, watched=files, class_names=names)
    records.notes += [*found.notes, *found.pictures_left_out()]
    return records


def _synset_of(path: Path, data: Path, validation: Mapping[str, str]) -> str | None:
    """The synset of an image: its folder, or what the list of the validation set says."""
    folder = (relative_name(path, data) or "").partition("/")[0]
    return folder if SYNSET.fullmatch(folder) else validation.get(path.name)


def _if_there(path: Path) -> list[str]:
    return lines_of(path) if path.is_file() else []


def _human_names(places: tuple[Path, ...]) -> dict[str, str]:
    """The names of the synsets, all synonyms of each; empty if there is no file of them."""
    path = next((place / name for place in places for name in HUMAN if (place / name).is_file()), None)
    pairs = [line.split(maxsplit=1) for line in lines_of(path)] if path else []
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _numbers(places: tuple[Path, ...], present: set[str]) -> list[str]:
    """The synsets by their numbers.

    Raises:
        InputError: If the file of numbers is damaged, or lacks one that is there.
    """
    path = next((place / INDEX for place in places if (place / INDEX).is_file()), None)
    if path is None:
        return sorted(present)
    try:
        values = parse_yaml(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}); take it away to number the synsets in their order") from None
    entries = values if isinstance(values, dict) else {}
    if sorted(entries, key=str) != sorted(range(len(entries)), key=str) or not present <= set(entries.values()):
        missing = sorted(present - set(entries.values()))
        what = f"lacks {missing[0]}" if missing else "has no numbers from 0 on"
        raise InputError(f"{path} {what}; take it away to number the synsets in their order")
    return [str(entries[number]) for number in range(len(entries))]


def _class_names(synsets: list[str], human: Mapping[str, str]) -> list[str]:
    """The first synonym of each, with the synset where several have one name, such as the two cranes."""
    names = [human.get(synset, synset).partition(",")[0].strip() for synset in synsets]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({synset})" for name, synset in zip(names, synsets, strict=True)]
