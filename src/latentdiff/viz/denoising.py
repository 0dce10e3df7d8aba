"""Pictures of how an image comes out of noise."""

from __future__ import annotations

from typing import ClassVar

from PIL import Image
from torch import Tensor

from latentdiff.errors import InputError
from latentdiff.pipelines import codec, outputs
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.viz.grid import image_grid


class DenoisingRecorder:
    """A `callback_on_step_end` that keeps what every k-th step and the last one take the clean image for.

    That is x0, the network's estimate of the clean latents, and not the noisy latents themselves.

    Args:
        every: Number of steps from one picture to the next.
        count: Number of images to record: the first `count` of the batch.
        decode: Whether the estimates are decoded, which costs a pass of the decoder each; else they are shown by
            `pipe.preview`, small and at hardly any cost.

    Attributes:
        frames: For each recorded step, its timestep and the pictures of its estimates.
        tensor_inputs: The tensor that the pipeline gives to this callback.

    Raises:
        InputError: If a number is not a positive integer.
    """

    tensor_inputs: ClassVar[list[str]] = ["pred_original_sample"]

    def __init__(self, every: int = 5, count: int = 1, *, decode: bool = True) -> None:
        for name, value in (("every", every), ("count", count)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}; it must be a positive integer")
        self.every, self.count, self.decode = every, count, decode
        self.frames: list[tuple[float, list[Image.Image]]] = []

    def __call__(
        self, pipe: DiffusionPipeline, step: int, timestep: Tensor | float, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Record a step; the pipeline calls this, and goes on with its own latents."""
        if step == 0:
            self.frames = []  # a new call of the pipeline begins
        if step % self.every == 0 or step == pipe.num_timesteps - 1:
            estimates = tensors["pred_original_sample"][: self.count]
            images = outputs.convert(codec.decode(pipe.vae, estimates), "pil") if self.decode else None
            self.frames.append((float(timestep), images or pipe.preview(estimates)))
        return {}

    def strip(self, *, scale: int = 1, margin: int = 4, font_size: int = 12) -> Image.Image:
        """One picture: a row for each image, and a column for each recorded step with its timestep.

        Args:
            scale: The whole number by which images are enlarged, without smoothing.
            margin: Pixels around each image.
            font_size: The size of the timesteps' font, in pixels.

        Raises:
            InputError: If nothing has been recorded.
        """
        if not self.frames:
            raise InputError("no step has been recorded; give the recorder to a pipeline as callback_on_step_end first")
        rows = range(len(self.frames[0][1]))
        images = [pictures[row] for row in rows for _, pictures in self.frames]
        captions = [f"t = {timestep:g}" for _ in rows for timestep, _ in self.frames]
        return image_grid(
            images,
            columns=len(self.frames),
            captions=captions,
            scale=scale,
            margin=margin,
            font_size=font_size,
        )
