"""What the benchmarks share: sides in turns, medians and ratios with their spread, the machine, the table."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import torch

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Seconds = Mapping[str, Sequence[float]]
"""The seconds of each side, round by round."""


@dataclass(frozen=True)
class Spread:
    """The median of some values, and where the middle half of them begins and ends."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        ordered = sorted(values)
        quarter = len(ordered) // 4
        return cls(statistics.median(ordered), ordered[quarter], ordered[-1 - quarter])


def ratios(seconds: Seconds, side: str, base: str) -> Spread:
    """How many times as fast as `base` a side is, by the ratios of each round."""
    return Spread.of([slow / fast for slow, fast in zip(seconds[base], seconds[side], strict=True)])


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    wait: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """The seconds of each side, which is called once a round; another one begins each round.

    Args:
        sides: What is timed. They should have been called before, so that kernels are chosen and memory is taken.
        rounds: How often.
        clock: One of `CLOCKS`. The CPU's adds up over threads, and other work on the machine disturbs it less.
        wait: Waits for the device.
    """
    names, seconds = list(sides), {name: [] for name in sides}
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            wait()
            start = clock()
            sides[name]()
            wait()
            seconds[name].append(clock() - start)
    return seconds


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        case: The benchmark.
        what: What was done: the model's size, the batch.
        side: By which side.
        seconds: How long it took; None for what was left out.
        ratio: How many times as fast as `base` that is; None for the base itself.
        base: The side that it is compared with.
        images: How many images the seconds are of; None where that means nothing.
        memory: The most memory meanwhile, in bytes.
        note: What else is to be said, such as why it was left out.
    """

    case: str
    what: str
    side: str
    seconds: Spread | None = None
    ratio: Spread | None = None
    base: str | None = None
    images: int | None = None
    memory: int | None = None
    note: str = ""

    def cells(self) -> list[str]:
        """The row as texts, in the order of `HEAD`."""
        rate = f"{self.images / self.seconds.median:.4g}" if self.images and self.seconds else ""
        memory = "" if self.memory is None else f"{self.memory / 2**20:,.0f} MiB"
        times = "" if self.ratio is None else f"{_shown(self.ratio, '.3g')} of {self.base}"
        seconds = "" if self.seconds is None else _shown(self.seconds, ".4g")
        return [self.case, self.what, self.side, seconds, rate, times, memory, self.note]


HEAD = ("case", "what", "side", "seconds (middle half)", "images/s", "times as fast", "memory", "note")


def _shown(spread: Spread, form: str) -> str:
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"


def rows_of(
    case: str,
    what: str,
    seconds: Seconds,
    base: str | None,
    *,
    notes: Mapping[str, str] | None = None,
    memory: Mapping[str, int] | None = None,
    images: int | None = None,
) -> Iterator[Row]:
    """A row for each side that took turns."""
    for side, values in seconds.items():
        compared = base is not None and side != base and base in seconds
        yield Row(
            case,
            what,
            side,
            Spread.of(values),
            ratios(seconds, side, str(base)) if compared else None,
            base if compared else None,
            images,
            (memory or {}).get(side),
            (notes or {}).get(side, ""),
        )


class Report:
    """The table, which is printed row by row, and the JSON file beside it, which has every row as soon as it is there.

    Args:
        path: The file, which is replaced.
        facts: What was measured, on what machine.
    """

    def __init__(self, path: Path, facts: Mapping[str, object]) -> None:
        self.path, self.facts = path, dict(facts)
        self.rows: list[Row] = []
        for name, value in facts.items():
            print(f"- {name}: {value}")
        print("\n" + markdown_row(HEAD) + "\n" + markdown_row(["---"] * len(HEAD)), flush=True)

    def add(self, row: Row) -> None:
        """Print a row, and write it down."""
        print(markdown_row(row.cells()), flush=True)
        self.rows.append(row)
        content = {"facts": self.facts, "rows": [dataclasses.asdict(row) for row in self.rows]}
        write_whole(self.path, json.dumps(content, indent=2) + "\n")


def markdown_row(cells: Sequence[str]) -> str:
    """A line of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def write_whole(path: Path, text: str) -> None:
    """Replace a file by another content, never by a part of it."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def machine(device: torch.device) -> dict[str, object]:
    """What a figure depends on beside the code: processor, instructions, cores, device, versions."""
    import diffusers

    import latentdiff

    facts: dict[str, object] = {
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "load before": ", ".join(f"{load:.2f}" for load in psutil.getloadavg()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
    }
    return facts | {module.__name__: module.__version__ for module in (torch, diffusers, latentdiff)}


def processor_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def free_memory(device: torch.device) -> int:
    """The bytes that a benchmark may take, on the device where its networks are."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def peak_memory() -> int:
    """The most memory that this process has had, in bytes; getrusage would count its parent's, too."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(text.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):  # no Linux
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_process(function: Callable[..., object], *args: object) -> object:
    """The result of a function, in a new process.

    Raises:
        RuntimeError: If it ends without one; what it said is on stderr.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f"the process of {function.__name__} ended without a result") from None
    finally:
        process.join()


def _send(sender: Connection, function: Callable[..., object], args: tuple[object, ...]) -> None:
    sender.send(function(*args))


def python(code: str, *args: str, source: Path | None = None) -> str:
    """What a new Python process prints that runs some code, by the package in a folder or by the one that is here."""
    environment = {**os.environ, "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextmanager
def source_of(commit: str | None) -> Iterator[dict[str, Path | None]]:
    """Where the package's source lies: that which is here, and that of another commit, taken out of the repository."""
    if commit is None:
        yield {"latentdiff": None}
        return
    command = ["git", "archive", commit, "src"]
    archive = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    if archive.returncode:
        raise SystemExit(f"there is no commit {commit} with a folder src in {ROOT}; give one of git log")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(folder, filter="data")
        yield {"latentdiff": None, f"latentdiff {commit}": Path(folder) / "src"}


@dataclass(frozen=True)
class Settings:
    """What is asked of the table's benchmarks; each takes what concerns it.

    Attributes:
        quick: Whether all is to be done in under three minutes on two cores.
        rounds: Turns of each side.
        device: Where the networks are.
        dtype: Their data type.
        sizes: Names of `models.SIZES`.
        batches: Images at once.
        sides: The sides that are wanted; empty for all.
        clock: A name of `CLOCKS`.
        against: A commit, which becomes a side of `loading` and `first-image`.
        original: A folder with the original code's package `ldm`.
        latents: Latent pixels a side for `decode`; None for each model's own.
        mixed_precision: That of training.
    """

    quick: bool = False
    rounds: int = 7
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    sizes: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1, 4)
    sides: tuple[str, ...] = ()
    clock: str = "wall"
    against: str | None = None
    original: Path | None = None
    latents: int | None = None
    mixed_precision: str = "no"

    def wants(self, side: str) -> bool:
        """Whether a side is to be measured."""
        return not self.sides or any(side.startswith(wanted) for wanted in self.sides)

    def turns(self, sides: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        """`take_turns` by the clock and on the device that are set."""
        on_cpu = self.device.type == "cpu"
        wait = (lambda: None) if on_cpu else (lambda: torch.accelerator.synchronize(self.device))
        return take_turns(sides, self.rounds, CLOCKS[self.clock], wait)


def parser_of(text: str | None) -> argparse.ArgumentParser:
    """A parser of options that shows a module's text as it is."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
