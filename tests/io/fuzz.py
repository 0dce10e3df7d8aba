"""Damaged weight files by the thousand: `python tests/io/fuzz.py --count 20000 --seed 0 --through read`.

Each is opened and read whole; or, as the checkpoint of a small model that is damaged where it describes its tensors,
loaded, converted or described (`--through load`, `convert`, `info`). Anything but a result or one of our errors, or
anything left behind, or more than five seconds of a core, or memory beyond the file's size and 64 MB is a failure. The
seed and the number of a file reproduce it.
"""

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save

from latentdiff.conversion import load_original
from latentdiff.conversion.convert import convert_original, describe_original, save_original
from latentdiff.conversion.plan import make_conversion_plan
from latentdiff.errors import LatentDiffError
from latentdiff.inspection.checkpoint import describe_checkpoint
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


NETWORK = {
    "z_channels": 4,
    "resolution": 8,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
}
FIRST_STAGE = {
    "target": "ldm.models.autoencoder.AutoencoderKL",
    "params": {"embed_dim": 4, "ddconfig": NETWORK},
}
UNET = {
    "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
    "params": {
        "image_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "attention_resolutions": [],
        "num_res_blocks": 1,
        "channel_mult": [1],
        "num_heads": 1,
    },
}
MODEL = {
    "target": "ldm.models.diffusion.ddpm.LatentDiffusion",
    "params": {
        "unet_config": UNET,
        "first_stage_config": FIRST_STAGE,
        "cond_stage_config": "__is_unconditional__",
        "linear_start": 0.0015,
        "linear_end": 0.0195,
    },
}


def models(folder):
    """A small model in every form of checkpoint, as (bytes before, what describes its tensors, bytes after)."""
    parts = make_conversion_plan(MODEL).parts.values()
    state = {key: torch.randn(shape) for part in parts for key, shape in part.map.original_shapes.items()}
    data = save(state)
    yield b"", data[: 8 + int.from_bytes(data[:8], "little")], data[8 + int.from_bytes(data[:8], "little") :]
    for zipped in (True, False):
        torch.save({"state_dict": state, "global_step": 3}, folder / "seed", _use_new_zipfile_serialization=zipped)
        data = (folder / "seed").read_bytes()
        pickled = data.index(b"seed/data/0") if zipped else 40_000
        yield b"", data[:pickled], data[pickled:]
        if zipped:
            yield data[: data.index(b"PK\1\2")], data[data.index(b"PK\1\2") :], b""


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


def read(path):
    """Open and read everything."""
    file = open_tensors(path)
    for key in file.keys():  # noqa: SIM118
        file.read(key)


def convert(path):
    """To the package's folder and to another checkpoint."""
    convert_original(path, path.parent / "folder", MODEL)
    model = describe_original(path, MODEL)
    save_original(model.components, path.parent / "original", weights=model.weights)


DOORS = {
    "read": read,
    "load": lambda path: load_original(path, MODEL),
    "convert": convert,
    "info": lambda path: describe_checkpoint(str(path)),
}


def attempt(door, path):
    """What comes of a file: "opened" or "refused"; nothing half-written is left."""
    try:
        DOORS[door](path)
        result = "opened"
    except LatentDiffError as error:
        assert "\n" not in str(error)
        result = "refused"
    left = {entry.name for entry in path.parent.iterdir()} - {"model.ckpt", "seed"}
    assert left <= {"folder", "original"} and not any(name.startswith(".") for name in left), left
    for name in left:
        shutil.rmtree(path.parent / name)
    return result


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--through", choices=DOORS, default="read")
    options = parser.parse_args(argv)
    torch.manual_seed(0)  # for the whole files
    results = {"opened": 0, "refused": 0}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        door = options.through
        whole = [(b"", data, b"") for data in seeds(Path(folder))] if door == "read" else list(models(Path(folder)))
        path = Path(folder) / "model.ckpt"
        for parts in whole:
            path.write_bytes(b"".join(parts))
            assert attempt(door, path) == "opened"
        before = peak()
        for number in range(options.count):
            rng = random.Random(f"{options.seed} {number}")
            first, data, last = rng.choice(whole)
            for _ in range(rng.choice((1, 1, 2, 3))):
                data = rng.choice(MUTATIONS)(data, rng) or b"x"
            path.write_bytes(first + data + last)
            start = time.process_time()
            try:
                results[attempt(door, path)] += 1
            except BaseException:
                print(f"file {number} of seed {options.seed}:", file=sys.stderr)
                raise
            assert time.process_time() - start < SECONDS, f"file {number} took {time.process_time() - start:.1f} s"
            assert peak() - before < MEGABYTES, f"file {number} took {peak() - before:.0f} MB"
    took = time.perf_counter() - began
    print(f"{options.count} files through {door}: {results}, {peak() - before:.0f} MB, {took:.0f} s")


if __name__ == "__main__":
    main()
