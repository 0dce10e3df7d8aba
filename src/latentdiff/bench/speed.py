"""How fast a model is: loading, the first image, samples and steps a second, memory, and its share of the peak."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch

from latentdiff.bench.flops import Flops, Peak, count_flops, measure_peak
from latentdiff.bench.inputs import Arguments, example_inputs
from latentdiff.bench.timing import Phases, most_memory, network_calls, synchronise, timed_call
from latentdiff.pipelines.base import DiffusionPipeline
from latentdiff.types import Component


@dataclass(frozen=True)
class Speed:
    """What was measured of one solver and number of steps.

    Attributes:
        load_seconds: From the call of `from_pretrained` until the model is on its device; None if it came loaded.
        first_image_seconds: The first image that the model made: kernels are chosen and memory is taken meanwhile.
        image_seconds: One image later on, the median of the rounds.
        batch_size: How many images the rest is of.
        rounds: How many calls the medians are of.
        network_calls: How often a call calls the denoising network.
        samples_per_second: Images of a batch a second, by the median seconds of a call.
        steps_per_second: Calls of the network for a whole batch a second, by the median seconds of a step.
        phases: The median seconds of the parts of a call, each by itself.
        peak_memory: The most memory that was held while a batch was made, in bytes.
        memory_source: What that is the size of.
        weights: The size of the weights, in bytes.
        flops: Floating-point operations of one image.
        peak: What the machine does.
    """

    load_seconds: float | None
    first_image_seconds: float
    image_seconds: float
    batch_size: int
    rounds: int
    network_calls: int
    samples_per_second: float
    steps_per_second: float
    phases: Phases
    peak_memory: int
    memory_source: str
    weights: int
    flops: Flops
    peak: Peak

    def operations(self) -> dict[str, int]:
        """Floating-point operations of an image by the names of `Phases`: `total` is those of a whole call."""
        flops = self.flops
        total = flops.condition + self.network_calls * flops.step + flops.decode
        return {"condition": flops.condition, "step": flops.step, "decode": flops.decode, "total": total}

    def shares(self) -> dict[str, float]:
        """The share of the machine's peak that each part of a call reaches; of one that takes no time there is none."""
        seconds: dict[str, float] = asdict(self.phases)
        operations = {part: self.batch_size * count for part, count in self.operations().items() if seconds[part]}
        return {part: count / seconds[part] / self.peak.best for part, count in operations.items()}


def load_timed(
    model: str, device: torch.device, dtype: torch.dtype, revision: str | None = None
) -> tuple[DiffusionPipeline, float]:
    """Load a model and put it on a device; the pipeline, and the seconds that it took.

    Raises:
        LatentDiffError: As `DiffusionPipeline.from_pretrained`.
    """
    start = time.perf_counter()
    pipe: DiffusionPipeline = DiffusionPipeline.from_pretrained(model, revision=revision, dtype=dtype)
    pipe.to(device)
    synchronise(device)
    return pipe, time.perf_counter() - start


def measure_speed(
    pipe: DiffusionPipeline,
    steps: int,
    *,
    batch_size: int = 8,
    rounds: int = 5,
    options: Mapping[str, object] | None = None,
    load_seconds: float | None = None,
) -> Speed:
    """Measure a model with the solver that it has. The first image that it makes should be the one that is made here.

    Args:
        pipe: The model, on its device.
        steps: Steps of the solver, at least 2.
        batch_size: Images that are made at once.
        rounds: How many calls the medians are of.
        options: Further arguments of the calls, such as the guidance scale.
        load_seconds: What loading it took.

    Raises:
        InputError: If an option doesn't fit the model.
    """
    given: Arguments = {**(options or {}), "seed": 0}
    one, many = ({**example_inputs(pipe, count), **given} for count in (1, batch_size))
    first = timed_call(pipe, steps, one).total
    single = [timed_call(pipe, steps, one).total for _ in range(rounds)]
    with most_memory(pipe.device) as memory:  # a call of its own, since watching takes time; it warms up, too
        pipe(**many, num_inference_steps=steps)
    calls = [timed_call(pipe, steps, many) for _ in range(rounds)]
    names = ("condition", "step", "decode", "total")
    phases = Phases(*(statistics.median(getattr(call, name) for call in calls) for name in names))
    flops = count_flops(pipe, dict(options or {}))
    peak = measure_peak(pipe.device, pipe.unet.dtype)
    return Speed(
        load_seconds=load_seconds,
        first_image_seconds=first,
        image_seconds=statistics.median(single),
        batch_size=batch_size,
        rounds=rounds,
        network_calls=network_calls(pipe, steps),
        samples_per_second=batch_size / phases.total,
        steps_per_second=1 / phases.step,
        phases=phases,
        peak_memory=memory.peak,
        memory_source=memory.source,
        weights=weight_bytes(pipe),
        flops=flops,
        peak=peak,
    )


def weight_bytes(pipe: DiffusionPipeline) -> int:
    """The size of a model's weights."""
    networks = [part for part in pipe.components.values() if isinstance(part, Component)]
    return sum(weight.numel() * weight.element_size() for network in networks for weight in network.parameters())
