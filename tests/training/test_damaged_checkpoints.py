"""Checkpoints that are damaged in any way, and agree with their manifest: one line, and nothing is taken over."""

import copy
import json
import math
import random
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_run import BASE, Denoise, items, run

from latentdiff import CheckpointError, ConfigError
from latentdiff.config import load_recipe
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.checkpoint import AVERAGES_FILE, MANIFEST, MOMENTS_FILE, NUMBERS_FILE, WEIGHTS_FILE
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.log import Log
from latentdiff.training.engine.optimizers import make_optimizer
from latentdiff.training.engine.session import Session, make_accelerator
from latentdiff.training.engine.state import State
from latentdiff.training.recipes import Recipe

pytestmark = pytest.mark.thorough

ODD = [None, "x", "", -1, 0, 0.5, True, 2**70, 1e308, math.inf, math.nan, [], {}, [1], {"x": 1}, "checkpoint-4"]


class World:
    """A checkpoint, and what would go on from it.

    Args:
        folder: That of the run.
    """

    def __init__(self, folder):
        self.recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(folder), "max_train_steps": 4})
        self.accelerator = make_accelerator(self.recipe)
        run(folder, max_train_steps=4)
        self.folder = folder / "checkpoint-4"
        self.sound = {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def mend(self):
        for name, content in self.sound.items():
            (self.folder / name).write_bytes(content)

    def sign(self):
        """Have the manifest say that the files are as they should be."""
        names = sorted(checkpoint.FILES - {MANIFEST})
        files = {name: checkpoint._fingerprint(self.folder / name) for name in names if (self.folder / name).exists()}
        (self.folder / MANIFEST).write_text(json.dumps({"files": files}))

    def resume(self):
        """Go on from the checkpoint as a run does, and make a step."""
        task = Denoise()
        optimizer = make_optimizer(task.parameters(), self.recipe.optimizer)
        log = Log(Session(self.recipe, self.accelerator, self.folder))
        state = State(task, EMA(task, 0.9), optimizer, log, self.recipe, self.accelerator, items=len(items()))
        before = copy.deepcopy(task.state_dict())
        try:
            state.load(checkpoint.resolve(self.folder.parent, str(self.folder)))
        except (CheckpointError, ConfigError) as error:
            assert "\n" not in str(error) and all(
                torch.equal(before[n], value) for n, value in task.state_dict().items()
            )
            return error
        for parameter in task.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.update({"loss": 1.0, "grad_norm": 1.0})
        assert state.is_finite() and state.step == 5
        json.dumps(log.state())
        return None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def mutate_bytes(rng, content):
    """Cut off, changed, longer, or something else."""
    kind = rng.randrange(5)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 2:
        place = rng.randrange(len(content))
        return content[:place] + rng.randbytes(rng.randrange(1, 64)) + content[place:]
    if kind == 3:
        return rng.choice([b"", b"\0" * 100, b"null", b"[" * 10**5, b"{}", b"PK\3\4", rng.randbytes(200)])
    first, second = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:first] + content[second:]


def places(value, found=()):
    """All places in nested values."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        yield (*found, key)
        yield from places(inner, (*found, key))


def mutate_values(rng, values):
    """Nested values with an odd one among them, one less, or one more."""
    *way, last = rng.choice(list(places(values)))
    inner = values
    for key in way:
        inner = inner[key]
    kind = rng.randrange(4)
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(inner, dict):
        inner[rng.choice(["x", 7, -1])] = inner[last]
    else:
        inner[last] = copy.deepcopy(rng.choice(ODD))


def mutate_tensor(rng, tensors, name):
    """Another shape, type or name, a value that is no number, or no tensor."""
    value = tensors[name]
    changes = [
        value.double,
        value.long,
        lambda: value.flatten()[:-1] if value.dim() else value[None],
        lambda: value[None],
        lambda: value.t().contiguous() if value.dim() == 2 else value.repeat(2, 2),
        lambda: torch.full_like(value, math.nan),
        lambda: torch.full_like(value, math.inf),
        lambda: torch.zeros(0),
        lambda: value.to_sparse() if value.dim() == 2 else value.to(torch.complex64),
    ]
    tensors[rng.choice([name, name, name, "x"])] = rng.choice(changes)()


def mutate(rng, world):
    """Damage one file of the checkpoint; the manifest agrees in most cases."""
    name = rng.choice([WEIGHTS_FILE, AVERAGES_FILE, MOMENTS_FILE, NUMBERS_FILE, NUMBERS_FILE, MANIFEST])
    path, deep = world.folder / name, rng.random() < 0.7
    if not deep:
        path.write_bytes(mutate_bytes(rng, world.sound[name]))
    elif name in (NUMBERS_FILE, MANIFEST):
        values = json.loads(world.sound[name])
        mutate_values(rng, values)
        path.write_text(json.dumps(values))
    elif name == MOMENTS_FILE:
        moments = torch.load(path, weights_only=True)
        if rng.random() < 0.5:
            mutate_values(rng, moments)
        else:
            values = moments["state"][rng.randrange(4)]
            mutate_tensor(rng, values, rng.choice(list(values)))
        torch.save(moments, path)
    else:
        tensors = load_file(path)
        mutate_tensor(rng, tensors, rng.choice(list(tensors)))
        save_file({key: value.clone() for key, value in tensors.items() if not value.is_sparse}, path)
    if name != MANIFEST:
        world.sign()


@pytest.mark.parametrize("count", [400, pytest.param(3000, marks=pytest.mark.slow)])
def test_whatever_is_wrong_with_a_checkpoint_is_one_line(world, count):
    rng, refused = random.Random(0), 0
    assert world.resume() is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(count):
            world.mend()
            mutate(rng, world)
            refused += world.resume() is not None
    world.mend()
    assert world.resume() is None
    print(f"{count} damaged checkpoints, {refused} refused, the others were harmless")
    assert refused > 0.8 * count


def changed(world, **values):
    (world.folder / NUMBERS_FILE).write_text(json.dumps({**json.loads(world.sound[NUMBERS_FILE]), **values}))


def written(world, name, content):
    (world.folder / name).write_bytes(content)


def renamed(world, old, new):
    tensors = load_file(world.folder / WEIGHTS_FILE)
    tensors[new] = tensors.pop(old)
    save_file(tensors, world.folder / WEIGHTS_FILE)


def reshaped(world):
    tensors = load_file(world.folder / AVERAGES_FILE)
    save_file({name: value[None] for name, value in tensors.items()}, world.folder / AVERAGES_FILE)


def not_finite(world):
    tensors = load_file(world.folder / WEIGHTS_FILE)
    save_file({name: value / 0 for name, value in tensors.items()}, world.folder / WEIGHTS_FILE)


CASES = {
    "a step that is no number": (lambda world: changed(world, step=math.nan), "step"),
    "a step of another checkpoint": (lambda world: changed(world, step=5), "state.json is of step 5"),
    "a step in a text": (lambda world: changed(world, step="4"), "step"),
    "JSON that is a list": (
        lambda world: written(world, NUMBERS_FILE, b"[4]"),
        "checkpoint-4 cannot be resumed",
    ),
    "JSON that is cut off": (lambda world: written(world, NUMBERS_FILE, b'{"step": 4'), "cannot be resumed"),
    "a weight of another name": (lambda world: renamed(world, "net.0.bias", "net.0.b"), "has also net.0.b"),
    "averages of another shape": (reshaped, r"ema.safetensors has net.0.bias as \[1, 32\] torch.float32, where"),
    "weights that are not finite": (not_finite, "model.safetensors has net.0.bias with values that are not finite"),
    "moments that are cut off": (
        lambda world: written(world, MOMENTS_FILE, b"PK\3\4"),
        "cannot be resumed",
    ),
    "moments of nothing": (lambda world: torch.save({}, world.folder / MOMENTS_FILE), "cannot be resumed"),
    "weights that are a picture": (
        lambda world: written(world, WEIGHTS_FILE, b"\x89PNG\r\n"),
        "cannot be res",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_that_is_not_what_it_says_is_refused(world, case):
    damage, line = CASES[case]
    damage(world)
    world.sign()
    try:
        with pytest.raises(CheckpointError, match=line) as caught:
            raise world.resume()
        assert str(caught.value).endswith("; use another") and "\n" not in str(caught.value)
    finally:
        world.mend()
