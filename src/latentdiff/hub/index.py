"""What `model_index.json` says: the pipeline's class and its components. Names in it are data, never code to import."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from latentdiff.errors import CheckpointError, ConfigError

INDEX = "model_index.json"
CARD = "README.md"
OWN_CODE = "pipeline.py"
LIBRARIES = ("diffusers", "latentdiff", "transformers")

# Components of the 2022 pipelines, and what they are called here.
OLD_COMPONENTS = {"bert": "text_encoder", "vqvae": "vae"}

# Classes that lie in the module of one diffusers pipeline; None is a part that no pipeline here has.
PIPELINE_PARTS = {
    ("latent_diffusion", "LDMBertModel"): ("latentdiff", "LDMTextEncoder"),
    ("stable_diffusion", "StableDiffusionSafetyChecker"): None,
}


class Component(NamedTuple):
    """One entry of the index.

    Attributes:
        folder: Name of its folder.
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
        class_name: The pipeline's class.
        components: By the names that components have in this package.
    """

    class_name: str
    components: dict[str, Component]

    def of(self, pipeline_class: type) -> Index:
        """The index without components that the class doesn't take, such as Stable Diffusion's feature extractor."""
        known = inspect.signature(pipeline_class).parameters
        return replace(self, components={name: part for name, part in self.components.items() if name in known})


def read_index(folder: Path) -> Index:
    """The index of a pipeline's folder.

    Raises:
        CheckpointError: If it is missing or damaged, or a name in it leads out of the folder.
        ConfigError: If it, or the folder, brings code of its own.
    """
    values = read_json(folder / INDEX)
    check_own_code(folder, [path.name for path in folder.iterdir()])
    class_name = values.get("_class_name")
    if not isinstance(class_name, str):
        raise ConfigError(f"{folder}: the pipeline class is {class_name!r}, code of its own; no code of a model is run")
    entries = {name: entry for name, entry in values.items() if isinstance(entry, list) and entry and entry[0]}
    components = (_component(folder, name, entry) for name, entry in entries.items())
    return Index(class_name, {OLD_COMPONENTS.get(part.folder, part.folder): part for part in components if part})


def check_own_code(model: object, names: Collection[str]) -> None:
    """ConfigError if a pipeline's folder has a file of code that diffusers would run in the place of a known class."""
    if OWN_CODE in names:
        raise ConfigError(f"{model} brings code of its own, {OWN_CODE}; no code of a model is run, take another model")


def _component(folder: Path, name: str, entry: list[Any]) -> Component | None:
    if not name.isidentifier():
        raise CheckpointError(
            f"{folder}: {INDEX} has a component {name!r}, which is no plain name; don't use the model"
        )
    if len(entry) != 2 or not all(isinstance(word, str) and word.isidentifier() for word in entry):
        raise ConfigError(
            f"{folder}: {name} is {entry}, no class by its name; allowed libraries: {', '.join(LIBRARIES)}"
        )
    place: tuple[str, str] | None = (entry[0], entry[1])
    place = PIPELINE_PARTS.get((entry[0], entry[1]), place)
    if place is None:
        return None
    if place[0] not in LIBRARIES:
        raise ConfigError(
            f"{folder}: {name} is of the module {entry[0]!r}; no code of a model is run, "
            f"allowed libraries: {', '.join(LIBRARIES)}"
        )
    return Component(name, *place)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder; CheckpointError where it is missing or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}); fetch the model again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object; fetch the model again")
    return values


def is_inside(name: object) -> bool:
    """Whether a path from a model's files stays in the model's folder on every system."""
    if not isinstance(name, str) or not name or any(character in name for character in "\\:\0"):
        return False
    return not name.startswith("/") and ".." not in PurePosixPath(name).parts


def one_line(error: BaseException) -> str:
    """An exception's text on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
