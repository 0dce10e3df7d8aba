"""Times of calls with the device's work in them, and the most memory that is held meanwhile."""

from __future__ import annotations

import copy
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from latentdiff.pipelines.base import DiffusionPipeline

COUNTS_MEMORY = ("cuda", "xpu")
"""Kinds of devices whose allocator knows the most that it has held."""

WATCHED_EVERY = 0.002  # seconds


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(device: torch.device, function: Callable[[], object]) -> float:
    """The seconds that a function takes, with all that it has the device do."""
    synchronise(device)
    start = time.perf_counter()
    function()
    synchronise(device)
    return time.perf_counter() - start


def network_calls(pipe: DiffusionPipeline, steps: int) -> int:
    """How often the denoising network is called in a run of so many steps; more often than that by some solvers."""
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(steps)
    return len(scheduler.timesteps)


@dataclass(frozen=True)
class Phases:
    """Where the seconds of a call go.

    Attributes:
        condition: Before the first step: the conditioning, noise, the timesteps.
        step: One call of the denoising network with what the solver does, the mean of all but the first.
        decode: After the last step: decoding, and making Pillow images.
        total: The whole call.
    """

    condition: float
    step: float
    decode: float
    total: float


def timed_call(pipe: DiffusionPipeline, steps: int, arguments: Mapping[str, object]) -> Phases:
    """Call a pipeline, and time its phases. The device is waited for after the first and the last step alone.

    Args:
        pipe: The pipeline.
        steps: Steps of the solver, in which it must call the network twice or more.
        arguments: The other arguments of the call.
    """
    device, last = pipe.device, network_calls(pipe, steps) - 1
    marks: list[float] = []

    def mark(_pipe: object, step: int, _timestep: object, tensors: Mapping[str, torch.Tensor]) -> object:
        if step in (0, last):
            synchronise(device)
            marks.append(time.perf_counter())
        return tensors

    synchronise(device)
    start = time.perf_counter()
    pipe(**arguments, num_inference_steps=steps, callback_on_step_end=mark)
    synchronise(device)
    end = time.perf_counter()
    step = (marks[1] - marks[0]) / last
    return Phases(max(0.0, marks[0] - start - step), step, end - marks[1], end - start)


@dataclass
class Memory:
    """The most memory that was held, in bytes.

    Attributes:
        peak: On an accelerator, the most that torch has allocated there; else the largest resident size of the process.
        source: Which of the two, in words.
    """

    source: str
    peak: int = 0


@contextmanager
def most_memory(device: torch.device) -> Iterator[Memory]:
    """Watch the memory while the block runs; the result is complete after it."""
    if device.type in COUNTS_MEMORY:
        memory = Memory(f"allocated by torch on {device.type}")
        torch.accelerator.reset_peak_memory_stats(device)
        yield memory
        memory.peak = torch.accelerator.max_memory_allocated(device)
        return
    memory, held, done = Memory("resident size of the process"), psutil.Process().memory_info, threading.Event()

    def watch() -> None:
        for _ in itertools.count():
            memory.peak = max(memory.peak, held().rss)
            if done.wait(WATCHED_EVERY):
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield memory
    finally:
        done.set()
        watcher.join()
        memory.peak = max(memory.peak, held().rss)
