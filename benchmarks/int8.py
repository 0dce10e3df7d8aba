"""What weights of 8 bits save and cost: `python -m benchmarks int8 [--sizes builtin ldm] [--dtype bfloat16]`.

Each size is a UNet at the size of a published model, with random weights, or the built-in model. Printed are, for it as
it is and quantised (`quantize="int8"`):

- the bytes of its weights, and by how much a process grows that loads it from a folder and takes a step: at most, and
  at the end. Pages of a mapped file count, which the system takes back where it needs them;
- how many times as long a step takes, the median and the middle half of the rounds, in turns;
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
from benchmarks.models import BUILTIN, SIZES, unet_alone
from latentdiff import Conditioning, DiffusionPipeline
from latentdiff.sampling import Denoiser

HEAD = (
    "model",
    "weights",
    "bytes of weights",
    "grows at most",
    "grows by",
    "step, times as long",
    "norm off",
    "largest",
)
WAYS = {"as it is": None, "int8": "int8"}
PROMPTS = ("a red apple", "a blue car", "a yellow star", "a pink cat", "a green fish", "an orange house")


def inputs(unet: torch.nn.Module, tokens: int | None) -> tuple[torch.Tensor, torch.Tensor | None, int]:
    """Latents, a context, and how many predictions of each latent are made in a step."""
    generator, config = torch.Generator().manual_seed(0), unet.config
    sample = torch.randn(1, config.in_channels, config.sample_size, config.sample_size, generator=generator)
    if tokens is None:
        return sample.to(unet.dtype), None, 1
    context = torch.randn(2, tokens, config.cross_attention_dim, generator=generator)
    return sample.to(unet.dtype), context.to(unet.dtype), 2


def denoiser_of(pipe: DiffusionPipeline, tokens: int | None) -> tuple[Denoiser, torch.Tensor, torch.Tensor]:
    """The bound network, and what it predicts of: latents and a timestep."""
    pipe.scheduler.set_timesteps(50)
    sample, context, copies = inputs(pipe.unet, tokens)
    timesteps = pipe.scheduler.timesteps
    return Denoiser(pipe.unet, Conditioning(context), copies, timesteps=timesteps), sample, timesteps[25]


@torch.no_grad()
def growth(folder: str, quantize: str | None, dtype: torch.dtype, tokens: int | None) -> tuple[int, int, int]:
    """The bytes of the weights, and by how many a process grows that takes a step: at most, and at the end."""
    before = psutil.Process().memory_info().rss
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, quantize=quantize)
    denoiser, sample, timestep = denoiser_of(pipe, tokens)
    denoiser(sample, timestep, 0.0)
    held = sum(tensor.numel() * tensor.itemsize for tensor in pipe.unet.state_dict().values())
    return held, peak_memory() - before, psutil.Process().memory_info().rss - before


@torch.no_grad()
def measure(name: str, dtype: torch.dtype, rounds: int, clock: str) -> None:
    """Print the lines of a size."""
    size = SIZES[name]
    with tempfile.TemporaryDirectory() as folder:
        unet_alone(size, CPU, dtype).save_pretrained(folder)
        memory = {way: in_process(growth, folder, given, dtype, size.tokens) for way, given in WAYS.items()}
        sides, made = {}, {}
        for way, given in WAYS.items():
            pipe = DiffusionPipeline.from_pretrained(folder, dtype=dtype, quantize=given)
            denoiser, sample, timestep = denoiser_of(pipe, size.tokens)
            sides[way] = lambda denoiser=denoiser, sample=sample, timestep=timestep: denoiser(sample, timestep, 0.0)
            made[way] = sides[way]().float()
        seconds = take_turns(sides, rounds, CLOCKS[clock])
    exact, off = made["as it is"], made["int8"] - made["as it is"]
    for way in WAYS:
        held, most, end = (f"{value / 2**20:,.0f} MiB" for value in memory[way])
        told = ("1", "", "")
        if way != "as it is":
            longer = ratios(seconds, "as it is", way)  # the other way round: the seconds of int8 over those of float32
            told = (
                f"{longer.median:.2f} ({longer.low:.2f} to {longer.high:.2f})",
                f"{off.norm() / exact.norm():.2%}",
                f"{off.abs().max() / exact.abs().max():.2%}",
            )
        print(markdown_row([f"{size.label}, {str(dtype)[6:]}", way, held, most, end, *told]), flush=True)


def images(count: int, steps: int, **options: object) -> np.ndarray:
    """Images of the built-in model (N, H, W, 3) in [0, 255], loaded with some options."""
    pipe = DiffusionPipeline.from_pretrained(BUILTIN, **options)
    pipe.set_progress_bar_config(disable=True)
    prompts = [PROMPTS[number % len(PROMPTS)] for number in range(count)]
    made = [
        pipe([prompt], num_inference_steps=steps, seed=seed, output_type="np").images[0]
        for seed, prompt in enumerate(prompts)
    ]
    return 255 * np.stack(made)


def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["builtin", "ldm"])
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
        exact = images(args.images, args.steps)
        for way, options in {"int8": {"quantize": "int8"}, "bfloat16": {"dtype": "bfloat16"}}.items():
            apart = np.abs(images(args.images, args.steps, **options) - exact).mean()
            print(f"{way}: {args.images} images of {args.steps} steps are {apart:.2f} of 255 apart from float32")
