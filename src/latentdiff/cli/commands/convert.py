"""`latentdiff convert`: checkpoints and folders from one form to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from latentdiff.cli import console
from latentdiff.cli.parser import Parser
from latentdiff.errors import InputError
from latentdiff.io.files import atomic_folder, check_writable

DESCRIPTION = """Convert a model. SOURCE is a checkpoint of the original code or of Stable Diffusion 1.x or 2.x (.ckpt,
.safetensors), a model folder, a hub id, or builtin:NAME; OUT is the folder to make. "latentdiff" folders load with
latentdiff.DiffusionPipeline, "diffusers" folders with plain diffusers, and "original" is config.yaml and model.ckpt."""
FORMS = ("latentdiff", "diffusers", "original")
DTYPES = ("float32", "float16", "bfloat16")


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers."""
    parser: Parser = commands.add_parser("convert", help="convert between checkpoint forms", description=DESCRIPTION)
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("source", metavar="SOURCE", help="what to convert")
    parser.add_argument("out", metavar="OUT", help="the folder to make")
    parser.add_argument("--to", choices=FORMS, default=FORMS[0], help="the form to convert to (default: latentdiff)")
    parser.add_argument(
        "--config", help="YAML of an original checkpoint, or its name in the zoo; recognised if left out"
    )
    parser.add_argument("--dtype", choices=DTYPES, help="precision of the weights (default: as they are)")
    parser.add_argument("--no-ema", action="store_true", help="use the raw weights instead of the averaged ones")
    parser.add_argument("--tokenizer", help="folder or hub id of the text encoder's tokenizer, saved along with it")
    parser.add_argument("--quiet", action="store_true", help="show no progress and print nothing but errors")


def run(args: argparse.Namespace) -> None:
    """Convert, and say what was made and what was left out."""
    from latentdiff.conversion.convert import check_output_is_new

    out = check_writable(args.out)
    check_output_is_new(out)
    with console.quiet_libraries(args.quiet):
        notes = from_file(args, out) if Path(args.source).is_file() else from_folder(args, out)
    if not args.quiet:
        for line in [*notes, f"{out}: {args.to}"]:
            console.say(line)


def from_file(args: argparse.Namespace, out: Path) -> tuple[str, ...]:
    """Convert an original checkpoint; returns what was left out."""
    import torch

    from latentdiff.conversion.convert import convert_original, save_original
    from latentdiff.conversion.original import load_original
    from latentdiff.conversion.to_diffusers import save_diffusers

    dtype = getattr(torch, args.dtype) if args.dtype else None
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    with Progress(args.quiet) as progress:
        if args.to == "latentdiff":
            opened = convert_original(
                args.source,
                out,
                args.config,
                ema=not args.no_ema,
                dtype=dtype,
                tokenizer=tokenizer,
                progress=progress.update,
            )
            return tuple(opened.notes)
        loaded = load_original(args.source, args.config, ema=not args.no_ema, dtype=dtype)
        components = loaded.components if tokenizer is None else {**loaded.components, "tokenizer": tokenizer}
        if args.to == "original":
            save_original(components, out)
        else:
            save_diffusers(loaded.task, components, out)
    return loaded.notes


def from_folder(args: argparse.Namespace, out: Path) -> tuple[str, ...]:
    """Convert a folder of a pipeline or a first stage; a stock one becomes ours by loading and saving it."""
    import torch

    from latentdiff.conversion.convert import save_original
    from latentdiff.conversion.to_diffusers import save_diffusers
    from latentdiff.inspection.folder import load_folder

    for option in ("config", "tokenizer", "no_ema"):
        if getattr(args, option):
            flag = option.replace("_", "-")
            raise InputError(f"--{flag} is given, but {args.source} is no checkpoint file; leave it out")
    whole, task, components = load_folder(args.source, getattr(torch, args.dtype) if args.dtype else None)
    if args.to == "original":
        save_original(components, out)
    elif args.to == "diffusers":
        save_diffusers(task, components, out)
    else:
        with atomic_folder(out) as aside:
            whole.save_pretrained(aside)
    return ()


def load_tokenizer(name: str) -> Any:
    """A tokenizer of transformers from a folder or the hub."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"tokenizer {name!r} cannot be loaded ({str(error).split(chr(10))[0]})") from None


class Progress:
    """A bar of bytes written, where someone watches."""

    def __init__(self, quiet: bool) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(unit="B", unit_scale=True, desc="converting", disable=not console.progress_shown(quiet))

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, count: int) -> None:
        """Count more bytes."""
        self.bar.update(count)
