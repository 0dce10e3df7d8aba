"""Every task at the size of its published model: `python -m benchmarks tasks [--models NAME ...] [--steps 50]`.

Weights are random, so images are noise, but time and memory are those of the real model. Each model runs in a process
of its own: three steps are made, the time of one is extrapolated to `--steps`, the decoding is added, and memory is
the peak above what the process held after its weights were there. `--sizes 256 512 ...` measures instead how memory
grows with the image, whole and in windows, on a small network.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch

import latentdiff
from benchmarks.measuring import in_process, parser_of
from benchmarks.models import INPUTS, zoo_pipeline
from latentdiff import DDIMScheduler, UNet2DConditionModel, VQModel
from latentdiff.bench.timing import most_memory


@contextmanager
def lifted() -> Iterator[Callable[[], str]]:
    """Yield what says, after the block, how far it has lifted the resident size of this process."""
    before = psutil.Process().memory_info().rss
    with most_memory(torch.device("cpu")) as memory:
        yield lambda: f"{(memory.peak - before) / 2**20:.0f} MiB"


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def model(name: str, steps: int) -> str:
    """One line of the table of models."""
    pipe = zoo_pipeline(name)
    marks = []

    def mark(_pipe, _step, _timestep, tensors):
        marks.append(time.perf_counter())
        return tensors

    with lifted() as lift:
        whole, _ = timed(lambda: pipe(**INPUTS[name], num_inference_steps=3, seed=0, callback_on_step_end=mark))
    step = statistics.median(b - a for a, b in itertools.pairwise(marks))
    seconds = whole + (steps - 3) * step
    weights = sum(
        p.numel() for part in pipe.components.values() if hasattr(part, "parameters") for p in part.parameters()
    )
    return f"| {name} | {weights / 1e6:.0f} M | {step:.2f} | {seconds:.0f} | {lift()} |"


def size(side: int, windows: int | None) -> str:
    """One line of the table of sizes."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64, in_channels=3, out_channels=3, block_out_channels=(64, 128), layers_per_block=1,
        attention_levels=(False, False), mid_block_attention=False, num_head_channels=32,
    ).eval()  # fmt: skip
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    vae = VQModel(block_out_channels=(32, 64, 64), latent_channels=3, mid_block_add_attention=False, **blocks).eval()
    pipe = latentdiff.UnconditionalPipeline(vae=vae, unet=unet, scheduler=DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    pipe(height=64, width=64, num_inference_steps=1)  # what torch allocates once
    with lifted() as lift:
        seconds, _ = timed(lambda: pipe(height=side, width=side, num_inference_steps=1, windows=windows))
    return f"| {side} | {windows or 'whole'} | {lift()} | {seconds:.1f} s |"


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--models", nargs="*", default=list(INPUTS), choices=INPUTS)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sizes", nargs="*", type=int, help="measure memory against the image's side instead")
    options = parser.parse_args(words)
    jobs = [(size, (side, windows)) for side in options.sizes or [] for windows in (None, 256)]
    header = "| pixels a side | windows | peak memory | one step |\n|---|---|---|---|"
    if not options.sizes:
        jobs = [(model, (name, options.steps)) for name in options.models]
        header = (
            f"| model | parameters | seconds a step | seconds for {options.steps} steps (extrapolated) | peak memory |"
        )
        header += "\n|---|---|---|---|---|"
    print(header, flush=True)
    for function, arguments in jobs:
        print(in_process(function, *arguments), flush=True)
