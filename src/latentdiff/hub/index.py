"""The index of a pipeline's folder, `model_index.json`. Names in it are data, never code to import."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.hub.json_files import read_json

INDEX = "model_index.json"
CARD = "README.md"
OWN_CODE = ("pipeline.py", "None.py")  # diffusers looks for the second where no code is asked for
LIBRARIES = ("diffusers", "latentdiff", "transformers")

# Components of the 2022 pipelines, and what they are called here.
OLD_COMPONENTS = {"bert": "text_encoder", "vqvae": "vae"}

# Classes that lie in the module of one diffusers pipeline; None stands for a part that no pipeline here has.
PIPELINE_PARTS = {
    ("latent_diffusion", "LDMBertModel"): ("latentdiff", "LDMTextEncoder"),
    ("stable_diffusion", "StableDiffusionSafetyChecker"): None,
}


class IndexEntry(NamedTuple):
    """What the index says of one component.

    Attributes:
        folder: The name of the component's folder.
        library: "diffusers", "transformers" or "latentdiff".
        class_name: A name in the library's top package.
    """

    folder: str
    library: str
    class_name: str


@dataclass(frozen=True)
class Index:
    """A checked index.

    Attributes:
        class_name: The name of the pipeline's class.
        components: The entries, by the names that the components have in this package.
    """

    class_name: str
    components: dict[str, IndexEntry]


def read_index(folder: Path) -> Index:
    """Read and check the index of a pipeline's folder.

    Raises:
        CheckpointError: If it is missing or damaged, or a name in it leads out of the folder.
        ConfigError: If it names code of the model's own.
    """
    values = read_json(folder / INDEX)
    class_name = values.get("_class_name")
    if not isinstance(class_name, str):
        raise ConfigError(f"{folder}: the pipeline class is {class_name!r}, code of its own; no code of a model is run")
    components: dict[str, IndexEntry] = {}
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict):
            raise CheckpointError(
                f"{folder}: {name} is an object in {INDEX}, not a library and a class; fetch it again"
            )
        if not isinstance(value, list) or not value or value[0] is None:
            continue  # an option of the pipeline, or a component that it goes without
        entry = _entry(folder, name, value)
        if entry is None:
            continue
        part = OLD_COMPONENTS.get(name, name)
        if part in components:
            both = f"{components[part].folder} and {name}"
            raise CheckpointError(f"{folder}: {INDEX} has {both}, two names of one component; take one out")
        components[part] = entry
    return Index(class_name, components)


def check_own_code(model: object, names: Collection[str]) -> None:
    """Refuse a pipeline's folder with a file of code, which diffusers would run in the place of a known class.

    Args:
        model: The name of the model, for the message.
        names: The names of the files in the folder.

    Raises:
        ConfigError: If there is such a file.
    """
    for name in OWN_CODE:
        if name in names:
            raise ConfigError(f"{model} brings code of its own, {name}; no code of a model is run, take another model")


def _entry(folder: Path, name: str, entry: list[object]) -> IndexEntry | None:
    """The entry `name` of an index, checked; None for a part that no pipeline here has."""
    if not name.isidentifier():
        raise CheckpointError(
            f"{folder}: {INDEX} has a component {name!r}, which is no plain name; don't use the model"
        )
    words = [word for word in entry if isinstance(word, str) and word.isidentifier()]
    if len(entry) != 2 or len(words) != 2:
        raise ConfigError(
            f"{folder}: {name} is {entry}, no class by its name; allowed libraries: {', '.join(LIBRARIES)}"
        )
    library, class_name = words
    place = PIPELINE_PARTS.get((library, class_name), (library, class_name))
    if place is None:
        return None
    if place[0] not in LIBRARIES:
        raise ConfigError(
            f"{folder}: {name} is of the module {library!r}; no code of a model is run, "
            f"allowed libraries: {', '.join(LIBRARIES)}"
        )
    return IndexEntry(name, *place)


def is_inside(name: object) -> bool:
    """Whether a path from a model's files stays in the model's folder on every system."""
    if not isinstance(name, str) or not name or any(character in name for character in "\\:\0"):
        return False
    return not name.startswith("/") and ".." not in PurePosixPath(name).parts
