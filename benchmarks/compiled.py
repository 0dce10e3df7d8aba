"""A guided step of a text-to-image UNet, ours and diffusers', as it is and compiled: `python benchmarks/compiled.py`.

Both sides hold the same random weights, and are compiled in the same way: exported, and by AOTInductor with frozen
weights. Ours is `pipe.compile("unet")`. First, a process for each side compiles; then a second process takes what the
first has left on the disk, from the network that is built to the end of its first step; then one process takes steps
of all four in turn, in changing order. `--size ldm` is that of the txt2img-1.45B model and takes 11 GB and minutes.
`--dtype bfloat16` is for cores that multiply in it.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.utils import logging
from text_to_image import SIZES, build, ours

from latentdiff.compat import compile_ahead, load_ahead
from latentdiff.conditioning import Conditioning
from latentdiff.sampling import Denoiser

Step = Callable[[], torch.Tensor]


class Stock(torch.nn.Module):
    """diffusers' UNet, from tensors to a tensor."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return self.unet(sample, timestep, context, return_dict=False)[0]


class Sides:
    """The two UNets of one set of weights, and their inputs."""

    def __init__(self, size: str, dtype: torch.dtype) -> None:
        unet, vae, context = build(size)
        self.stock = Stock(unet).to(dtype).eval()
        self.pipe = ours(unet, vae)
        side = SIZES[size]["latent"]
        sample = torch.randn(1, unet.config.in_channels, side, side, dtype=dtype)
        self.sample, self.when = sample, torch.tensor(500.0)
        self.context = torch.cat([torch.zeros_like(context), context]).to(dtype)

    def step(self, name: str, folder: Path) -> Step:
        """The step of "ours eager" and so on; what is compiled lies in `folder`, or will."""
        side, _, way = name.partition(" ")
        if side == "ours":
            self.pipe.uncompile()
            if way == "compiled":
                self.pipe.compile("unet")
            forward, unet = vars(self.pipe.unet).get("forward"), self.pipe.unet
            context = Denoiser(unet, Conditioning(self.context), copies=2).inputs["encoder_hidden_states"]
            network = forward or unet
            return lambda: network(self.sample, self.when, encoder_hidden_states=context).sample
        inputs = (self.sample.repeat(2, 1, 1, 1), self.when, self.context)
        if way == "eager":
            return lambda: self.stock(*inputs)
        path = folder / "diffusers" / "program.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            compile_ahead(torch.export.export(self.stock, inputs, strict=False), inputs, path)
        program = load_ahead(path)
        return lambda: program(list(inputs))[0]


def peak() -> float:
    """The most memory that this process has had, in GiB."""
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(text.split("VmHWM:")[1].split()[0]) / 2**20


@torch.no_grad()
def first_step(name: str, size: str, dtype: torch.dtype, folder: Path, connection: object) -> None:
    """Send the seconds from the built network to the end of the first step, and the process's peak memory."""
    logging.set_verbosity_error()
    sides = Sides(size, dtype)
    start = time.perf_counter()
    sides.step(name, folder)()
    connection.send((time.perf_counter() - start, peak()))


def in_process(*args: object) -> tuple[float, float]:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    process = context.Process(target=first_step, args=(*args, sender))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="emoji")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sides", nargs="+", choices=["ours", "diffusers"], default=["ours", "diffusers"])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    names = [f"{side} {way}" for side in args.sides for way in ("eager", "compiled")]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["HF_ASSETS_CACHE"] = place
        print(f"{args.size}, {args.dtype}, {torch.get_num_threads()} threads, {args.rounds} rounds")
        for name in names[1::2]:
            for process in ("first", "second"):
                seconds, memory = in_process(name, args.size, dtype, folder)
                print(f"{name:>18}: {process} process {seconds:7.1f} s to its first step, peak {memory:5.2f} GiB")
        sides = Sides(args.size, dtype)
        results, times = {}, {name: [] for name in names}
        steps = {}
        for name in names:
            steps[name] = sides.step(name, folder)
            results[name] = steps[name]()
        sides.pipe.uncompile()
        for number in range(args.rounds):
            for name in sorted(names, reverse=bool(number % 2)):
                start = time.perf_counter()
                steps[name]()
                times[name].append(time.perf_counter() - start)
    other = names[-2]
    for name in names:
        base, ratios = results[other], sorted(a / b for a, b in zip(times[other], times[name], strict=True))
        spread = f"{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}"
        error = (results[name] - base).abs().max() / base.abs().max()
        print(
            f"{name:>18}: {1000 * statistics.median(times[name]):9.2f} ms a guided step, "
            f"{statistics.median(ratios):.2f} times as fast as {other} ({spread}); "
            f"relative difference {error:.1e}"
        )


if __name__ == "__main__":
    main()
