"""How much window borders show in large images: `python -m benchmarks seams [--seeds 16]`.

A 192-pixel image is made by `builtin:emoji`, which was trained on 64 pixels, from equal noise in latentdiff's windows,
in the original code's patch mode, and all at once. The seam is the mean absolute gradient between pixels on either side
of a place where fixed windows begin or end, divided by the mean elsewhere: 1 where nothing shows. latentdiff's windows
lie elsewhere at every step, but are decoded at these very places.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.measuring import parser_of
from latentdiff import TextToImagePipeline, Windows

SIDE, WINDOW, OVERLAP = 192, 64, 32
PROMPTS = {
    "a cat on a blue background": {"guidance_scale": 5.0},
    "no prompt": {"guidance_scale": 0.0},  # the prediction for the empty prompt alone
}


class PatchMode(Windows):
    """Fixed windows, weighted by the distance to their border (half a side is 0.5), from 0.01 to 0.5."""

    def divided(self, factor, multiple):
        return PatchMode(**dataclasses.asdict(super().divided(factor, multiple)))

    def apply(self, function, *inputs, zoom_in=1, zoom_out=1, phase=0.0, device=None):
        height, width = (side // zoom_in for side in inputs[0].shape[-2:])
        stride, joined, total = self.size - self.overlap, 0, 0
        edge = torch.linspace(0, 1, self.size * zoom_out)
        edge = torch.minimum(edge, 1 - edge)
        weights = torch.minimum(edge[:, None], edge).clamp(0.01, 0.5)
        for top in range(0, height - self.size + 1, stride):
            for left in range(0, width - self.size + 1, stride):

                def cut(tensor, zoom, top=top, left=left):
                    return tensor[..., zoom * top :, zoom * left :][..., : zoom * self.size, : zoom * self.size]

                part = function(*(cut(tensor, zoom_in) for tensor in inputs))
                if isinstance(joined, int):
                    joined = part.new_zeros(*part.shape[:2], zoom_out * height, zoom_out * width)
                    total = torch.zeros_like(joined)
                cut(joined, zoom_out).add_(part * weights)
                cut(total, zoom_out).add_(weights)
        return joined / total


WAYS = {
    "latentdiff.Windows": Windows(WINDOW, OVERLAP),
    "patch mode": PatchMode(WINDOW, OVERLAP),
    "no windows": None,
}


def seam(images):
    """Of images (B, H, W, C): the gradient across borders against that elsewhere, by image."""
    borders = np.arange(WINDOW - OVERLAP, SIDE, WINDOW - OVERLAP) - 1
    across, elsewhere = [], []
    for axis in (1, 2):
        steps = np.moveaxis(np.abs(np.diff(images, axis=axis)), axis, 1)
        across.append(steps[:, borders])
        elsewhere.append(np.delete(steps, borders, axis=1))
    return np.concatenate(across, 1).mean((1, 2, 3)) / np.concatenate(elsewhere, 1).mean((1, 2, 3))


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args(words)
    pipe = TextToImagePipeline.from_pretrained("builtin:emoji")
    pipe.set_progress_bar_config(disable=True)
    print("| prompt | " + " | ".join(WAYS) + " |\n|---|" + "---|" * len(WAYS))
    for name, settings in PROMPTS.items():
        prompt = name if name != "no prompt" else "a cat"
        cells = []
        for windows in WAYS.values():
            made = [
                pipe(prompt, height=SIDE, width=SIDE, seed=seed, windows=windows, output_type="np",
                     num_inference_steps=options.steps, **settings).images
                for seed in range(options.seeds)
            ]  # fmt: skip
            seams = seam(np.concatenate(made))
            cells.append(f"{seams.mean():.3f} ± {seams.std(ddof=1) / len(seams) ** 0.5:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
