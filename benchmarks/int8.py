"""What weights of 8 bits save and cost: `python -m benchmarks int8 [--sizes builtin ldm] [--dtype bfloat16]`.

Each size is a whole model at the size of a published one, with random weights, or the built-in model. Printed are, for
it as it is and quantised (`quantize="int8"`):

- the bytes of all its weights, and by how much a process grows that loads it from a folder and makes the latents of an
  image in two steps: at most, and at the end. Pages of a mapped file count, which the system takes back where it needs
  them;
- how many times as long a step of the UNet takes, the median and the middle half of the rounds, in turns;
- how far off a prediction is: the norm of the difference, and its largest value, as shares of those of the prediction.

Of the built-in model, which has been trained, also how far off images are that are made of the same seeds and prompts:
the mean absolute difference of pixels, of 255. Beside it stands what bfloat16 instead of float32 changes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import psutil
import torch
from torch import nn

from benchmarks.measuring import (
    CLOCKS,
    CPU,
    in_process,
    machine,
    markdown_row,
    parser_of,
    peak_memory,
    ratios,
    take_turns,
)
from benchmarks.models import BUILTIN, INPUTS, SIZES, Size, zoo_pipeline
from latentdiff import Conditioning, DiffusionPipeline
from latentdiff.sampling import Denoiser

HEAD = (
    "model",
    "weights",
    "bytes of weights",
    "grows at most",
    "at the end by",
    "step, times as long",
    "norm off",
    "largest off",
)
WAYS = {"as it is": None, "int8": "int8"}
PROMPTS = ("a red apple", "a blue car", "a yellow star", "a pink cat", "a green fish", "an orange house")
KNOWN = [name for name, size in SIZES.items() if size.zoo is None or size.zoo in INPUTS]


def load(model: str, quantize: str | None, dtype: torch.dtype) -> DiffusionPipeline:
    """A pipeline from its folder."""
    pipe = DiffusionPipeline.from_pretrained(model, dtype=dtype, quantize=quantize)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def growth(model: str, quantize: str | None, dtype: torch.dtype, given: dict[str, object]) -> tuple[int, int, int]:
    """The bytes of the weights, and by how many a process grows that makes latents: at most, and at the end."""
    before = psutil.Process().memory_info().rss
    pipe = load(model, quantize, dtype)
    pipe(**given, num_inference_steps=2, seed=0, output_type="latent")
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    held = sum(tensor.numel() * tensor.itemsize for part in networks for tensor in part.state_dict().values())
    return held, peak_memory() - before, psutil.Process().memory_info().rss - before


class Step:
    """A step of a pipeline's UNet, guided if it has a context."""

    def __init__(self, pipe: DiffusionPipeline, size: Size) -> None:
        unet, config, generator = pipe.unet, pipe.unet.config, torch.Generator().manual_seed(0)
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        self.sample, context = torch.randn(shape, generator=generator).to(unet.dtype), None
        if size.tokens is not None:
            context = torch.randn(2, size.tokens, config.cross_attention_dim, generator=generator).to(unet.dtype)
        pipe.scheduler.set_timesteps(50)
        timesteps = pipe.scheduler.timesteps
        self.denoiser = Denoiser(unet, Conditioning(context), 1 if context is None else 2, timesteps=timesteps)
        self.timestep = timesteps[25]

    def __call__(self) -> torch.Tensor:
        """The predictions."""
        return self.denoiser(self.sample, self.timestep, 0.0)


@torch.no_grad()
def measure(name: str, dtype: torch.dtype, rounds: int, clock: str) -> None:
    """Print the lines of a size."""
    size = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        model, given = BUILTIN, {"prompt": PROMPTS[0]}
        if size.zoo is not None:
            model, given = folder, INPUTS[size.zoo]
            zoo_pipeline(size.zoo).to(dtype).save_pretrained(folder)
        memory = {way: in_process(growth, model, quantize, dtype, given) for way, quantize in WAYS.items()}
        steps = {way: Step(load(model, quantize, dtype), size) for way, quantize in WAYS.items()}
        made = {way: step().float() for way, step in steps.items()}
        seconds = take_turns(steps, rounds, CLOCKS[clock])
    exact, off = made["as it is"], made["int8"] - made["as it is"]
    longer = ratios(seconds, "as it is", "int8")  # the seconds of int8 over those of the other
    told = {
        "as it is": ("1", "", ""),
        "int8": (
            f"{longer.median:.2f} ({longer.low:.2f} to {longer.high:.2f})",
            f"{off.norm() / exact.norm():.2%}",
            f"{off.abs().max() / exact.abs().max():.2%}",
        ),
    }
    for way in WAYS:
        mebibytes = [f"{value / 2**20:,.0f} MiB" for value in memory[way]]
        print(markdown_row([f"{size.label}, {str(dtype)[6:]}", way, *mebibytes, *told[way]]), flush=True)


def images(count: int, steps: int, quantize: str | None, dtype: torch.dtype) -> np.ndarray:
    """Images of the built-in model (N, H, W, 3) in [0, 255]."""
    pipe = load(BUILTIN, quantize, dtype)
    made = [
        pipe(PROMPTS[seed % len(PROMPTS)], num_inference_steps=steps, seed=seed, output_type="np").images[0]
        for seed in range(count)
    ]
    return 255 * np.stack(made)


def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=KNOWN, default=["builtin", "ldm"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--images", type=int, default=12, help="of the built-in model (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of an image (default: %(default)s)")
    args = parser.parse_args(words)
    print(", ".join(f"{name} {value}" for name, value in machine(CPU).items()))
    print("\n" + markdown_row(HEAD) + "\n" + markdown_row(["---"] * len(HEAD)), flush=True)
    for name in args.sizes:
        measure(name, getattr(torch, args.dtype), args.rounds, args.clock)
    if "builtin" in args.sizes and args.images:
        exact = images(args.images, args.steps, None, torch.float32)
        print()
        for way, (quantize, dtype) in {"int8": ("int8", torch.float32), "bfloat16": (None, torch.bfloat16)}.items():
            apart = np.abs(images(args.images, args.steps, quantize, dtype) - exact).mean()
            print(f"{way}: {args.images} images of {args.steps} steps are {apart:.2f} of 255 apart from float32")
