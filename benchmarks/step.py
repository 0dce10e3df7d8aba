"""A step of the UNet at the sizes of published models: this package, diffusers, OpenVINO and the original code.

The sides take turns, and all have the same random weights and latents; text and class models take a step of
classifier-free guidance, which is two predictions of each image. "compiled" is, on CPUs, AOTInductor with frozen
weights for both sides (`pipe.compile()` is that), and on CUDA `torch.compile` with CUDA graphs for both; "graphs" are
CUDA graphs alone. The ratio says how many times as fast as diffusers a side is, and the note how far its prediction is
from that of diffusers. Unless --quick, a side that compiles for CPUs is also begun in two processes of its own: the
first compiles, the second takes what lies on the disk; their seconds are those from the network that is built to the
end of its first step.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measuring import Row, Settings, Spread, free_memory, in_process, peak_memory, rows_of
from benchmarks.models import SIZES, Size, Stock, original_network, stock_network, unet_alone, unet_bytes
from latentdiff import Conditioning
from latentdiff.bench.timing import most_memory
from latentdiff.compat import compile_ahead, load_ahead
from latentdiff.errors import ConfigError, LatentDiffError, one_line
from latentdiff.sampling import Denoiser

Step = Callable[[], torch.Tensor]

BASE = "diffusers eager"
SIDES = (
    BASE,
    "latentdiff eager",
    "diffusers compiled",
    "latentdiff compiled",
    "diffusers graphs",
    "latentdiff graphs",
    "OpenVINO",
    "original code",
)
QUICK_SIZES = ("builtin",)


class Sides:
    """The networks of one set of weights, and their inputs."""

    def __init__(self, size: Size, batch: int, settings: Settings, folder: Path) -> None:
        self.size, self.settings, self.folder = size, settings, folder
        device, dtype = settings.device, settings.dtype
        self.pipe = unet_alone(size, device, dtype)
        unet = self.pipe.unet
        config = unet.config
        generator = torch.Generator().manual_seed(0)
        shape = (batch, config.in_channels, config.sample_size, config.sample_size)
        self.sample = torch.randn(shape, generator=generator).to(device, dtype)
        self.pipe.scheduler.set_timesteps(50, device=device)
        self.timestep = self.pipe.scheduler.timesteps[25]
        self.copies, self.context = 1, None
        if size.tokens is not None:
            self.copies = 2
            drawn = torch.randn(2 * batch, size.tokens, config.cross_attention_dim, generator=generator)
            self.context = drawn.to(device, dtype)

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """What a network of others takes: latents for both halves of guidance, timestep, context."""
        context = () if self.context is None else (self.context,)
        return (self.sample.repeat(self.copies, 1, 1, 1), self.timestep, *context)

    def step(self, name: str) -> Step:
        """The step of a side.

        Raises:
            LookupError: If the side can't take one here; the message says why.
        """
        if name == "OpenVINO":
            return self._openvino()
        if name == "original code":
            if self.settings.original is None:
                raise LookupError("no copy of the original code is given (--original FOLDER)")
            network, inputs = original_network(self.settings.original, self.size, self.pipe.unet), self.inputs()
            return lambda: network(*inputs)
        side, _, way = name.partition(" ")
        if way == "graphs" and self.settings.device.type != "cuda":
            raise LookupError("CUDA graphs are for CUDA")
        return self._ours(way) if side == "latentdiff" else self._stock(way)

    def _ours(self, way: str) -> Step:
        pipe, unet = self.pipe, self.pipe.unet
        pipe.uncompile()
        forward = None
        if way != "eager":
            pipe.compile("unet", **({"backend": "cudagraphs"} if way == "graphs" else {}))
            forward = vars(unet)["forward"]
        # What is computed before the loop is another thing for a compiled network.
        denoiser = Denoiser(unet, Conditioning(self.context), self.copies, timesteps=pipe.scheduler.timesteps)

        def step() -> torch.Tensor:
            vars(unet).pop("forward", None)  # all ways share the network, and take turns
            if forward is not None:
                vars(unet)["forward"] = forward
            return denoiser(self.sample, self.timestep, 0.0)

        return step

    def _stock(self, way: str) -> Step:
        try:
            network = Stock(stock_network(self.pipe.unet))
        except ConfigError as error:
            reason = str(error).removeprefix("this model can't be a folder of plain diffusers: ").split("; use --to")[0]
            raise LookupError(f"diffusers has no network of these weights ({reason})") from None
        inputs = self.inputs()
        if way == "eager":
            return lambda: network(*inputs)
        if self.settings.device.type != "cpu":
            options = {"backend": "cudagraphs"} if way == "graphs" else {"mode": "reduce-overhead"}
            compiled = torch.compile(network, dynamic=False, **options)
            return lambda: compiled(*inputs).clone()  # the next replay of a graph overwrites its result
        path = self.folder / f"diffusers-{len(self.sample)}" / "program.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            compile_ahead(torch.export.export(network, inputs, strict=False), inputs, path)
        program = load_ahead(path)
        return lambda: program(list(inputs))[0]

    def _openvino(self) -> Step:
        """A step of OpenVINO's, of diffusers' network, in the precision of the others."""
        if self.settings.device.type != "cpu":
            raise LookupError("it is measured on CPUs")
        try:
            import openvino
        except ImportError:
            raise LookupError("openvino isn't installed (pip install openvino)") from None
        try:
            network, inputs = Stock(stock_network(self.pipe.unet)), self.inputs()
        except ConfigError:
            raise LookupError("diffusers has no network of these weights, which would be converted") from None
        shapes = [list(tensor.shape) for tensor in inputs]
        model = openvino.convert_model(network, example_input=inputs, input=shapes)
        precision = "bf16" if self.settings.dtype == torch.bfloat16 else "f32"
        options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        compiled = openvino.Core().compile_model(model, "CPU", options)
        arrays = [tensor.float().numpy() for tensor in inputs]
        return lambda: torch.from_numpy(compiled(arrays)[0])


@torch.no_grad()
def first_step(name: str, size: str, batch: int, settings: Settings, folder: Path) -> tuple[float, int]:
    """The seconds from the built network to the end of a side's first step, and the process's peak memory."""
    os.environ["HF_ASSETS_CACHE"] = str(folder)
    sides = Sides(SIZES[size], batch, settings, folder)
    start = time.perf_counter()
    sides.step(name)()
    return time.perf_counter() - start, peak_memory()


def beginnings(name: str, size: str, batch: int, what: str, settings: Settings, folder: Path) -> Iterator[Row]:
    """Rows of the two processes of a side that compiles for CPUs."""
    for process in ("first", "second"):
        seconds, memory = in_process(first_step, name, size, batch, settings, folder)  # type: ignore[misc]
        yield Row("step", what, f"{name}, {process} process", Spread.of([seconds]), memory=memory, note="to first step")


def room(size: Size, wanted: list[str], settings: Settings) -> str | None:
    """Why a size is left out for want of memory; None where there is enough."""
    compiled = sum(name.endswith("compiled") for name in wanted) + ("OpenVINO" in wanted)
    # While it is compiled, a network is there three times: as it is, packed, and written down.
    copies = max(3, 1 + compiled) if compiled and settings.device.type == "cpu" else 1
    needed, free = copies * unet_bytes(size, settings.dtype) + 2**30, free_memory(settings.device)
    if needed <= free:
        return None
    return f"left out: some {needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} are free"


@torch.no_grad()
def rows(settings: Settings) -> Iterator[Row]:
    """Measure every size at every batch."""
    sizes = settings.sizes or (QUICK_SIZES if settings.quick else tuple(SIZES))
    for size in SIZES:
        if size not in sizes:
            if settings.quick and not settings.sizes:
                yield Row(
                    "step", SIZES[size].label, "all", note="left out by --quick: it takes minutes; --sizes has it"
                )
            continue
        for batch in settings.batches:
            with tempfile.TemporaryDirectory() as folder:
                yield from measured(size, batch, settings, Path(folder))


def measured(name: str, batch: int, settings: Settings, folder: Path) -> Iterator[Row]:
    """The rows of one size and batch."""
    size, on_cpu = SIZES[name], settings.device.type == "cpu"
    what = f"{size.label}, batch {batch}{', guided' if size.guided else ''}, {str(settings.dtype)[6:]}"
    wanted = [side for side in SIDES if settings.wants(side) and not (on_cpu and side.endswith("graphs"))]
    if settings.quick and not settings.sides:
        yield Row("step", what, "compiled", note="left out by --quick: compiling takes minutes; --sides has it")
        wanted = [side for side in wanted if not side.endswith("compiled")]
    if (why := room(size, wanted, settings)) is not None:
        yield Row("step", what, "all", note=why)
        return
    os.environ["HF_ASSETS_CACHE"] = str(folder)
    for side in wanted:
        if side.endswith("compiled") and on_cpu and not settings.quick:
            yield from beginnings(side, name, batch, what, settings, folder)
    sides, ready = Sides(size, batch, settings, folder), {}
    for side in wanted:
        try:
            ready[side] = Ready.of(sides, side)
        except (LookupError, LatentDiffError, RuntimeError) as error:
            yield Row("step", what, side, note=one_line(error)[:200])
    if not ready:
        return
    base = BASE if BASE in ready else next(iter(ready))
    seconds = settings.turns({side: found.step for side, found in ready.items()})
    notes = {side: found.note(None if side == base else ready[base].result) for side, found in ready.items()}
    memory = {side: found.memory for side, found in ready.items() if found.memory is not None}
    yield from rows_of("step", what, seconds, base, notes=notes, memory=memory)


@dataclass(frozen=True)
class Ready:
    """A side that has taken a step.

    Attributes:
        step: Its step.
        result: The prediction.
        seconds: How long it took to come so far.
        memory: The most memory of a step on an accelerator, in bytes.
    """

    step: Step
    result: torch.Tensor
    seconds: float
    memory: int | None

    @classmethod
    def of(cls, sides: Sides, name: str) -> Ready:
        """Make a side ready; raises as `Sides.step`."""
        device, start = sides.settings.device, time.perf_counter()
        step = sides.step(name)
        result = step()
        if device.type == "cpu":
            return cls(step, result, time.perf_counter() - start, None)
        step()  # CUDA graphs are recorded by the second call
        seconds = time.perf_counter() - start
        with most_memory(device) as most:
            step()
        return cls(step, result, seconds, most.peak)

    def note(self, base: torch.Tensor | None) -> str:
        """How long it took to be ready, and how far the prediction is from another, in parts of its largest value."""
        note = f"ready after {self.seconds:.1f} s"
        if base is None:
            return note
        apart = (self.result.float() - base.float()).abs().max() / base.float().abs().max()
        return f"{note}, relative difference {apart:.0e}"
