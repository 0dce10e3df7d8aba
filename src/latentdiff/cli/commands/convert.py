"""`latentdiff convert`: checkpoints and folders from one form to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter

from latentdiff.cli import console
from latentdiff.cli.options import DType, Flag, flag
from latentdiff.errors import InputError, LatentDiffError
from latentdiff.hub.find import model_of_run
from latentdiff.io.files import atomic_folder, check_writable
from latentdiff.types import Tokenizer


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """How a model is converted.

    Attributes:
        to: The form to convert to.
        config: YAML of an original checkpoint, or its name in the zoo; recognised if left out.
        dtype: Precision of the weights (default: as they are).
        no_ema: Use the raw weights instead of the averaged ones.
        tokenizer: Folder or hub id of the text encoder's tokenizer, saved along with it.
        quiet: Show no progress and print nothing but errors.
    """

    to: Literal["latentdiff", "diffusers", "original"] = "latentdiff"
    config: str | None = None
    dtype: DType | None = None
    no_ema: Flag = False
    tokenizer: str | None = None
    quiet: Flag = False


def convert(source: str, out: str, /, *, options: ConvertOptions = ConvertOptions()) -> None:
    """Convert between checkpoint forms.

    "latentdiff" folders load with latentdiff.DiffusionPipeline, "diffusers" folders with plain diffusers, and
    "original" is config.yaml and model.ckpt. What was left out is said.

    Args:
        source: A checkpoint of the original code or of Stable Diffusion 1.x or 2.x (.ckpt, .safetensors), a model
            folder, a hub id, or builtin:NAME.
        out: The folder to make.
    """
    console.announce(f"reading {source}", options.quiet)
    source = model_of_run(source)
    from latentdiff.conversion.convert import check_output_is_new

    folder = check_writable(out)
    check_output_is_new(folder)
    with console.quiet_libraries(options.quiet):
        from latentdiff.inspection.checkpoint import is_checkpoint

        made = from_file if is_checkpoint(source) else from_folder
        notes = made(source, folder, options)
    if not options.quiet:
        for line in [*notes, f"{folder}: {options.to}"]:
            console.say(line)


def from_file(source: str, out: Path, options: ConvertOptions) -> tuple[str, ...]:
    """Convert an original checkpoint; returns what was left out."""
    import torch

    from latentdiff.conversion.convert import convert_original, describe_original, save_original
    from latentdiff.conversion.to_diffusers import save_diffusers

    dtype = getattr(torch, options.dtype) if options.dtype else None
    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
    with ConversionProgress(options.quiet) as progress:
        if options.to == "latentdiff":
            opened = convert_original(
                source,
                out,
                options.config,
                ema=not options.no_ema,
                dtype=dtype,
                tokenizer=tokenizer,
                progress=progress.update,
            )
            return tuple(opened.notes)
        model = describe_original(source, options.config, ema=not options.no_ema, dtype=dtype, tokenizer=tokenizer)
        if options.to == "original":
            save_original(model.components, out, weights=model.weights, progress=progress.update)
        else:
            save_diffusers(model.task, model.components, out, weights=model.weights, progress=progress.update)
    return model.notes


def from_folder(source: str, out: Path, options: ConvertOptions) -> tuple[str, ...]:
    """Convert a folder of a pipeline or a first stage; a stock one becomes ours by loading and saving it."""
    import torch

    from latentdiff.conversion.convert import save_original
    from latentdiff.conversion.to_diffusers import save_diffusers
    from latentdiff.inspection.folder import describe_folder, load_folder

    for name in ("config", "tokenizer", "no_ema"):
        if getattr(options, name):
            raise InputError(f"{flag(name)} is given, but {source} is no checkpoint file; leave it out")
    dtype = getattr(torch, options.dtype) if options.dtype else None
    if options.to == "latentdiff":
        whole = load_folder(source, dtype)
        with atomic_folder(out) as aside:
            whole.save_pretrained(aside)
        return ()
    model = describe_folder(source, dtype)
    with ConversionProgress(options.quiet) as progress:
        if options.to == "original":
            save_original(model.components, out, weights=model.weights, progress=progress.update)
        else:
            save_diffusers(model.task, model.components, out, weights=model.weights, progress=progress.update)
    return model.notes


def load_tokenizer(name: str) -> Tokenizer:
    """A tokenizer of transformers from a folder or the hub."""
    from latentdiff.hub.tokenizers import load_tokenizer_folder

    try:
        tokenizer: Tokenizer = load_tokenizer_folder(name)
    except LatentDiffError as error:
        raise InputError(f"tokenizer {name!r} cannot be loaded ({error})") from None
    return tokenizer


class ConversionProgress:
    """A bar of bytes written, where someone watches."""

    def __init__(self, quiet: bool) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(unit="B", unit_scale=True, desc="converting", disable=not console.progress_shown(quiet))

    def __enter__(self) -> ConversionProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, count: int) -> None:
        """Count more bytes."""
        self.bar.update(count)
