"""The samples of a model that is evaluated: made as `latentdiff sample` does, and kept with their options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from latentdiff.bulk import processes
from latentdiff.cli import console
from latentdiff.cli.commands.evaluate.options import changed
from latentdiff.cli.options import (
    BulkOptions,
    Compile,  # noqa: F401 (the parser looks up here what a subclass has inherited)
    ComputeDType,  # noqa: F401
    FirstSeedOptions,
    GuidanceOptions,
    ModelOptions,
    OutputOptions,
    Quantize,  # noqa: F401
)
from latentdiff.errors import InputError
from latentdiff.io.staging import staging_folder

if TYPE_CHECKING:
    from latentdiff.evaluation.image_sets import ImageSet

SAMPLING_PLAN, CAPTIONS = "sampling.json", "metadata.jsonl"  # files beside the samples


@dataclass(frozen=True, kw_only=True)
class SampledModelOptions(ModelOptions):
    """Options of the model that is sampled."""

    model: Annotated[str, Parameter(parse=False)] = ""
    device: Annotated[str | None, Parameter(parse=False)] = None
    decoder: Annotated[str | None, Parameter(parse=False)] = None  # a model's own first stage is evaluated


@Parameter(name="*", group=Group.create_ordered("Models that are sampled first"))
@dataclass(frozen=True, kw_only=True)
class SampledModel:
    """How samples are made of a model.

    Attributes:
        samples_dir: Where the samples of a model go; those that are there are kept.
        conditions: Data whose captions, classes or layouts are shown in turn, or a .txt of prompts, one a line
            (default: captions and layouts of the reference; all classes in turn).
    """

    samples_dir: Annotated[str, Parameter(metavar="FOLDER")] = "samples"
    conditions: Annotated[str | None, Parameter(metavar="DATA")] = None
    model: SampledModelOptions = SampledModelOptions()
    sampling: FirstSeedOptions = FirstSeedOptions()
    guidance: GuidanceOptions = GuidanceOptions()

    def folder_of(
        self,
        source: str,
        count: int | None,
        reference: ImageSet | None,
        device: str | None,
        bulk: BulkOptions,
        protocol: bool = False,
    ) -> str | None:
        """What SAMPLES stands for: itself, or the folder of a model's samples, which are made as far as they lack.

        Args:
            source: A folder or file of samples, or a model.
            count: How many samples are made; None makes one of each condition.
            reference: The images whose captions or layouts are shown unless conditions are given.
            device: Where they are made.
            bulk: What runs the workers that make them.
            protocol: Whether a preset fixes the count, so that each sample has a condition of its own.

        Returns:
            None if the samples of other jobs of an array are still missing.

        Raises:
            InputError: If options are given that don't fit, or the folder has samples of other options.
        """
        self.check(source)
        if not is_model(source):
            return source
        from latentdiff.cli.batch.make import make_images
        from latentdiff.cli.commands.evaluate.conditions import read_conditions, sampling_command
        from latentdiff.hub.find import model_of_run, weights_of_folder

        source = model_of_run(source)
        shown = read_conditions(source, self.model.revision, self.conditions, reference)
        if shown is not None and protocol and count is not None and len(shown.values) < count:
            raise InputError(f"the preset takes {count} conditions; {shown.source} has {len(shown.values)}, give more")
        count = len(shown.values) if shown is not None and count is None else count
        if count is None:
            raise InputError(f"--count is missing; say how many samples of {source} are made, such as 50000")
        if self.sampling.num_images is not None:
            raise InputError(f"--num-images is given; here --count, which is {count}, says how many samples are made")
        plan: dict[str, object] = {
            "model": source,
            "weights": weights_of_folder(source),
            "revision": self.model.revision,
            "dtype": self.model.dtype,
            "quantize": self.model.quantize,
            "conditions": None if shown is None else shown.fingerprint(),
        }
        plan |= asdict(self.sampling) | asdict(self.guidance)
        folder = Path(self.samples_dir)
        _check_sampling(folder / SAMPLING_PLAN, plan)
        command = sampling_command(shown)(
            model=ModelOptions(
                model=source,
                revision=self.model.revision,
                dtype=self.model.dtype,
                device=device,
                compile=self.model.compile,
                quantize=self.model.quantize,
            ),
            sampling=replace(self.sampling, num_images=count),
            guidance=self.guidance,
            output=OutputOptions(output=self.samples_dir, quiet=True),
            bulk=bulk,
        )
        _write_unless_equal(folder / SAMPLING_PLAN, json.dumps(plan, indent=2))
        make_images(command)
        files = [job.path for job in command.plan().jobs if job.path is not None]
        if missing := sum(not file.exists() for file in files):
            console.say(f"{missing} samples are still missing; whichever process ends last gives the numbers")
            return None
        if shown is not None and shown.are_captions:
            if processes.finishes():
                _write_captions(folder, shown.values)
            processes.wait_for_others()
        return self.samples_dir

    def check(self, source: str) -> None:
        """InputError if options of sampling are given for what is sampled already."""
        if is_model(source):
            return
        given = [*changed(self.model, SampledModelOptions()), *changed(self.sampling, FirstSeedOptions())]
        given += [*self.guidance.given(), *(["--conditions"] if self.conditions is not None else [])]
        if given:
            raise InputError(f"{given[0]} is given, but {source} is sampled already; leave it out")


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


def _write_unless_equal(path: Path, text: str) -> None:
    """Write a file, unless it says this already: what is computed of a folder depends on its files' times."""
    from latentdiff.io.files import write_text

    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _write_captions(folder: Path, captions: Sequence[object]) -> None:
    """Write what the samples show, as training reads captions, so that CLIPScore knows it."""
    names = sorted(path.name for path in folder.glob("*.png"))
    lines = [{"file_name": name, "text": captions[int(Path(name).stem) % len(captions)]} for name in names]
    _write_unless_equal(folder / CAPTIONS, "".join(json.dumps(line) + "\n" for line in lines))


def _check_sampling(path: Path, plan: dict[str, object]) -> None:
    """InputError if the folder has samples of other options, or files of which nobody knows how they were made."""
    if path.is_file() and not any(path.parent.glob("*.png")):
        return  # a run that made nothing, such as of a model that can't be sampled
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = {entry.name for entry in path.parent.iterdir()} if path.parent.is_dir() else set()
        if path.name in names:  # another process has just written it
            return _check_sampling(path, plan)
        if names - {staging_folder(path).name}:
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
