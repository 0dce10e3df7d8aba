"""A first stage's decoder against a tiny one: `OMP_NUM_THREADS=1 python benchmarks/decoders.py [--latents 16]`.

Both have the shape of Stable Diffusion's and random weights, which times don't depend on. Printed are the parameters,
the CPU seconds of a pass for one image of so many latent pixels a side, and the ratio.
"""

import argparse
import statistics
import time

import torch
from diffusers import AutoencoderKL

from latentdiff import TinyDecoder

SHAPE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
ROUNDS = 3


@torch.no_grad()
def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latents", type=int, default=16)
    latents = torch.randn(1, 4, *[parser.parse_args().latents] * 2)
    networks = {"teacher": AutoencoderKL(**SHAPE).eval(), "tiny": TinyDecoder().eval()}
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            start = time.process_time()
            network.decode(latents)
            taken[name].append(time.process_time() - start)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, network in networks.items():
        count = sum(parameter.numel() for parameter in network.decoder.parameters())
        print(f"{name}: {count:,} parameters, {medians[name]:.3f} s")
    print(f"ratio: {medians['teacher'] / medians['tiny']:.1f}")


if __name__ == "__main__":
    main()
