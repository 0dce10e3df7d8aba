"""What images are becoming while they are made, in the terminal and in a file."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, TextIO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from tqdm import tqdm

from latentdiff.bulk import processes
from latentdiff.cli.options import PREVIEW_EVERY, OutputOptions
from latentdiff.errors import InputError, LatentDiffWarning
from latentdiff.io.files import atomic_file
from latentdiff.models.latent_colours import LatentColours
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.viz.grid import image_grid
from latentdiff.viz.half_blocks import UPPER_HALF, half_blocks

MARK = "latentdiff preview"  # the text chunk by which a preview's file is known, which the next may replace
LINES_LEFT = 2  # of the terminal, for the progress bar and the prompt


class Preview:
    """A `callback_on_step_end` that shows the estimates of the clean images of every k-th step and of the last.

    Args:
        every: Number of steps from one picture to the next.
        screen: Where they are shown; None for nowhere.
        path: The PNG file that holds the latest; None for none.
    """

    tensor_inputs: ClassVar[list[str]] = ["pred_original_sample"]

    def __init__(self, every: int, screen: Screen | None, path: Path | None) -> None:
        self.every, self.screen, self.path = every, screen, path

    def __call__(
        self, pipe: DiffusionPipeline, step: int, timestep: Tensor | float, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Show a step; the pipeline calls this, and goes on with its own latents."""
        if step % self.every and step != pipe.num_timesteps - 1:
            return {}
        pictures = pipe.preview(tensors["pred_original_sample"])
        if self.screen is not None:
            self.screen.show(image_grid(pictures, margin=1))
        if self.path is not None:
            factor = pipe.vae_scale_factor
            sizes = [(factor * picture.width, factor * picture.height) for picture in pictures]
            large = [picture.resize(size) for picture, size in zip(pictures, sizes, strict=True)]
            mark = PngInfo()
            mark.add_text(MARK, "x0")
            with atomic_file(self.path) as aside:
                image_grid(large, margin=1).save(aside, "PNG", pnginfo=mark)
        return {}

    @contextlib.contextmanager
    def shown(self) -> Iterator[Preview]:
        """While the block runs, the callback may show; afterwards the terminal is as before."""
        try:
            yield self
        finally:
            if self.screen is not None:
                self.screen.clear()


class Screen:
    """A place below the progress bar of a terminal, in which one picture takes the place of the one before.

    The cursor rests on the bar's line, so that lines that are written meanwhile take no picture for text.

    Args:
        stream: The terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, picture: Image.Image) -> None:
        """Show a picture, as large as fits."""
        columns, lines = shutil.get_terminal_size()
        rows = half_blocks(picture, max(1, columns - 1), max(1, lines - LINES_LEFT))
        # Each row begins on a line of its own, whose rest is erased; then the cursor goes up to where it was.
        text = "".join(f"\n\r{row}\x1b[K" for row in rows) + f"\n\r\x1b[J\x1b[{len(rows) + 1}A\r"
        with tqdm.external_write_mode(file=self.stream):
            self.stream.write(text)
            self.stream.flush()

    def clear(self) -> None:
        """Erase what is shown."""
        with tqdm.external_write_mode(file=self.stream):
            self.stream.write("\r\x1b[J")
            self.stream.flush()


def preview_of(options: OutputOptions, pipe: DiffusionPipeline) -> Preview | None:
    """The preview that a command's options ask for; None if nothing is to be shown.

    A pipeline without a map from latents to colours gets one. One process shows: the others make images of the same
    kind.
    """
    if not (options.preview or options.preview_file) or processes.rank() != 0:
        return None
    screen = Screen(sys.stdout) if options.preview and _shows_colours(sys.stdout) else None
    if options.preview and screen is None:
        line = "--preview shows nothing, as stdout is no terminal with colours and UTF-8; --preview-file writes a file"
        warnings.warn(LatentDiffWarning(line), stacklevel=2)
    path = None if options.preview_file is None else Path(options.preview_file)
    if screen is None and path is None:
        return None
    if LatentColours.of(pipe.vae) is None:
        pipe.fit_preview()
    return Preview(options.preview_every or PREVIEW_EVERY, screen, path)


def check_preview_file(options: OutputOptions) -> None:
    """Raise InputError if a picture would take the place of a file that is no preview."""
    if options.preview_file is None or not Path(options.preview_file).exists():
        return
    try:
        with Image.open(options.preview_file) as found:
            known = MARK in found.info
    except (OSError, UnidentifiedImageError, ValueError):
        known = False
    if not known:
        raise InputError(f"--preview-file is {options.preview_file}, which is there and no preview; give another name")


def shown(preview: Preview | None) -> AbstractContextManager[Preview | None]:
    """The callback of a call of the pipeline, None if nothing is to be shown."""
    return nullcontext() if preview is None else preview.shown()


def _shows_colours(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours and half blocks."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ:
        return False
    try:
        UPPER_HALF.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
