"""The rule for which files of a component are weights, and which of these are loaded. It looks at names alone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from latentdiff.errors import CheckpointError, UnsafeCheckpointError

ADAPTER = "pytorch_lora_weights.safetensors"

_STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
_SHARD = r"-\d{5}-of-\d{5}"
_FILE = re.compile(rf"{_STEM}(?:\.([\w-]+?))?({_SHARD})?(?:\.([\w-]+))?\.(safetensors|bin)")
_TABLE = re.compile(rf"{_STEM}\.(safetensors|bin)\.index(?:\.([\w-]+))?\.json")


class WeightFile(NamedTuple):
    """What the name of a weight file says.

    Attributes:
        variant: The variant of the weights; None for those without one.
        pickled: Whether it is a pickle, or the table of shards that are.
        shard: Whether it is a part of the weights, which a table of shards goes with.
    """

    variant: str | None
    pickled: bool
    shard: bool = False


def parse(name: str) -> WeightFile | None:
    """What a file's name says, be it of weights or of a table of shards; None if it is another file."""
    if match := _FILE.fullmatch(name):
        return WeightFile(match[1] or match[3], match[4] == "bin", match[2] is not None)
    if match := _TABLE.fullmatch(name):
        return WeightFile(match[2], match[1] == "bin")
    return None


def is_shard(name: str) -> bool:
    """Whether a file is a part of weights, which a table of shards goes with."""
    file = parse(name)
    return file is not None and file.shard


def variants(names: Iterable[str]) -> list[str]:
    """The variants of which there are safetensors files, sorted."""
    files = [parse(name) for name in names]
    return sorted({file.variant for file in files if file and file.variant and not file.pickled})


def weights(names: Iterable[str], variant: str | None) -> list[str]:
    """The names of the files to load, sorted: those of the variant if there are any, else those without one."""
    return sorted(name for name, file in _chosen(names, variant).items() if not file.pickled)


def check_variant(model: object, components: Mapping[str, Collection[str]], variant: str | None) -> None:
    """Refuse what can't be loaded as safetensors of this variant.

    Args:
        model: The name of the model, for messages.
        components: Names of the components to the names of their files.
        variant: The variant, such as "fp16". A component that hasn't got it is loaded without, unless none has.

    Raises:
        CheckpointError: If no component has the variant, or one has weights in other variants only.
        UnsafeCheckpointError: If a component has pickled weights only.
    """
    chosen = {name: _chosen(files, variant).values() for name, files in components.items()}
    pickled = [name for name, files in chosen.items() if files and all(file.pickled for file in files)]
    if pickled:
        raise UnsafeCheckpointError(
            f"{model}: {', '.join(pickled)} has pickled weights (.bin) only, which can run code; if you trust "
            "them, convert them once with diffusers: from_pretrained(..., use_safetensors=False).save_pretrained(...)"
        )
    known = sorted({name for files in components.values() for name in variants(files)})
    named = f"its variants: {', '.join(known)}" if known else "it has no variants, leave it out"
    if variant is not None and variant not in known:
        raise CheckpointError(f"{model} has no weights of the variant {variant!r}; {named}")
    for name, files in components.items():
        if variants(files) and not chosen[name]:
            raise CheckpointError(f"{model}: {name} has weights in variants only; choose one with variant=, {named}")


def _chosen(names: Iterable[str], variant: str | None) -> dict[str, WeightFile]:
    """The weight files of the variant if there are any, else those without one; pickled ones are among them."""
    files = {name: file for name in names if (file := parse(name))}
    has_variant = any(file.variant == variant for file in files.values())
    return {name: file for name, file in files.items() if file.variant == (variant if has_variant else None)}


def choose_adapter(place: str, names: Collection[str]) -> str:
    """The name of an adapter's file among those of a folder or repository.

    Raises:
        CheckpointError: If there is none, or there are several.
        UnsafeCheckpointError: If there are pickles only.
    """
    if ADAPTER in names:
        return ADAPTER
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if len(found) > 1:
        raise CheckpointError(f"{place} has {', '.join(found)}; choose an adapter with weight_name=")
    if not found and any(name.endswith((".bin", ".pt", ".ckpt")) for name in names):
        raise UnsafeCheckpointError(f"{place} has pickled weights only, which can run code; they are never loaded")
    if not found:
        raise CheckpointError(f"{place} holds no adapter; give the folder of a {ADAPTER}")
    return found[0]
