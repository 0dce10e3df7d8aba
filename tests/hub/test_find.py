"""What a name stands for: a folder that is missing is said to be missing, and never looked up on the hub."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hostile import make
from loopback_hub import OWNER
from tiny import tiny_unconditional

from latentdiff import AutoPipeline, CheckpointError, ConfigError, DiffusionPipeline, HubError
from latentdiff.cli.main import main
from latentdiff.hub.find import is_hub_id
from latentdiff.hub.tokenizers import load_tokenizer_folder
from latentdiff.inspection.folder import load_folder
from latentdiff.inspection.model import describe_pipeline
from latentdiff.models.tokenizer import clip_tokenizer
from latentdiff.training.first_stage.autoencoder import load_first_stage

MISSING = ("runs/x", "runs/x/vae", "./vae", "../vae", "/nowhere/vae", "~/vae", "a/b/c", "runs\\x")


@pytest.fixture
def here(hub, tmp_path, monkeypatch):
    """A folder to work in, which has a folder `runs`, and a hub that has all that is asked for."""
    place = tmp_path / "here"
    (place / "runs").mkdir(parents=True)
    monkeypatch.chdir(place)
    model = tiny_unconditional(tmp_path)
    hub.add("runs/x", model)
    return hub


DOORS = {
    "load": DiffusionPipeline.from_pretrained,
    "load for a task": lambda name: AutoPipeline.from_pretrained(name, task="image-to-image"),
    "describe": describe_pipeline,
    "convert": lambda name: load_folder(name, None),
    "first stage": load_first_stage,
    "tokenizer": load_tokenizer_folder,
}


@pytest.mark.thorough
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", MISSING)
def test_a_missing_folder(here, door, name):
    with pytest.raises((ConfigError, CheckpointError)) as caught:
        DOORS[door](name)
    line = str(caught.value)
    assert "\n" not in line and (f"no such folder {name}" in line or f"unknown model {name!r}: no such folder" in line)
    assert not here.requests
    assert ("isn't looked for on the hub" in line) == (name == "runs/x")


def test_a_path_is_never_a_name_on_the_hub(here, tmp_path):
    for name in (Path("runs/x"), Path("owner/name"), tmp_path / "nothing"):
        with pytest.raises(ConfigError, match=f"no such folder {name}"):
            DiffusionPipeline.from_pretrained(name)
    assert not here.requests


@pytest.mark.parametrize(
    "command", [["info", "runs/x"], ["convert", "runs/x", "out"], ["generate", "a", "--model", "runs/x"]]
)
def test_commands(here, command, capsys):
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "no such folder runs/x; " in line
    assert not here.requests


def test_a_recipe_whose_first_stage_has_yet_to_be_trained(here):
    with pytest.raises(CheckpointError, match=r"no such folder runs/x/vae; train the first stage first"):
        load_first_stage("runs/x/vae")
    assert not here.requests


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("owner/name", True),
        ("owner/name.v2-x_1", True),
        ("runs/x", False),
        ("owner/", False),
        ("/name", False),
        ("./name", False),
        ("~/name", False),
        ("owner/name/more", False),
        ("name", False),
        ("", False),
        ("C:/name", False),
        ("a\\b/c", False),
    ],
)
def test_names_of_the_hub(here, name, expected):
    assert is_hub_id(name) == expected


def test_a_name_of_the_hub_is_asked_for(here):
    here.add(f"{OWNER}/tiny", next(here.cache.parent.glob("unconditional")))
    assert DiffusionPipeline.from_pretrained(f"{OWNER}/tiny").unet
    assert here.requests
    with pytest.raises(HubError, match="shows no model"):
        DiffusionPipeline.from_pretrained(f"{OWNER}/nothing")


def test_a_first_stage_on_the_hub(here, tmp_path):
    vae = tmp_path / "unconditional" / "vae"
    here.add(f"{OWNER}/vae", vae)
    found, stored = load_first_stage(f"{OWNER}/vae"), load_first_stage(str(vae))
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in stored.state_dict().items())
    assert not here.asked("GET", ".bin")
    with pytest.raises(HubError, match="shows no model"):
        load_first_stage(f"{OWNER}/nothing")


def test_a_first_stage_in_a_pipeline_on_the_hub(here, tmp_path):
    here.add(f"{OWNER}/tiny", tmp_path / "unconditional")
    found, stored = load_first_stage(f"{OWNER}/tiny"), load_first_stage(str(tmp_path / "unconditional" / "vae"))
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in stored.state_dict().items())
    assert not here.asked("GET", "unet/")


def test_a_first_stage_in_the_package():
    found, pipe = load_first_stage("builtin:emoji"), DiffusionPipeline.from_pretrained("builtin:emoji")
    assert all(torch.equal(tensor, pipe.vae.state_dict()[name]) for name, tensor in found.state_dict().items())
    with pytest.raises(ConfigError, match=r"unknown model 'builtin:emojis'; did you mean 'builtin:emoji'"):
        load_first_stage("builtin:emojis")


def test_a_first_stage_that_is_another_component(tmp_path):
    model = tiny_unconditional(tmp_path)
    with pytest.raises(CheckpointError, match="is a UNet2DConditionModel, no first stage"):
        load_first_stage(str(model / "unet"))
    with pytest.raises(CheckpointError, match="holds one; give"):
        load_first_stage(str(model))
    with pytest.raises(CheckpointError, match="is a file"):
        load_first_stage(str(model / "model_index.json"))


@pytest.mark.thorough
def test_tokenizers_by_themselves(here, tmp_path):
    clip_tokenizer().save_pretrained(tmp_path / "clip")
    here.add(f"{OWNER}/clip", tmp_path / "clip")
    for name in (str(tmp_path / "clip"), f"{OWNER}/clip"):
        tokenizer = load_tokenizer_folder(name)
        assert tokenizer("a red apple")["input_ids"] == clip_tokenizer()("a red apple")["input_ids"]


@pytest.mark.parametrize(
    "entries",
    [
        {"auto_map": {"AutoTokenizer": ["code.Net", None]}},
        {"tokenizer_class": "BertJapaneseTokenizer"},
        {"vocab": "/etc/passwd"},
        {"gguf_file": "evil.gguf"},
    ],
)
def test_tokenizers_that_reach_out(tmp_path, entries):
    model, _ = make(tmp_path)
    path = model / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    with pytest.raises(CheckpointError):
        load_tokenizer_folder(str(path.parent))


def test_a_recipe_whose_first_stage_reaches_out(tmp_path):
    model, outside = make(tmp_path)
    for change in ({"quantization_config": {"quant_method": "bitsandbytes"}}, {"layers_per_block": 10**12}):
        vae = shutil.copytree(model / "vae", tmp_path / "vae", dirs_exist_ok=True)
        values = json.loads((vae / "config.json").read_text()) | change
        (vae / "config.json").write_text(json.dumps(values))
        with pytest.raises(CheckpointError) as caught:
            load_first_stage(str(vae))
        assert "\n" not in str(caught.value)
    shutil.copy(model / "vae" / "config.json", vae / "config.json")
    (vae / "diffusion_pytorch_model.safetensors").unlink()
    (vae / "diffusion_pytorch_model.safetensors").symlink_to(outside / "vae" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match="leads out of the model's folder"):
        load_first_stage(str(vae))
