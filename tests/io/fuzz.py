"""Damaged weight files by the thousand: `python tests/io/fuzz.py --count 20000 --seed 0`.

Each is opened and read whole. Anything but tensors or one of our errors, more than five seconds, or memory beyond the
file's size and 64 MB is a failure; the seed and number of a file reproduce it.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save

from latentdiff.errors import LatentDiffError
from latentdiff.io.tensor_files import open_tensors

SECONDS = 5.0
MEGABYTES = 64


def seeds(folder):
    """Small whole files of every form."""
    tensors = {"a.weight": torch.randn(4, 3), "b": torch.arange(5), "c": torch.randn(2, 2, dtype=torch.float16)}
    yield save(tensors)
    for zipped in (True, False):
        for content in (tensors, {"state_dict": tensors, "global_step": 3, "epoch": 1}):
            torch.save(content, folder / "seed", _use_new_zipfile_serialization=zipped)
            yield (folder / "seed").read_bytes()


def flip(data, rng):
    """Some bits anywhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data, rng):
    """The beginning only."""
    return data[: rng.randrange(len(data))]


def swap(data, rng):
    """Two stretches exchanged."""
    length = rng.randrange(1, 64)
    first, second = sorted(rng.randrange(max(1, len(data) - length)) for _ in range(2))
    middle = data[first + length : second]
    return (
        data[:first] + data[second : second + length] + middle + data[first : first + length] + data[second + length :]
    )


def repeat(data, rng):
    """A stretch twice, such as a key."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randrange(1, 200))
    return data[:stop] + data[start:stop] + data[stop:]


def huge(data, rng):
    """Large numbers in four or eight bytes, or in the digits of a header."""
    width, start = rng.choice((4, 8)), rng.randrange(len(data))
    number = rng.choice((2**31 - 1, 2**31, 2**32 - 1)) if width == 4 else rng.choice((2**40, 2**62, 2**63, 2**64 - 1))
    return data[:start] + number.to_bytes(width, "little") + data[start + width :]


def header(data, rng):
    """A safetensors header with one wrong value; what has none, or a damaged one, is flipped."""
    length = int.from_bytes(data[:8], "little")
    wrong = rng.choice((-1, 2**31, 2**63, 2**70, 1e300, "x", None, [], {}, True, [1] * 100))
    where = rng.choice(("shape", "data_offsets", "dtype"))
    try:
        entries = json.loads(data[8 : 8 + length])
        entry = entries[rng.choice([name for name in entries if name != "__metadata__"])]
        whole = where == "dtype" or rng.random() < 0.3
        entry[where] = wrong if whole else [*entry[where][:-1], wrong]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return flip(data, rng)
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


MUTATIONS = (flip, cut, swap, repeat, huge, header)


def peak():
    """Most memory so far, in MB (getrusage would count the parent's, too)."""
    return int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def attempt(path):
    """Open and read everything: "opened" or "refused"."""
    try:
        file = open_tensors(path)
        for key in file.keys():  # noqa: SIM118
            file.read(key)
    except LatentDiffError as error:
        assert "\n" not in str(error)
        return "refused"
    return "opened"


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(0)  # for the whole files
    results = {"opened": 0, "refused": 0}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        whole = list(seeds(Path(folder)))
        path = Path(folder) / "model.ckpt"
        for data in whole:
            path.write_bytes(data)
            assert attempt(path) == "opened"
        before = peak()
        for number in range(options.count):
            rng = random.Random(f"{options.seed} {number}")
            data = rng.choice(whole)
            for _ in range(rng.choice((1, 1, 2, 3))):
                data = rng.choice(MUTATIONS)(data, rng) or b"x"
            path.write_bytes(data)
            start = time.perf_counter()
            try:
                results[attempt(path)] += 1
            except BaseException:
                print(f"file {number} of seed {options.seed}:", file=sys.stderr)
                raise
            assert time.perf_counter() - start < SECONDS, f"file {number} took {time.perf_counter() - start:.1f} s"
            assert peak() - before < MEGABYTES, f"file {number} took {peak() - before:.0f} MB"
    took = time.perf_counter() - began
    print(f"{options.count} files: {results}, {peak() - before:.0f} MB, {took:.0f} s")


if __name__ == "__main__":
    main()
