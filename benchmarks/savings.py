"""Savings that change no result, or by rounding alone: `OMP_NUM_THREADS=1 python -m benchmarks savings [--rounds 3]`.

Printed are the CPU time of a guided step of the built-in model's UNet with timesteps prepared before the loop and
without, and the largest relative difference of the predictions; and the CPU time of attention, with its relative error,
by torch's `scaled_dot_product_attention`, by it with channels filled up to a multiple of 32, by products of whole
matrices, and by products head by head in blocks of 256 rows. All are interleaved.
"""

import functools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from benchmarks.measuring import CLOCKS, parser_of, take_turns
from latentdiff import Conditioning, TextToImagePipeline
from latentdiff.sampling import Denoiser

STEPS = 50
SHAPES = ((16, 4096, 40), (16, 1024, 80), (8, 1024, 64), (8, 256, 160))  # heads, tokens, channels of a head
BLOCK = 256


def cpu_seconds(function: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """The CPU time of a call, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def prepared_timesteps(rounds: int) -> None:
    """Print what preparing timesteps saves of a step."""
    pipe = TextToImagePipeline.from_pretrained("builtin:emoji")
    unet, scheduler, config = pipe.unet, pipe.scheduler, pipe.unet.config
    scheduler.set_timesteps(STEPS)
    context = Conditioning(torch.randn(2, 32, config.cross_attention_dim))
    latents = torch.randn(1, config.in_channels, config.sample_size, config.sample_size)
    denoisers = {
        "one by one": Denoiser(unet, context, 2),
        "before the loop": Denoiser(unet, context, 2, timesteps=scheduler.timesteps),
    }
    times: dict[str, list[float]] = {name: [] for name in denoisers}
    difference = 0.0
    for _ in range(rounds):
        for step, timestep in enumerate(scheduler.timesteps):
            made = {}
            for name in sorted(denoisers, reverse=bool(step % 2)):
                seconds, made[name] = cpu_seconds(lambda name=name, t=timestep: denoisers[name](latents, t, 0.0))
                times[name].append(1000 * seconds)
            one, other = made.values()
            difference = max(difference, float((one - other).norm() / one.norm()))
    shown = ", ".join(f"{name} {statistics.median(values):.2f} ms" for name, values in times.items())
    print(f"timesteps of a step of builtin:emoji: {shown}; largest relative difference {difference:.1e}")


def filled_up(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention with channels filled up to a multiple of 32."""
    width = query.shape[-1]
    parts = (F.pad(part, (0, -width % 32)) for part in (query, key, value))
    return F.scaled_dot_product_attention(*parts, scale=width**-0.5)[..., :width]


def whole(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention by products of whole matrices."""
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1) @ value


def blocks(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention head by head, in blocks of rows whose scores stay in the caches."""
    heads = []
    for q, k, v in zip(query[0], key[0], value[0], strict=True):
        turned, values = (k * k.shape[-1] ** -0.5).t().contiguous(), v.contiguous()
        heads.append(torch.cat([torch.mm(torch.mm(rows, turned).softmax(-1), values) for rows in q.split(BLOCK)]))
    return torch.stack(heads)[None]


WAYS = {"sdpa": F.scaled_dot_product_attention, "filled up": filled_up, "whole": whole, "blocks": blocks}


def attention(rounds: int) -> None:
    """Print the CPU time of each way to compute attention."""
    print("| heads, tokens, channels | dtype | " + " | ".join(WAYS) + " |")
    print("|---|---|" + "---|" * len(WAYS))
    for heads, tokens, width in SHAPES:
        drawn = torch.randn(3, 1, tokens, heads * width)
        exact = F.scaled_dot_product_attention(*(part.view(1, tokens, heads, width).transpose(1, 2) for part in drawn))
        for dtype in (torch.float32, torch.bfloat16):
            given = [part.to(dtype).view(1, tokens, heads, width).transpose(1, 2) for part in drawn]
            errors = {name: float((way(*given).float() - exact).norm() / exact.norm()) for name, way in WAYS.items()}
            ways = {name: functools.partial(way, *given) for name, way in WAYS.items()}
            times = take_turns(ways, rounds, CLOCKS["cpu"])
            shown = [f"{statistics.median(times[name]):.4f} s ({errors[name]:.1e})" for name in WAYS]
            print(f"| {heads}, {tokens}, {width} | {str(dtype)[6:]} | " + " | ".join(shown) + " |", flush=True)


@torch.no_grad()
def main(words: Sequence[str]) -> None:
    """Read the flags, and print both."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(words)
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads")
    prepared_timesteps(args.rounds)
    attention(args.rounds)
