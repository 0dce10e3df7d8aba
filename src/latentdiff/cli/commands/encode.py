"""`latentdiff encode`: the latents of a data set, which training then reads."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Unpack

from cyclopts import Parameter

from latentdiff.bulk import processes
from latentdiff.cli import console
from latentdiff.cli.commands.data import read_options
from latentdiff.cli.options import BulkOptions, Flag
from latentdiff.cli.recipes import recipe_flags
from latentdiff.data.options import DataOptions
from latentdiff.errors import InputError
from latentdiff.io.latent_files import META

if TYPE_CHECKING:
    from latentdiff.data.encoding import LatentEncoding

UNUSED = ("train_data_dir", "train_data", "num_workers", "caption_column", "label_column", "objects_column",
          "label_map_column", "box_format", "box_units")  # fmt: skip


def encode(
    model: Annotated[str, Parameter(name="MODEL")],
    source: Annotated[str, Parameter(name="DATA")],
    output: Annotated[str, Parameter(name="OUTPUT")],
    /,
    *,
    dtype: Literal["float32", "bfloat16"] = "float32",
    device: str | None = None,
    quiet: Flag = False,
    bulk: BulkOptions = BulkOptions(),
    **options: str,
) -> None:
    """Encode a data set to latents, which training reads by latents_dir in place of encoding the images itself.

    MODEL is a model or the folder of a first stage, DATA a recipe, or what train_data_dir would be. Images are encoded
    in shards of 256, and those that exist are kept, so an interrupted run goes on; processes that a launcher starts
    share them, and so do the jobs of an array that have RANK and WORLD_SIZE.

    Args:
        output: The folder to make.
        dtype: Precision of the encoder.
        device: Device, such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one).
        quiet: Print nothing but errors.
    """
    console.announce(f"loading {model}", quiet)
    from latentdiff.bulk.engines import perform
    from latentdiff.io.files import check_writable

    with console.quiet_libraries(quiet):
        folder = check_writable(output)
        make = partial(open_encoding, model, source, folder, dtype, device, options)
        work = make()
        if work.cache() is None:
            if folder.exists():
                advice = "choose another OUTPUT" + ", or remove it" * (folder / META).is_file()
                raise InputError(f"{folder} exists already and {work.fault()}; {advice}")
            work.begin(replace=False)
            with console.progress(len(work.images), "latents", quiet) as done:
                perform(work, make, lambda told: done(told.images), bulk.engine, bulk.workers or 0)
            processes.wait_for_others()
            if processes.finishes():
                work.finish()
        cache = work.cache()
    if quiet or not processes.finishes():
        return
    if cache is None:
        console.say(f"{work.partial}: shards are still missing; whichever process ends last makes {folder} of them")
    else:
        shape = "x".join(map(str, cache.moments.shape[1:]))
        console.say(f"{folder}: {len(cache)} rows of {shape}, {len(cache.bad)} images can't be decoded")


def open_encoding(
    model: str, source: str, output: Path, dtype: str, device: str | None, options: Mapping[str, str]
) -> LatentEncoding:
    """The work: the first stage on its device, and the images as training reads them.

    Raises:
        LatentDiffError: If the model or the data can't be used, or don't fit each other, or the device doesn't
            multiply in bfloat16.
    """
    from latentdiff.cli.batch.device import find_device
    from latentdiff.data.bad_files import BadFiles
    from latentdiff.data.encoding import LatentEncoding
    from latentdiff.evaluation.first_stage import first_stage_of
    from latentdiff.pipelines.codec import factor
    from latentdiff.pipelines.precision import has_bfloat16
    from latentdiff.training.data import open_to_encode

    place = find_device(device)
    if dtype == "bfloat16" and not has_bfloat16(place):
        raise InputError(f"--dtype is bfloat16, which {place.type} only emulates here; leave it out")
    data, recipe = read_options(source, options)
    vae = first_stage_of(model).to(place)
    if data.resolution % factor(vae):
        raise InputError(f"resolution is {data.resolution}; this first stage needs a multiple of {factor(vae)}")
    if data.buckets is not None and data.buckets.multiple % factor(vae):
        given = f"buckets.multiple is {data.buckets.multiple}"
        raise InputError(f"{given}; this first stage needs a multiple of {factor(vae)}")
    images = open_to_encode(data, recipe, vae.config.in_channels)
    bad_files = BadFiles(None, len(images), data.max_bad_share)
    return LatentEncoding(output.resolve(), vae, images, bad_files, bfloat16=dtype == "bfloat16")


encode.__annotations__["options"] = Unpack[recipe_flags(DataOptions, leave_out=UNUSED)]
