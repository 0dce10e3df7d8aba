"""A whole call beside diffusers' StableDiffusionPipeline: what it costs once, what a step costs outside of the UNet.

Both sides hold the same weights, take the same steps of DDIM from the same noise, and run in turns in one process. A
call costs something once and something a step: the time outside of the UNet is measured at --steps and at four times
as many, and the slope is the cost of a step. Memory is what a call's peak lies above what the process held before, in a
process for each side. --size is a name of the sizes of `step` with a context.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import psutil
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers.utils import logging

from benchmarks.measuring import Spread, in_process, machine, parser_of, ratios
from benchmarks.models import SIZES, stock_network, unet_alone
from latentdiff import TextToImagePipeline
from latentdiff.bench.timing import most_memory
from latentdiff.conversion.to_diffusers import stock_scheduler

CPU = torch.device("cpu")


def build(size: str) -> tuple[dict[str, object], torch.Tensor, torch.Tensor]:
    """Both pipelines, which share their weights, a context and latents."""
    made = unet_alone(SIZES[size], CPU, torch.float32)
    # As many levels as the models have, but narrow: the first stage is not what is timed.
    levels = 3 if size == "builtin" else 4
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    channels, side = made.unet.config.in_channels, made.unet.config.sample_size
    vae = AutoencoderKL(block_out_channels=(8,) * levels, norm_num_groups=4, latent_channels=channels, **blocks).eval()
    parts = {"vae": vae, "text_encoder": None, "tokenizer": None}
    pipes = {
        "latentdiff": TextToImagePipeline(**parts, unet=made.unet, scheduler=made.scheduler),
        "diffusers": StableDiffusionPipeline(
            **parts,
            unet=stock_network(made.unet),
            scheduler=stock_scheduler(made.scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ),
    }
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    context = torch.randn(1, SIZES[size].tokens, made.unet.config.cross_attention_dim)
    return pipes, context, torch.randn(1, channels, side, side)


class UNetTimer:
    """Seconds spent inside a UNet's forward."""

    def __init__(self, unet: torch.nn.Module) -> None:
        self.seconds, self.start = 0.0, 0.0
        unet.register_forward_pre_hook(self._enter)
        unet.register_forward_hook(self._leave)

    def _enter(self, *_: object) -> None:
        self.start = time.perf_counter()

    def _leave(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.start


def run(pipe: object, context: torch.Tensor, latents: torch.Tensor, steps: int) -> torch.Tensor:
    """The latents of a call."""
    return pipe(
        prompt_embeds=context,
        negative_prompt_embeds=torch.zeros_like(context),
        latents=latents,
        num_inference_steps=steps,
        guidance_scale=5.0,
        output_type="latent",
    ).images


def lift(side: str, size: str) -> int:
    """The bytes by which a call of two steps lifts the process's peak above the built networks."""
    pipes, context, latents = build(size)
    before = psutil.Process().memory_info().rss
    with most_memory(CPU) as memory:
        run(pipes[side], context, latents, 2)
    return memory.peak - before


def main(words: Sequence[str]) -> None:
    """Print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--size", choices=[name for name, size in SIZES.items() if size.guided], default="builtin")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(words)
    logging.set_verbosity_error()
    pipes, context, latents = build(args.size)
    timers = {name: UNetTimer(pipe.unet) for name, pipe in pipes.items()}
    totals: dict[str, list[float]] = {name: [] for name in pipes}
    outside: dict[str, dict[int, list[float]]] = {name: {1: [], 4: []} for name in pipes}
    results = {}
    for pipe in pipes.values():
        run(pipe, context, latents, 2)
    for number in range(args.rounds):
        for name in sorted(pipes, reverse=bool(number % 2)):
            for factor in (1, 4):
                timers[name].seconds = 0.0
                start = time.perf_counter()
                results[name] = run(pipes[name], context, latents, factor * args.steps)
                seconds = time.perf_counter() - start
                outside[name][factor].append(1000 * (seconds - timers[name].seconds))
            totals[name].append(seconds / (4 * args.steps))
    print(", ".join(f"{name} {value}" for name, value in machine(CPU).items()))
    print(f"{SIZES[args.size].label}: {4 * args.steps} DDIM steps with guidance, {args.rounds} rounds")
    for name in pipes:
        short, long = (statistics.median(outside[name][factor]) for factor in (1, 4))
        slope = (long - short) / (3 * args.steps)
        print(
            f"{name:>10}: {1000 * statistics.median(totals[name]):9.2f} ms a step; outside the UNet "
            f"{short - slope * args.steps:6.2f} ms a call and {slope:6.3f} ms a step; a call's memory peaks "
            f"{in_process(lift, name, args.size) / 2**20:7.1f} MiB above the networks'"
        )
    told: Spread = ratios(totals, "diffusers", "latentdiff")
    difference = (results["latentdiff"] - results["diffusers"]).abs().max() / results["diffusers"].abs().max()
    print(f"time a step, latentdiff / diffusers: {told.median:.3f} ({told.low:.3f} to {told.high:.3f})")
    print(f"largest relative difference of the latents: {difference:.1e}")
