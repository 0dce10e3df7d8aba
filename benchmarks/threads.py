"""Whether threads on one pipeline give the images that each gives alone: python -m benchmarks threads.

Every scheduler of this package and every one of diffusers that samples such a model runs in as many threads on one
pipeline of the built-in model, with prompts and seeds of their own. Printed is how many images differ from those made
one after the other, and how many calls raised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import diffusers
import numpy as np
import torch

from benchmarks.measuring import parser_of
from latentdiff import TextToImagePipeline
from latentdiff.registry import SCHEDULERS

JOBS = [("a red apple", 0), ("a green car", 1), ("a small blue star", 2), ("a cat on a yellow ground", 3)]
STOCK = [
    *("DDIM", "DDPM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "TCD", "LCM"),
    *("DPMSolverMultistep", "DPMSolverSinglestep", "DEISMultistep", "UniPCMultistep", "SASolver"),
    *("KDPM2AncestralDiscrete", "DDIMParallel", "DDPMParallel"),
]


def compare(pipe: TextToImagePipeline, steps: int, rounds: int) -> tuple[int, int, int]:
    """How many images were made in threads, how many of them differ from those made alone, and how many raised."""

    def make(prompt: str, seed: int) -> np.ndarray:
        return pipe(prompt, seed=seed, num_inference_steps=steps, output_type="np").images[0]

    alone = [make(*job) for job in JOBS]
    wrong = raised = 0
    for _ in range(rounds):
        made: list[np.ndarray | None] = [None] * len(JOBS)
        barrier = threading.Barrier(len(JOBS))

        def work(number: int, made: list[np.ndarray | None] = made, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            made[number] = make(*JOBS[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(JOBS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        raised += sum(image is None for image in made)
        pairs = zip(made, alone, strict=True)
        wrong += sum(image is not None and not np.array_equal(image, expected) for image, expected in pairs)
    return rounds * len(JOBS), wrong, raised


def main(words: Sequence[str]) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    pipe = TextToImagePipeline.from_pretrained("builtin:emoji")
    pipe.set_progress_bar_config(disable=True)
    schedulers = [*SCHEDULERS.names(), *(getattr(diffusers, f"{name}Scheduler") for name in STOCK)]
    total = np.zeros(3, int)
    for scheduler in schedulers:
        pipe.set_scheduler(scheduler)
        counts = compare(pipe, args.steps, args.rounds)
        total += counts
        name = scheduler if isinstance(scheduler, str) else f"diffusers.{scheduler.__name__}"
        print("{:42} {:3} images, {} wrong, {} raised".format(name, *counts), flush=True)
    print("{} threads, {} schedulers: {} images, {} wrong, {} raised".format(len(JOBS), len(schedulers), *total))
