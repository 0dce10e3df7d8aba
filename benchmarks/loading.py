"""Seconds that `from_pretrained` takes, beside another commit's: `python benchmarks/loading.py --against COMMIT`.

The other commit's source is taken out of the repository into a temporary folder. Both load the same folders, in turns,
each time in a process of its own in which a first load warms the file system's cache and the imports up. Printed are
the medians and their ratio: for the built-in model, where checks of small files weigh most, and for a model of the
zoo at its full size with random weights in float16.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tasks import build

ROOT = Path(__file__).resolve().parents[1]
LOAD = """
import logging, sys, time, warnings
warnings.simplefilter("ignore"); logging.disable(logging.CRITICAL)
import torch
from latentdiff import DiffusionPipeline
DiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float16)
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    DiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float16)
    print(time.perf_counter() - began)
"""


def seconds(source: Path, model: str, loads: int) -> list[float]:
    """The seconds of some loads of a model in a new process, by the package in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(source), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, model, str(loads)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [float(line) for line in done.stdout.split()]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT", help="the commit to compare with")
    parser.add_argument("--model", default="cin256-v2", help="the model of the zoo")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", options.against, "src"], cwd=ROOT, check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder, filter="data")
        large = Path(folder) / options.model
        build(options.model).to("cpu").save_pretrained(large)
        sides = {options.against: Path(folder) / "src", "here": ROOT / "src"}
        for model, loads in (("builtin:emoji", 20), (str(large), 3)):
            taken: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side, source in sides.items():
                    taken[side] += seconds(source, model, loads)
            medians = {side: statistics.median(values) for side, values in taken.items()}
            told = ", ".join(f"{side} {value:.4f} s" for side, value in medians.items())
            ratio = medians["here"] / medians[options.against]
            print(f"{Path(model).name}: {told}, ratio {ratio:.3f} (medians of {len(taken['here'])} loads)")


if __name__ == "__main__":
    main()
