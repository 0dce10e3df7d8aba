"""The models that ship, one for each task: together small, of one first stage, whole when saved, and they listen."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from latentdiff import CheckpointError, DiffusionPipeline
from latentdiff.cli.batch import make
from latentdiff.cli.main import main
from latentdiff.cli.options import ModelOptions
from latentdiff.hub.find import SHARED, builtin_folder, builtin_models, weights_of_folder
from latentdiff.inspection.model import describe_pipeline
from latentdiff.tasks import TASKS, task_of_pipeline
from latentdiff.training.first_stage.autoencoder import load_first_stage

LARGEST = 36e6  # bytes of all together
STEPS = ("--steps", "4", "--seed", "0")
NAMES = sorted(builtin_models())
SHARING = [name for name in NAMES if name != "builtin:emoji"]


def test_every_task_with_a_command_has_its_model():
    assert {*NAMES} == {spec.builtin for spec in TASKS.values() if spec.command}


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def weights(pipe):
    return {
        f"{name}.{key}": tensor
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
        for key, tensor in part.state_dict().items()
    }


def test_each_is_that_of_a_task_and_all_together_are_small():
    assert {*NAMES} <= {spec.builtin for spec in TASKS.values()}
    assert sum(path.stat().st_size for folder in builtin_models().values() for path in files_of(folder)) <= LARGEST


@pytest.mark.parametrize("name", SHARING)
def test_a_card_says_what_it_is_and_how_good(name):
    card = (builtin_folder(name) / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("apache-2.0", "Noto", "recipes/emoji", "## Figures", "## Limits", f"# {name}"))


@pytest.mark.parametrize("name", SHARING)
def test_it_has_the_first_stage_of_another_and_is_whole_when_saved(name, tmp_path):
    folder = builtin_folder(name)
    assert json.loads((folder / SHARED).read_text()) == {"vae": "emoji"} and not (folder / "vae").exists()
    pipe = DiffusionPipeline.from_pretrained(name)
    assert task_of_pipeline(type(pipe).__name__).builtin == name
    shared = load_first_stage(name).state_dict()
    assert all(torch.equal(tensor.float(), shared[key]) for key, tensor in pipe.vae.state_dict().items())
    pipe.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.rglob(SHARED)) and (tmp_path / "saved" / "vae" / "config.json").is_file()
    saved = weights(DiffusionPipeline.from_pretrained(tmp_path / "saved"))
    assert saved.keys() == weights(pipe).keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in weights(pipe).items())


@pytest.mark.parametrize("name", SHARING[:1])
def test_what_is_shared_counts_where_models_are_told_apart_and_described(name, tmp_path):
    alone = shutil.copytree(builtin_folder(name), tmp_path / "model")
    assert weights_of_folder(name) != weights_of_folder(str(alone))
    shutil.copytree(builtin_folder("builtin:emoji", "vae"), alone / "vae")
    assert weights_of_folder(name) == weights_of_folder(str(alone))
    assert describe_pipeline(name) == describe_pipeline(str(alone))


@pytest.mark.parametrize("name", SHARING[:1])
def test_no_other_folder_can_share(name, tmp_path):
    alone = shutil.copytree(builtin_folder(name), tmp_path / "model")
    shutil.copytree(builtin_folder("builtin:emoji"), tmp_path / "emoji")
    with pytest.raises(CheckpointError, match="lacks the component 'vae'"):
        DiffusionPipeline.from_pretrained(alone)


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A folder with what each command is given."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save("small.png")
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save("photo.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    Image.fromarray(mask).save("mask.png")
    Image.fromarray((mask > 0).astype(np.uint8)).save("map.png")
    box = {"class": "apple", "box": [0.1, 0.1, 0.5, 0.5]}
    (tmp_path / "boxes.json").write_text(json.dumps({"objects": [box]}), encoding="utf-8")
    return tmp_path


COMMANDS = {
    "sample": (["-n", "1", "-o", "out.png"], 64),
    "class": (["rocket", "-o", "out.png"], 64),
    "layout": (["boxes.json", "-o", "out.png"], 64),
    "semantic": (["map.png", "-o", "out.png"], 64),
    "upscale": (["small.png", "-o", "out.png"], 64),
    "inpaint": (["photo.png", "--mask", "mask.png", "-o", "out.png"], 64),
}


@pytest.mark.parametrize("command", [spec.command for spec in TASKS.values() if spec.builtin in SHARING])
def test_a_command_runs_without_a_model(inputs, command):
    argv, side = COMMANDS[command]
    assert main([command, *argv, *STEPS]) == 0
    assert Image.open("out.png").size == (side, side)
    shown = Image.open("out.png").text
    assert f"builtin:emoji-{'unconditional' if command == 'sample' else command}" in str(shown)


def test_a_command_whose_model_the_package_lacks_needs_one(monkeypatch):
    assert make.model_options("text-to-image")().model == "builtin:emoji"
    monkeypatch.setattr(make, "builtin_models", dict)
    assert make.model_options("text-to-image") is ModelOptions


def test_a_class_that_the_built_in_model_lacks(inputs, capsys):
    assert main(["class", "rockett", *STEPS]) == 2
    assert "did you mean 'rocket'" in capsys.readouterr().err
