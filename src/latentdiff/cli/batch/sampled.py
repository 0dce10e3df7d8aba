"""The samples of a model that is evaluated: made as `latentdiff sample` does, and kept with their options."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from latentdiff.cli.options import FirstSeedOptions, GuidanceOptions, ModelOptions, OutputOptions
from latentdiff.errors import InputError

SAMPLING_PLAN = "sampling.json"


@dataclass(frozen=True, kw_only=True)
class SampledModelOptions(ModelOptions):
    """Options of the model that is sampled."""

    model: Annotated[str, Parameter(parse=False)] = ""
    device: Annotated[str | None, Parameter(parse=False)] = None


def is_model(source: str) -> bool:
    """Whether SAMPLES is a model to sample, and no images.

    Raises:
        InputError: If it is a training run that has made no pipeline: the pictures in it are no samples.
    """
    from latentdiff.hub.find import is_hub_id, is_run, model_of_run
    from latentdiff.hub.index import INDEX

    path = Path(source)
    if (Path(model_of_run(source)) / INDEX).is_file():
        return True
    if is_run(path):
        raise InputError(f"{source} is a training run without pipeline/; give one that has it, or a folder of samples")
    return source.startswith("builtin:") or (not path.exists() and is_hub_id(source))


def sample_model(
    source: str,
    samples_dir: str,
    count: int | None,
    model: SampledModelOptions,
    sampling: FirstSeedOptions,
    guidance: GuidanceOptions,
    device: str | None,
) -> str:
    """Make the samples of a model, as far as they aren't there, and return their folder."""
    from latentdiff.cli.batch.make import make_images
    from latentdiff.cli.commands.sample import Sample
    from latentdiff.hub.find import model_of_run
    from latentdiff.io.files import atomic_file

    source = model_of_run(source)
    if count is None:
        raise InputError(f"--count is missing; say how many samples of {source} are made, such as 50000")
    if sampling.num_images is not None:
        raise InputError(f"--num-images is given; here --count, which is {count}, says how many samples are made")
    plan: dict[str, object] = {
        "model": source,
        "files": _fingerprint(source),
        "revision": model.revision,
        "dtype": model.dtype,
    }
    plan |= asdict(sampling) | asdict(guidance)
    path = Path(samples_dir) / SAMPLING_PLAN
    _check_sampling(path, plan)
    command = Sample(
        model=ModelOptions(
            model=source, revision=model.revision, dtype=model.dtype, device=device, compile=model.compile
        ),
        sampling=replace(sampling, num_images=count),
        guidance=guidance,
        output=OutputOptions(output=samples_dir, quiet=True),
    )
    with atomic_file(path) as aside:
        aside.write_text(json.dumps(plan, indent=2))
    make_images(command)
    return samples_dir


def _check_sampling(path: Path, plan: dict[str, object]) -> None:
    """InputError if the folder has samples of other options, or files of which nobody knows how they were made."""
    if path.is_file() and not any(path.parent.glob("*.png")):
        return  # a run that made nothing, such as of a model that can't be sampled
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path.parent.is_dir() and any(path.parent.iterdir()):
            raise InputError(f"{path.parent} has other files; choose another --samples-dir") from None
        return
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read ({error}); choose another --samples-dir") from None
    for name, value in plan.items():
        if found.get(name) != value:
            raise InputError(
                f"{path.parent} has samples with {name} {found.get(name)!r}, but this run has {value!r}; "
                "choose another --samples-dir, or the same options"
            )


def _fingerprint(source: str) -> str | None:
    """A hash that changes with the files of a model in a folder; None for others, whose names say what they are."""
    folder = Path(source)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        stat = path.stat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
