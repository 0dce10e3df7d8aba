"""Every family of the zoo, as a small twin: to a latentdiff folder and back to the original, byte for byte."""

import importlib
import json

import pytest
import torch
import yaml
from safetensors.torch import save_file
from twins import Twin, narrow_clip

from latentdiff.cli.main import main
from latentdiff.conversion import load_original, networks
from latentdiff.conversion.convert import convert_original, save_original, to_original
from latentdiff.conversion.zoo import ONE_NETWORK, zoo_names
from latentdiff.io.tensor_files import open_tensors
from latentdiff.tasks import TASKS

pytestmark = pytest.mark.thorough

SAME = {name for group in ONE_NETWORK for name in sorted(group)[1:]}  # as the first of their group
NAMES = [name for name in zoo_names() if name not in SAME]


@pytest.fixture(autouse=True)
def small_clip(monkeypatch):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip, vocab_size=60))


def components(twin, path, folder):
    """Those of the folder that the checkpoint is converted to; of what has no pipeline, those of the checkpoint."""
    if twin.plan.task is not None and twin.plan.task not in TASKS:
        return load_original(path, twin.node).components
    convert_original(path, folder, twin.node)
    if twin.plan.task is None:
        return {"vae": type(twin.plan.parts["vae"].model).from_pretrained(folder)}
    index = json.loads((folder / "model_index.json").read_text())
    classes = {name: entry for name, entry in index.items() if isinstance(entry, list)}
    return {
        name: getattr(importlib.import_module(library), class_name).from_pretrained(folder / name)
        for name, (library, class_name) in classes.items()
    }


def check(twin, back):
    assert set(back) == set(twin.kept)
    for key, tensor in twin.kept.items():
        found = back[key].detach()
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape), key
        assert found.numpy().tobytes() == tensor.numpy().tobytes(), key


@pytest.mark.parametrize("name", NAMES)
def test_bytes_come_back(tmp_path, name):
    """Averaged weights out of Lightning's file into a folder, and back into such a file."""
    twin = Twin(name)
    torch.save({"state_dict": twin.state, "global_step": 7, "epoch": 1}, tmp_path / "model.ckpt")
    save_original(components(twin, tmp_path / "model.ckpt", tmp_path / "ours"), tmp_path / "back")
    back = open_tensors(tmp_path / "back" / "model.ckpt")
    check(twin, {key: back.read(key) for key in back.keys()})  # noqa: SIM118
    if "scale_factor" in twin.state:
        config = yaml.safe_load((tmp_path / "back" / "config.yaml").read_text())
        assert torch.tensor(config["model"]["params"]["scale_factor"]) == twin.state["scale_factor"]


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_half_precision_come_back(tmp_path, name):
    """Raw weights out of safetensors in half precision, the noise schedule included, as they are passed around."""
    twin = Twin(name, ema=False, dtype=torch.float16)
    halves = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in twin.state.items()}
    save_file({key: tensor.clone() for key, tensor in halves.items()}, tmp_path / "model.safetensors")
    loaded = load_original(tmp_path / "model.safetensors", twin.node, ema=False, dtype=None)
    check(twin, to_original(loaded.components)[1])


@pytest.mark.parametrize("name", ["celeba256", "sd-1", "layout2img-openimages256", "kl-f8", "vq-f4-noattn"])
def test_commands(tmp_path, name):
    """There and back by the command line alone, from half precision, which stays as it is."""
    twin = Twin(name, ema=False, dtype=torch.float16)
    source, ours, back = (str(tmp_path / step) for step in ("model.ckpt", "ours", "back"))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": twin.node}))
    torch.save(twin.state, source)
    assert main(["convert", source, ours, "--config", str(tmp_path / "config.yaml"), "--no-ema"]) == 0
    assert main(["convert", ours, back, "--to", "original"]) == 0
    file = open_tensors(tmp_path / "back" / "model.ckpt")
    check(twin, {key: file.read(key) for key in file.keys()})  # noqa: SIM118
