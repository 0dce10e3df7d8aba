"""Converting the largest published model beside reading and writing its bytes: seconds and peak memory.

It makes a checkpoint of the 1.45B text-to-image model with random weights (6 GB), then, in turn and each in a process
of its own, converts it to every form, the latentdiff folder back to the original, and, as the floor, loads it with
torch and saves it with safetensors. Memory is the peak above what the imported libraries take.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.measuring import in_process, parser_of, peak_memory
from latentdiff.conversion.convert import convert_original, describe_original, save_original
from latentdiff.conversion.plan import make_conversion_plan
from latentdiff.conversion.to_diffusers import save_diffusers
from latentdiff.conversion.zoo import zoo_config
from latentdiff.inspection.folder import describe_folder


def make(name: str, path: Path) -> None:
    """A checkpoint of a zoo model with random weights, as Lightning stores it."""
    state: dict[str, torch.Tensor] = {}
    for part in make_conversion_plan(zoo_config(name)).parts.values():
        state |= {key: torch.randn(shape) * 0.02 for key, shape in part.map.original_shapes.items()}
    torch.save({"state_dict": state, "global_step": 0}, path)


def convert(name: str, path: Path, out: Path) -> None:
    """To a latentdiff folder in the file's precision."""
    convert_original(path, out, name)


def convert_half(name: str, path: Path, out: Path) -> None:
    """To a latentdiff folder in half precision."""
    convert_original(path, out, name, dtype=torch.float16)


def to_diffusers(name: str, path: Path, out: Path) -> None:
    """To a folder of plain diffusers."""
    model = describe_original(path, name)
    save_diffusers(model.task, model.components, out, weights=model.weights)


def to_original(name: str, path: Path, out: Path) -> None:
    """To another checkpoint of the original code."""
    model = describe_original(path, name)
    save_original(model.components, out, weights=model.weights)


def back(name: str, path: Path, out: Path) -> None:
    """From the latentdiff folder beside the checkpoint to the original code's format."""
    model = describe_folder(str(path.parent / "folder"), None)
    save_original(model.components, out, weights=model.weights)


def floor(name: str, path: Path, out: Path) -> None:
    """What reading and writing the same bytes takes."""
    out.mkdir()
    save_file(torch.load(path, weights_only=True)["state_dict"], out / "model.safetensors")


SIDES: dict[str, Callable[[str, Path, Path], None]] = {
    "convert": convert,
    "convert-half": convert_half,
    "to diffusers": to_diffusers,
    "to original": to_original,
    "back": back,
    "floor": floor,
}


def measure(side: str, name: str, path: Path, out: Path) -> tuple[float, int, int]:
    """Run one side in this process: the seconds, the bytes of memory, and those of the output."""
    make_conversion_plan(zoo_config("vq-f8"))  # imports what is imported lazily
    before, began = peak_memory(), time.perf_counter()
    SIDES[side](name, path, out)
    seconds, memory = time.perf_counter() - began, peak_memory() - before
    return seconds, memory, sum(file.stat().st_size for file in out.rglob("*") if file.is_file())


def main(words: Sequence[str]) -> None:
    """Print the figures."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="txt2img-1p4B", help="name in the zoo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where there is room for four times the model; default: /tmp")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path, out = Path(folder) / "model.ckpt", Path(folder) / "out"
        make(options.model, path)
        convert(options.model, path, path.parent / "folder")
        rounds: dict[str, list[tuple[float, ...]]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side, results in rounds.items():
                results.append(in_process(measure, side, options.model, path, out))
                shutil.rmtree(out)
    floor_seconds = statistics.median(seconds for seconds, _, _ in rounds["floor"])
    for side, results in rounds.items():
        seconds, memory, size = (statistics.median(column) for column in zip(*results, strict=True))
        print(
            f"{side:13} {seconds:6.1f} s ({seconds / floor_seconds:.2f} of the floor), peak {memory / 2**20:7.0f} MiB, "
            f"{memory / size:.3f} of the {size / 1e9:.2f} GB written"
        )
