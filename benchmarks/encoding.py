"""How fast a data set is encoded to latents: `python -m benchmarks encoding [--images 512] [--side 64] [--rounds 3]`.

One process against two, each with one core, in turn: the images a second from the first block to the last shard (the
start of a process, its imports and the load of the first stage, is left out), the ratio, and whether the caches have
the same bytes. Beside what the clock says stands the same of the CPU seconds of the process that took most: that is the
clock's time where the cores are free, and other work on the machine disturbs it less. Then the images a second of CPU
time by precision and order in memory, by which it is decided what `latentdiff encode` and training do on a CPU. The
first stage is untrained, of the blocks' widths that `--channels` says: 128 256 512 512 are Stable Diffusion's.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from benchmarks.measuring import parser_of
from latentdiff.bulk.shards import missing
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.encoding import LatentEncoding
from latentdiff.data.images import ImageFolder
from latentdiff.pipelines.precision import has_bfloat16


def open_work(folder: Path, name: str, side: int) -> LatentEncoding:
    images = ImageFolder(folder / "images", side)
    vae = AutoencoderKL.from_pretrained(folder / "vae").eval()
    work = LatentEncoding(folder / name, vae, images, BadFiles(None, len(images), 0), random_flip=False)
    work.begin(replace=False)
    return work


def worker(folder: Path, name: str, side: int, rank: int, count: int, ready, core: int | None, spent) -> None:
    """A process's share, from when all of them are ready."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    work = open_work(folder, name, side)
    work._moments(torch.zeros(1, 3, side, side))  # kernels are chosen at the first call
    ready.wait()
    start = time.process_time()
    work.do(missing(work, work.shards()[rank::count]), lambda told: None)
    spent[rank] = time.process_time() - start
    ready.wait()


def measure(folder: Path, name: str, side: int, count: int, images: int) -> tuple[float, float]:
    """The images a second of some processes, by the clock and by CPU time."""
    spawn = multiprocessing.get_context("spawn")
    ready, spent = spawn.Barrier(count + 1), spawn.Array("d", count)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    started = [
        spawn.Process(target=worker, args=(folder, name, side, rank, count, ready, cores[rank % len(cores)], spent))
        for rank in range(count)
    ]
    for process in started:
        process.start()
    ready.wait()
    start = time.perf_counter()
    ready.wait()
    seconds = time.perf_counter() - start
    for process in started:
        process.join()
    assert open_work(folder, name, side).finish()
    return images / seconds, images / max(spent)


def measure_kinds(folder: Path, side: int, rounds: int) -> dict[str, list[float]]:
    """The images a second of CPU time, of one thread, by precision and order in memory, one block at a time."""
    torch.set_num_threads(1)
    work = open_work(folder, "kinds", side)
    pixels = torch.stack([work.images[number] for number in range(work.block)])
    kinds = {"float32": (False, torch.contiguous_format), "float32, channels_last": (False, torch.channels_last)}
    if has_bfloat16(work.device):
        kinds |= {"bfloat16": (True, torch.contiguous_format), "bfloat16, channels_last": (True, torch.channels_last)}
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(rounds + 1):
        for kind, (work.bfloat16, order) in kinds.items():
            work.vae.to(memory_format=order)
            given, start = pixels.contiguous(memory_format=order), time.process_time()
            work._moments(given)
            found[kind].append(len(pixels) / (time.process_time() - start))
    return {kind: rates[1:] for kind, rates in found.items()}


def spread(rates: list[float], of: str = "second") -> str:
    return f"{statistics.median(rates):8.1f} images a {of} ({min(rates):.1f} to {max(rates):.1f})"


def main(words: Sequence[str]) -> None:
    """Print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=512, help="a multiple of 512, so that shares are equal")
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128])
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "images").mkdir()
        rng = np.random.default_rng(0)
        for number in range(options.images):
            pixels = rng.integers(0, 256, (options.side, options.side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / f"{number:05d}.png")
        levels = len(options.channels)
        AutoencoderKL(
            block_out_channels=options.channels,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            latent_channels=4,
            layers_per_block=2,
        ).save_pretrained(folder / "vae")
        rates: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        same = True
        for turn in range(options.rounds):
            for count, found in rates.items():
                found.append(measure(folder, f"{turn}-{count}", options.side, count, options.images))
            one, two = ((folder / f"{turn}-{count}" / "moments.npy").read_bytes() for count in rates)
            same = same and one == two
        for place_of, name in enumerate(("clock", "CPU")):
            one, two = ([turn[place_of] for turn in found] for found in rates.values())
            print(f"{name}: 1 process    {spread(one)}")
            print(f"{name}: 2 processes  {spread(two)}")
            ratios = [many / single for single, many in zip(one, two, strict=True)]
            print(f"{name}: ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        print(f"bytes      {'the same' if same else 'DIFFERENT'}")
        for kind, found in measure_kinds(folder, options.side, options.rounds).items():
            print(f"{kind:24}{spread(found, 'CPU second')}")
