"""Images a second through a feature extractor and the metrics, and the memory that it takes.

    python -m benchmarks evaluation [--features inception:FILE] [--images 1000 4000]

For each number of images it makes that many of 64x64 pixels twice, and computes the Fréchet distance, precision and
recall between them; `--metrics` takes others. The network of FID with random weights, of which `random_weights` of
scripts/check_fidelity.py makes a file, is as fast as with its own. The most memory is that of the process so far, so
numbers of images rise.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.measuring import parser_of, peak_memory
from latentdiff.errors import LatentDiffWarning
from latentdiff.evaluation.features import load_extractor
from latentdiff.evaluation.samples import SamplesEvaluation


def main(words: Sequence[str]) -> None:
    """Print a line for each number of images."""
    parser = parser_of(__doc__)
    parser.add_argument("--features", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--metrics", nargs="+", default=["frechet", "precision", "recall"])
    arguments = parser.parse_args(words)
    extractor = load_extractor(arguments.features)
    warnings.simplefilter("ignore", LatentDiffWarning)
    for count in sorted(arguments.images):
        with tempfile.TemporaryDirectory() as folder:
            sides = [Path(folder) / f"{name}.npz" for name in "ab"]
            for seed, path in enumerate(sides):
                np.savez(path, np.random.default_rng(seed).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8))
            start = time.perf_counter()
            evaluation = SamplesEvaluation(*sides, features=extractor, metrics=arguments.metrics, cache=folder)
            evaluation.compute()
            between = time.perf_counter()
            evaluation.report()
            end = time.perf_counter()
        memory = peak_memory() / 2**20
        print(
            f"{count} images a side: features {2 * count / (between - start):.1f} images/s, metrics "
            f"{end - between:.1f} s, together {2 * count / (end - start):.1f} images/s; most memory {memory:.0f} MiB",
            flush=True,
        )
