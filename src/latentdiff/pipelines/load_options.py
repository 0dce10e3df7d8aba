"""Options of `from_pretrained`, `from_pipe` and `from_original` that are diffusers' own: their names and data types."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from latentdiff.errors import InputError, LatentDiffWarning
from latentdiff.hub.folder import REFUSED_OPTIONS, ModelFolder
from latentdiff.hub.networks import component_dtype
from latentdiff.io.headers import DTYPE_NAMES
from latentdiff.pipelines.precision import AUTO, best_dtype
from latentdiff.registry import PIPELINES, nearest

DIFFUSERS_OPTIONS = (
    "dtype",
    "torch_dtype",
    "device_map",
    "max_memory",
    "offload_folder",
    "offload_state_dict",
    "low_cpu_mem_usage",
    "use_safetensors",
    "quantization_config",
    "disable_mmap",
    "proxies",
    "mirror",
    "output_loading_info",
)
"""Options of diffusers' `DiffusionPipeline.from_pretrained` that are handed on to it."""

ABSENT = {"safety_checker": None, "requires_safety_checker": False, "feature_extractor": None, "image_encoder": None}
"""Options by which diffusers' users leave out what the pipelines here have not got, and the value that says so."""

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float64": torch.float64,
}
"""Data types by the names that are understood; "auto" is another, see `best_dtype`."""

SLOW_CONVERSION = 2**30
"""Bytes of weights whose conversion takes seconds at every load, so that it is worth a line."""


def complete_load_options(options: Mapping[str, Any], own: Mapping[str, object]) -> dict[str, Any]:
    """Check the names of keywords of `from_pretrained`, and complete `dtype`.

    Args:
        options: The keywords that were given beyond the parameters of `from_pretrained`.
        own: The names of these parameters.

    Returns:
        The options, with `torch_dtype`, which is another name of `dtype`, and text resolved.

    Raises:
        InputError: If an option is unknown, or a data type is not valid.
    """
    components = {name for task in PIPELINES.names() for name in inspect.signature(PIPELINES.get(task)).parameters}
    known = {*own, *DIFFUSERS_OPTIONS, *REFUSED_OPTIONS, *components} - {"cls", "kwargs"}
    absent = ABSENT.keys() - known
    for name, value in options.items():
        if name in absent and value is not ABSENT[name]:
            raise InputError(f"{name} is given, but the pipelines here have none; leave it out")
        if name not in known | absent:
            raise InputError(f"from_pretrained takes no {name!r}; {nearest(name, known)}")
    return take_dtype({name: value for name, value in options.items() if name not in absent})


def check_given_components(pipeline_class: type, folder: Collection[str], options: Mapping[str, object]) -> None:
    """Check the components that are given to `from_pretrained` in place of the folder's.

    Args:
        pipeline_class: The pipeline that is loaded.
        folder: The names of the folder's components.
        options: The keywords, components and others.

    Raises:
        InputError: If one is text, a class or a configuration, or None in place of one that the pipeline needs and the
            folder has; or if there is no such component to have a data type of its own.
    """
    dtypes = options.get("dtype")
    known = {*inspect.signature(pipeline_class).parameters, "default"}
    for name in dtypes if isinstance(dtypes, Mapping) else ():
        if name not in known:
            raise InputError(f"dtype is given for {name!r}; {nearest(name, known)}")
    for name, parameter in inspect.signature(pipeline_class).parameters.items():
        value = options.get(name, parameter)
        if value is None and parameter.default is parameter.empty and name in folder:
            raise InputError(f"{name} is None, but a {pipeline_class.__name__} needs one; leave it out, or give one")
        if isinstance(value, (str, Path, Mapping, type)):
            advice = "or call set_scheduler afterwards" if name == "scheduler" else "or leave it out"
            raise InputError(f"{name} is {value!r}, which is no component; give a loaded one, {advice}")


def take_dtype(options: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve `torch_dtype` and data types that are text among options; `dtype` is left out if none is given.

    Raises:
        InputError: If both names are given, or one is no data type.
    """
    dtype, alias = options.get("dtype"), options.get("torch_dtype")
    if dtype is not None and alias is not None:
        raise InputError("dtype and torch_dtype are both given, which are two names of one option; give dtype")
    rest = {name: value for name, value in options.items() if name not in ("dtype", "torch_dtype")}
    given = alias if dtype is None else dtype
    if given is None:
        return rest
    if isinstance(given, Mapping):
        return {**rest, "dtype": {name: as_dtype(entry) for name, entry in given.items()}}
    return {**rest, "dtype": as_dtype(given)}


def as_dtype(value: object) -> torch.dtype:
    """Return the data type that `value` is or, as "float16", "torch.float16", "fp16" or "auto", names.

    Raises:
        InputError: If it is neither, or not of floating-point numbers.
    """
    if isinstance(value, torch.dtype):
        if not value.is_floating_point:
            raise InputError(f"dtype is {value}; networks compute in floating-point numbers, such as torch.float16")
        return value
    if value == AUTO:
        return best_dtype()
    found = DTYPES.get(value.removeprefix("torch.")) if isinstance(value, str) else None
    if found is None:
        raise InputError(f"dtype is {value!r}; {nearest(value, [*DTYPES, AUTO])}")
    return found


def warn_of_conversion(folder: ModelFolder, options: Mapping[str, Any]) -> None:
    """Warn if a folder's weights are converted at every load, where that takes seconds, and say how to load faster.

    Args:
        folder: The components that have been loaded.
        options: Those of `from_pretrained`, completed; without `dtype` it is float32.
    """
    converted = 0
    stored: set[str] = set()
    wanted: set[torch.dtype] = set()
    for name, part in folder.components.items():
        dtype = component_dtype(name, options.get("dtype"))
        for entry in part.tensors.values():
            held = getattr(torch, DTYPE_NAMES[entry["dtype"]])
            if held.is_floating_point and held != dtype:
                start, end = entry["data_offsets"]
                converted += end - start
                stored.add(str(held).removeprefix("torch."))
                wanted.add(dtype)
    if converted >= SLOW_CONVERSION:
        to = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in wanted))
        warnings.warn(
            f"{folder.name} holds {converted / 2**30:.1f} GiB in {' and '.join(sorted(stored))}, which every load "
            f"converts to {to}; `latentdiff convert {folder.name} OUT --dtype {to.split()[0]}` saves them so, to be "
            "mapped in under a second",
            LatentDiffWarning,
            stacklevel=3,
        )
