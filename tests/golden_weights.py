"""The weights of the golden cases, which are made of their names, so that no file holds them.

A folder of tests/golden is a small network that the original code computed with: its configuration, its inputs and
outputs (io.safetensors), and the names and shapes of its tensors (keys.json). The weights are random, but the same on
every machine: their bits are the raw stream of numpy's Philox, which numpy keeps from version to version, and what a
logarithm or cosine of another library rounds otherwise is lost in float16. A hash in keys.json notices if not.
"""

import hashlib
import json
import math
import re
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
SEED = 23
# Sharper attention shows a wrong number of heads. The names of averaged weights are without their dots.
GAINS = {r"qkv(_proj)?\.?weight$": 1.5, r"to_[qk]\.?weight$": 1.25}


def normal(name: str, size: int) -> np.ndarray:
    """Standard normal numbers, `size` of them, that depend on `name` alone (Box and Muller 1958)."""
    key = int.from_bytes(hashlib.sha256(f"{SEED}:{name}".encode()).digest()[:16], "little")
    half = -(-size // 2)
    uniform = ((np.random.Philox(key=key).random_raw(2 * half) >> 11) + 1) * 2.0**-53  # above 0, at most 1
    radius, angle = np.sqrt(-2 * np.log(uniform[:half])), 2 * math.pi * uniform[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size]


def make_weight(name: str, shape: list[int]) -> np.ndarray:
    """The tensor `name` in float16: layers keep the variance of their input, and no norm or bias does nothing."""
    values = normal(name, math.prod(shape)).reshape(shape)
    if name.endswith(("emb.weight", "embedding.weight")):
        gain = 3.0 if name.startswith("first_stage_model.") else 1.0  # codebooks as wide as sampled latents
    elif len(shape) > 1:
        gain = next((gain for pattern, gain in GAINS.items() if re.search(pattern, name)), 1.0)
        gain /= math.sqrt(math.prod(shape[1:]))
    else:
        gain = 0.2 if name.endswith("weight") else 0.1
    mean = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
    return (mean + gain * values).astype(np.float16)


def state_dict(case: str) -> dict[str, Tensor]:
    """The original's state dict of a case: weights in float16, buffers in their own types."""
    keys = json.loads((GOLDEN / case / "keys.json").read_text())
    made = {name: make_weight(name, shape) for name, shape in sorted(keys["weights"].items())}
    found = hashlib.sha256()
    for name, values in made.items():
        found.update(name.encode() + values.astype("<f4").tobytes())
    assert found.hexdigest() == keys["sha256"], f"{case} has other weights than the original code computed with"
    made |= {name: np.full(shape, value, dtype) for name, (value, dtype, shape) in keys["constants"].items()}
    for prefix, source in keys["copies"].items():
        made |= {prefix + name.removeprefix(source): made[name] for name in [*made] if name.startswith(source)}
    state = {name: torch.from_numpy(values) for name, values in made.items()}
    if keys["buffers"]:
        buffers = load_file(GOLDEN / "schedule_buffers.safetensors")  # by the last beta and name, of the original code
        prefix = f"{keys['buffers']}."
        state |= {name.removeprefix(prefix): value for name, value in buffers.items() if name.startswith(prefix)}
    return state


def write_checkpoint(case: str, folder: Path) -> Path:
    """Write the same to a file in a folder."""
    path = folder / f"{case}.safetensors"
    # Copies share their memory, which safetensors doesn't write.
    save_file({name: value.clone() for name, value in state_dict(case).items()}, path)
    return path


@cache
def checkpoint(case: str) -> Path:
    """The same as a file, which goes with this process; don't change it."""
    return write_checkpoint(case, Path(_folder().name))


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="latentdiff-golden-")


def files(case: str) -> tuple[Path, Path]:
    """The checkpoint and the configuration."""
    return checkpoint(case), GOLDEN / case / "config.yaml"
