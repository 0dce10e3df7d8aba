"""Which files of a component are loaded: its weights of one variant, as safetensors, and small files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from latentdiff.errors import CheckpointError, UnsafeCheckpointError
from latentdiff.hub.index import is_inside, read_json
from latentdiff.io.headers import read_header

_STEM = r"(?:diffusion_pytorch_model|pytorch_model|model)"
_SHARD = r"-\d{5}-of-\d{5}"
_FILE = re.compile(rf"{_STEM}(?:\.([\w-]+?))?(?:{_SHARD})?(?:\.([\w-]+))?\.(safetensors|bin)")
_INDEX = re.compile(rf"{_STEM}\.(safetensors|bin)\.index(?:\.([\w-]+))?\.json")
# Names that diffusers gave the attention of its first UNets and autoencoders.
OLD_ATTENTION = re.compile(r"attentions\.\d+\.(query|key|value|proj_attn)\.")
SMALL_FILES = (".json", ".txt", ".model")


class WeightFile(NamedTuple):
    """What a weight file's name says; `table` marks the table of a sharded model."""

    variant: str | None
    pickled: bool
    table: bool


def parse(name: str) -> WeightFile | None:
    """What a file name says; None if it isn't one of weights."""
    if match := _FILE.fullmatch(name):
        return WeightFile(match[1] or match[2], match[3] == "bin", table=False)
    if match := _INDEX.fullmatch(name):
        return WeightFile(match[2], match[1] == "bin", table=True)
    return None


def variants(names: Iterable[str]) -> list[str]:
    """The variants that there are safetensors files of, sorted."""
    files = [parse(name) for name in names]
    return sorted({file.variant for file in files if file and file.variant and not file.pickled})


def weights(names: Iterable[str], variant: str | None) -> list[str]:
    """The weight files to load, sorted: those of the variant, else those without one, or none if none would do."""
    parsed = {name: file for name in names if (file := parse(name))}
    there = {file.variant for file in parsed.values()}
    chosen = variant if variant in there else None
    return sorted(name for name, file in parsed.items() if file.variant == chosen and not file.pickled)


def check_variant(model: object, components: Mapping[str, Collection[str]], variant: str | None) -> None:
    """Refuse what can't be loaded as safetensors of this variant.

    Args:
        model: For messages.
        components: Names of the components to the names of their files.
        variant: Such as "fp16"; a component that hasn't got it is loaded without, unless none has.

    Raises:
        CheckpointError: If no component has the variant, or one has weights in other variants only.
        UnsafeCheckpointError: If a component has pickled weights only.
    """
    known = sorted({name for files in components.values() for name in variants(files)})
    pickled = [name for name, files in components.items() if _only_pickled(files, variant)]
    if pickled:
        raise UnsafeCheckpointError(
            f"{model}: {', '.join(pickled)} has pickled weights (.bin) only, which can run code; if you trust "
            "them, convert them once with diffusers: from_pretrained(..., use_safetensors=False).save_pretrained(...)"
        )
    named = f"its variants: {', '.join(known)}" if known else "it has no variants, leave it out"
    if variant is not None and variant not in known:
        raise CheckpointError(f"{model} has no weights of the variant {variant!r}; {named}")
    for name, files in components.items():
        if variants(files) and not weights(files, variant):
            raise CheckpointError(f"{model}: {name} has weights in variants only; choose one with variant=, {named}")


def _only_pickled(names: Iterable[str], variant: str | None) -> bool:
    parsed = [file for name in names if (file := parse(name))]
    chosen = variant if variant in {file.variant for file in parsed} else None
    of_variant = [file for file in parsed if file.variant == chosen]
    return bool(of_variant) and all(file.pickled for file in of_variant)


def check_shards(folder: Path, variant: str | None) -> None:
    """CheckpointError if the table of a component's shards names a file that is missing or lies elsewhere."""
    for name in weights([path.name for path in folder.iterdir()], variant):
        file = parse(name)
        if file is None or not file.table:
            continue
        table = read_json(folder / name).get("weight_map")
        if not isinstance(table, dict):
            raise CheckpointError(f"{folder / name} has no weight_map; fetch or save the model again")
        for shard in sorted(set(map(str, table.values()))):
            if not is_inside(shard) or "/" in shard:
                raise CheckpointError(f"{folder / name} names {shard!r}, outside its folder; don't use the model")
            if not (folder / shard).is_file():
                raise CheckpointError(f"{folder} lacks {shard}; fetch or save the model again")


def tensor_names(folder: Path, variant: str | None) -> set[str]:
    """Names of all tensors that a component has in this variant, from the headers alone."""
    names = weights([path.name for path in folder.iterdir()], variant)
    files = [name for name in names if name.endswith(".safetensors")]
    return {tensor for name in files for tensor in read_header(folder / name)}
