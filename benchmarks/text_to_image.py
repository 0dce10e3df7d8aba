"""Text to image against diffusers' StableDiffusionPipeline: `benchmarks/text_to_image.py [--size emoji|ldm|sd1]`.

Both sides hold the same weights, take the same steps of the same solver from the same noise, and run in turn in one
process; printed are medians over the rounds, the ratio, and the largest difference of the results. A call costs
something once and something a step: the time outside the UNet is measured at `--steps` and at four times as many, and
the slope is the cost of a step. Memory is what a call's peak lies above what the process held before, in a process for
each side.
"""

import argparse
import multiprocessing
import statistics
import threading
import time

import psutil
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from diffusers import DDIMScheduler as StockDDIM
from diffusers import UNet2DConditionModel as StockUNet
from diffusers.utils import logging

import latentdiff
from latentdiff.models.stock_config import translate_stock_config

SIZES = {
    "emoji": {
        "latent": 16,
        "context": (32, 192),
        "unet": {
            "block_out_channels": (64, 128, 128),
            "layers_per_block": 1,
            "cross_attention_dim": 192,
            "attention_head_dim": (2, 4, 4),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        },
    },
    "ldm": {
        "latent": 32,
        "context": (77, 1280),
        "unet": {"cross_attention_dim": 1280, "attention_head_dim": 8},
    },
    "sd1": {
        "latent": 64,
        "context": (77, 768),
        "unet": {"cross_attention_dim": 768, "attention_head_dim": 8},
    },
}


def build(size: str) -> tuple[StockUNet, AutoencoderKL, torch.Tensor]:
    torch.manual_seed(0)
    spec = SIZES[size]
    unet = StockUNet(sample_size=spec["latent"], **spec["unet"]).eval().requires_grad_(False)
    # Three or four levels, as the models have, but narrow: the first stage is not what is timed.
    levels = 3 if size == "emoji" else 4
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    vae = AutoencoderKL(block_out_channels=(8,) * levels, norm_num_groups=4, latent_channels=4, **blocks).eval()
    return unet, vae, torch.randn(1, *spec["context"])


def ours(unet: StockUNet, vae: AutoencoderKL) -> latentdiff.TextToImagePipeline:
    config = translate_stock_config({"_class_name": "UNet2DConditionModel", **unet.config})
    with torch.device("meta"):
        own = latentdiff.UNet2DConditionModel(**config)
    own.load_state_dict(unet.state_dict(), assign=True)
    scheduler = latentdiff.DDIMScheduler.from_config(stock_scheduler().config)
    return latentdiff.TextToImagePipeline(
        vae=vae, text_encoder=None, tokenizer=None, unet=own.eval(), scheduler=scheduler
    )


def stock_scheduler() -> StockDDIM:
    return StockDDIM(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def theirs(unet: StockUNet, vae: AutoencoderKL) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=stock_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


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
    return pipe(
        prompt_embeds=context,
        negative_prompt_embeds=torch.zeros_like(context),
        latents=latents,
        num_inference_steps=steps,
        guidance_scale=5.0,
        output_type="latent",
    ).images


def peak(side: str, size: str, connection: object) -> None:
    """Send the memory, in MiB, by which a call of two steps lifts the process's peak above the built networks."""
    unet, vae, context = build(size)
    pipe = {"latentdiff": ours, "diffusers": theirs}[side](unet, vae)
    pipe.set_progress_bar_config(disable=True)
    spec = SIZES[size]
    memory, done, held = psutil.Process().memory_info, threading.Event(), []

    def watch() -> None:
        while not done.wait(0.002):
            held.append(memory().rss)

    before = memory().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    run(pipe, context, torch.randn(1, 4, spec["latent"], spec["latent"]), 2)
    done.set()
    watcher.join()
    connection.send((max(held) - before) / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="emoji")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    logging.set_verbosity_error()
    unet, vae, context = build(args.size)
    pipes = {"latentdiff": ours(unet, vae), "diffusers": theirs(unet, vae)}
    timers = {name: UNetTimer(pipe.unet) for name, pipe in pipes.items()}
    spec = SIZES[args.size]
    latents = torch.randn(1, 4, spec["latent"], spec["latent"])
    totals: dict[str, list[float]] = {name: [] for name in pipes}
    outside: dict[str, dict[int, list[float]]] = {name: {1: [], 4: []} for name in pipes}
    results = {}
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
        run(pipe, context, latents, 2)
    for number in range(args.rounds):
        # The order changes from round to round, so that neither side always comes first.
        for name in sorted(pipes, reverse=bool(number % 2)):
            for factor in (1, 4):
                timers[name].seconds = 0.0
                start = time.perf_counter()
                results[name] = run(pipes[name], context, latents, factor * args.steps)
                seconds = time.perf_counter() - start
                outside[name][factor].append(1000 * (seconds - timers[name].seconds))
            totals[name].append(1000 * seconds / (4 * args.steps))
    threads = torch.get_num_threads()
    print(f"{args.size}: {4 * args.steps} DDIM steps with guidance, {args.rounds} rounds, {threads} threads")
    for name in pipes:
        sender, receiver = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=peak, args=(name, args.size, receiver))
        process.start()
        lift = sender.recv()
        process.join()
        short, long = (statistics.median(outside[name][factor]) for factor in (1, 4))
        slope = (long - short) / (3 * args.steps)
        fixed = short - slope * args.steps
        print(
            f"{name:>10}: {statistics.median(totals[name]):9.2f} ms a step; outside the UNet {fixed:6.2f} ms a call "
            f"and {slope:6.3f} ms a step; a call's memory peaks {lift:7.1f} MiB above the networks'"
        )
    ratios = [a / b for a, b in zip(totals["latentdiff"], totals["diffusers"], strict=True)]
    difference = (results["latentdiff"] - results["diffusers"]).abs().max() / results["diffusers"].abs().max()
    print(f"ratio of time a step, latentdiff / diffusers: {statistics.median(ratios):.3f} (median of the rounds)")
    print(f"largest relative difference of the latents: {difference:.1e}")


if __name__ == "__main__":
    main()
