"""Damaged and hostile files through every door, watched.

    python scripts/attack.py payloads
    python scripts/attack.py mutations --count 200000 --processes 2

`payloads` opens files that are made to run code, to lead out of their folder or to take memory without end: pickles,
folders of models, adapters, YAML and arrays. `mutations` damages good checkpoints and good folders of models by chance
and loads, shows, converts and samples them. Python's audit events say what is read, run and asked of the network
meanwhile. Right is a result or one line of our errors; a number and a seed reproduce each file.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for part in ("src", "tests", "tests/io", "tests/hub"):
    sys.path.insert(0, str(ROOT / part))
os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import fuzz  # noqa: E402
import gadgets  # noqa: E402
import golden_weights  # noqa: E402
import hostile  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from watch import forbidden, in_time, watched  # noqa: E402

from latentdiff import DiffusionPipeline  # noqa: E402
from latentdiff.conversion.convert import convert_original, save_original  # noqa: E402
from latentdiff.conversion.original import load_original  # noqa: E402
from latentdiff.errors import LatentDiffError  # noqa: E402
from latentdiff.inspection.checkpoint import describe_checkpoint  # noqa: E402
from latentdiff.inspection.folder import describe_folder  # noqa: E402
from latentdiff.inspection.model import describe_pipeline  # noqa: E402

CASES = ("fs_vq_f4", "ldm_uncond")
Door = Callable[[Path], object]


class Watch:
    """Counts what becomes of calls, and prints what must not be.

    Attributes:
        counts: Results ("right", "refused"), and whatever else happened.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def call(self, what: str, door: Door, path: Path, folder: Path) -> object | None:
        """Call a door with a path.

        Args:
            what: The file, for what is printed.
            door: What is called.
            path: What it is given.
            folder: The folder outside of which nothing may be read.

        Returns:
            The result; None if it was refused.
        """
        result = None
        with watched() as events:
            try:
                with in_time():
                    result = door(path)
                self.counts["right"] += 1
            except LatentDiffError as error:
                self.counts["refused"] += 1
                if "\n" in str(error):
                    self.note("errors of several lines", what, error)
            except TimeoutError as error:
                self.note("calls without end", what, error)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.note("exceptions that escaped", what, error)
        for kind, text in forbidden(events, folder):
            self.note(FORBIDDEN[kind], what, text)
        return result

    def note(self, kind: str, what: str, detail: object) -> None:
        """Count and print what must not be."""
        self.counts[kind] += 1
        print(f"{kind}: {what}: {type(detail).__name__} {str(detail)[:300]}", file=sys.stderr, flush=True)


FORBIDDEN = {
    "read": "reads outside of the folder",
    "network": "requests",
    "program": "programs started",
    "run": "code executed",
    "pickle": "classes unpickled",
}
END = 2**14  # bytes at the ends of a large file
RIGHT = ("right", "refused")
NEVER = ("exceptions that escaped", "errors of several lines", "calls without end", *FORBIDDEN.values())


def generate(folder: Path) -> object:
    """Load a pipeline and sample an image of it."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe("a red apple", num_inference_steps=1, seed=0, guidance_scale=1.0, output_type="np").images


def convert_folder(folder: Path) -> object:
    """Convert a pipeline's folder to an original checkpoint."""
    out = folder.parent / "converted.safetensors"
    model = describe_folder(str(folder), None)
    save_original(model.components, out, weights=model.weights)
    return out.unlink()


def convert_checkpoint(path: Path) -> object:
    """Convert an original checkpoint to a folder."""
    return convert_original(path, path.parent / "converted", path.with_name("config.yaml"))


FOLDER_DOORS: dict[str, Door] = {
    "load": DiffusionPipeline.from_pretrained,
    "info": lambda folder: describe_pipeline(str(folder)),
    "convert": convert_folder,
    "generate": generate,
}
CHECKPOINT_DOORS: dict[str, Door] = {
    "read": fuzz.DOORS["read"],
    "load": lambda path: load_original(path, path.with_name("config.yaml")),
    "info": lambda path: describe_checkpoint(str(path)),
    "convert": convert_checkpoint,
}


def damage_json(data: bytes, rng: random.Random) -> bytes:
    """A JSON file with one entry that is changed, missing, or of another kind; bytes are flipped where that fails."""
    wrong = (
        -1,
        0,
        2**31,
        2**63,
        10**30,
        1e300,
        1e-300,
        "x",
        "",
        "../x",
        None,
        [],
        {},
        True,
        [1] * 100,
        {"a": {"b": 1}},
    )
    try:
        values = json.loads(data)
        node, path = values, []
        while isinstance(node, (dict, list)) and node and (not path or rng.random() < 0.6):
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            path.append((node, key))
            node = node[key]
        parent, key = path[-1]
        if rng.random() < 0.2:
            del parent[key]
        elif isinstance(node, (int, float)) and rng.random() < 0.5:
            parent[key] = rng.choice((node * 2, node + 1, -node, node / 3, node * 1000))
        else:
            parent[key] = rng.choice(wrong)
        return json.dumps(values).encode()
    except (ValueError, TypeError, KeyError, IndexError, OverflowError):
        return fuzz.flip(data, rng)


def damage(data: bytes, rng: random.Random, *, is_json: bool) -> bytes:
    """Damage a file by chance, up to three times; of a large one mostly the ends, where its headers are."""
    ends = len(data) if len(data) < 2 * END or rng.random() < 0.1 else END
    head, middle, tail = data[:ends], data[ends : len(data) - END], data[max(ends, len(data) - END) :]
    for _ in range(rng.choice((1, 1, 2, 3))):
        change = damage_json if is_json and rng.random() < 0.8 else rng.choice(fuzz.MUTATIONS)
        if tail and rng.random() < 0.5:
            tail = change(tail, rng) or b"x"
        else:
            head = change(head, rng) or b"x"
    return head + middle + tail


def damage_checkpoints(top: Path, numbers: range, seed: int, watch: Watch) -> None:
    """Damage files of tensors and original checkpoints; of ten, seven are read, one goes through each other door."""
    folder = top / "checkpoints"
    folder.mkdir()
    os.chdir(folder)  # what is removed is opened by its name in a folder that is open
    small = [(content, b"") for content in fuzz.seeds(folder)]
    originals = [form for case in CASES for form in original_forms(case, folder)]
    path, doors = folder / "model.ckpt", list(CHECKPOINT_DOORS)
    for number in numbers:
        rng = random.Random(f"checkpoint {seed} {number}")
        door = doors[max(0, number % 10 - 6)]
        content, yaml = rng.choice(small if door == "read" else originals)
        if yaml and rng.random() < 0.3:
            yaml = damage(yaml, rng, is_json=False)
        else:
            content = damage(content, rng, is_json=False)
        path.write_bytes(content)
        (folder / "config.yaml").write_bytes(yaml)
        watch.counts[f"checkpoints: {door}"] += 1
        watch.call(f"checkpoint {number} of seed {seed} by {door}", CHECKPOINT_DOORS[door], path, folder)
        shutil.rmtree(folder / "converted", ignore_errors=True)


def original_forms(case: str, folder: Path) -> Iterator[tuple[bytes, bytes]]:
    """A small original checkpoint as safetensors, and in both formats of torch.save, each with its YAML."""
    yaml = (golden_weights.GOLDEN / case / "config.yaml").read_bytes()
    checkpoint = golden_weights.write_checkpoint(case, folder)
    yield checkpoint.read_bytes(), yaml
    tensors = load_file(checkpoint)
    checkpoint.unlink()
    for zipped in (True, False):
        torch.save({"state_dict": tensors, "epoch": 3}, folder / "form", _use_new_zipfile_serialization=zipped)
        yield (folder / "form").read_bytes(), yaml


def damage_folders(top: Path, numbers: range, seed: int, watch: Watch) -> None:
    """Damage one file of a model's folder; the doors take turns."""
    model, _ = hostile.make(top)
    files = [path for path in sorted(model.rglob("*")) if path.is_file() and path.name != "README.md"]
    doors = list(FOLDER_DOORS)
    for number in numbers:
        rng = random.Random(f"folder {seed} {number}")
        path = rng.choice(files)
        content = path.read_bytes()
        path.write_bytes(damage(content, rng, is_json=path.suffix == ".json"))
        door = doors[number % len(doors)]
        watch.counts[f"folders: {door}"] += 1
        what = f"folder {number} of seed {seed}, {path.relative_to(model)}, by {door}"
        watch.call(what, FOLDER_DOORS[door], model, model)
        path.write_bytes(content)


def mutations(count: int, seed: int, processes: int) -> Counter[str]:
    """Damage `count` files; nine of ten are checkpoints, which take a thousandth of a second or so each."""
    parts = [(seed, range(first, count, processes)) for first in range(processes)]
    total: Counter[str] = Counter()
    if processes == 1:
        return _damage_part(parts[0])
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for counts in pool.imap_unordered(_damage_part, parts):
            total += counts
    return total


def _damage_part(part: tuple[int, range]) -> Counter[str]:
    seed, numbers = part
    _quiet()
    watch = Watch()
    with tempfile.TemporaryDirectory() as top:
        folders = range(numbers.start, numbers.stop // 10, numbers.step)
        checkpoints = range(numbers.start, numbers.stop - numbers.stop // 10, numbers.step)
        damage_folders(Path(top), folders, seed, watch)
        damage_checkpoints(Path(top), checkpoints, seed, watch)
    return watch.counts


ARRAY = b"\x93NUMPY\1\0\x3a\0{'descr': '|O', 'fortran_order': False, 'shape': (1,)}   \n"  # of objects, by pickle
YAML_PAYLOADS = [
    f"{key}: !!python/{tag}"
    for key in ("model", "target", "params")
    for tag in (
        f"object/apply:os.system ['touch {gadgets.CANARY}']",
        f"object/apply:subprocess.check_output [['touch', '{gadgets.CANARY}']]",
        f"object/new:subprocess.Popen [['touch', '{gadgets.CANARY}']]",
        "object/apply:builtins.eval ['1']",
        "name:os.system ''",
        "module:antigravity ''",
        "object:subprocess.Popen {}",
        "tuple [1, 2]",
        "object/apply:builtins.open ['x', 'w']",
    )
]


def payloads() -> Counter[str]:
    """Open all hostile files through the doors that would read them."""
    from hostile_configs import NETWORKS, TEXT_ENCODER
    from hostile_files import INDEX, LINKS, TOKENIZERS, WEIGHTS

    from latentdiff.config import load_recipe
    from latentdiff.io.arrays import read_values
    from latentdiff.training.recipes import DiffusionRecipe

    _quiet()
    watch = Watch()
    control()
    with tempfile.TemporaryDirectory() as top:
        model, _ = hostile.make(Path(top))
        folder = Path(top) / "files"
        folder.mkdir()
        os.chdir(folder)
        for name, content in gadgets.corpus():
            watch.counts["payloads: pickles"] += 1
            (folder / "model.ckpt").write_bytes(content)
            for door in ("read", "info", "load"):
                watch.call(f"{name} by {door}", CHECKPOINT_DOORS[door], folder / "model.ckpt", folder)
            (folder / "array.npy").write_bytes(ARRAY + content)
            watch.counts["payloads: arrays"] += 1
            watch.call(f"{name} as an array", lambda path: read_values(path, 1), folder / "array.npy", folder)
        for text in YAML_PAYLOADS:
            watch.counts["payloads: YAML"] += 1
            (folder / "config.yaml").write_text(text)
            save_file({"a": torch.ones(1)}, folder / "model.ckpt")
            watch.call(f"{text} as a configuration", CHECKPOINT_DOORS["load"], folder / "model.ckpt", folder)
            watch.call(
                f"{text} as a recipe", lambda path: load_recipe(DiffusionRecipe, path), folder / "config.yaml", folder
            )
        for name, change in {**TEXT_ENCODER, **NETWORKS, **INDEX, **WEIGHTS, **LINKS, **TOKENIZERS}.items():
            watch.counts["payloads: model folders"] += 1
            copy = shutil.copytree(model, Path(top) / "copies" / "model")
            outside = shutil.copytree(model.parent / "outside", copy.parent / "outside")
            change(copy, outside)
            for door, call in FOLDER_DOORS.items():
                watch.call(f"{name} by {door}", call, copy, copy)
            shutil.rmtree(copy.parent)
        for mark in (folder / gadgets.CANARY, Path(top) / "mark"):
            if mark.exists():
                watch.note(FORBIDDEN["run"], "a mark was left", mark)
    return watch.counts


def control() -> None:
    """Make sure that the watch sees what a hostile file would bring about."""
    with watched() as events, suppress(OSError):
        exec(compile("1", "/tmp/evil.py", "exec"))
        Path("/etc/hostname").read_text()
    with watched() as more, suppress(OSError):
        subprocess.run(["true"], check=False)
    seen = {kind for kind, _ in forbidden([*events, *more], ROOT)}
    if not seen >= {"run", "read", "program"}:
        raise SystemExit(f"the watch sees only {sorted(seen)}")


def _quiet() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    torch.manual_seed(0)


def main() -> int:
    """The command line; 1 if something was not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("payloads", "mutations"))
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    began = time.perf_counter()
    counts = payloads() if options.kind == "payloads" else mutations(options.count, options.seed, options.processes)
    for kind in sorted(counts.keys() - set(RIGHT) - set(NEVER)):
        print(f"{kind}: {counts[kind]:,}")
    for kind in (*RIGHT, *NEVER):
        print(f"{kind}: {counts[kind]:,}")
    print(f"{time.perf_counter() - began:.0f} s")
    return int(any(counts[kind] for kind in NEVER))


if __name__ == "__main__":
    sys.exit(main())
