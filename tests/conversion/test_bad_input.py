"""What users get wrong: one line that names the component, the first five tensors and what to try; nothing is left."""

import os

import pytest
import torch
import yaml
from golden_weights import GOLDEN, files, state_dict
from safetensors.torch import load_file, save_file

from latentdiff.cli.main import main
from latentdiff.conversion import load_original
from latentdiff.conversion.inventory import compare
from latentdiff.errors import CheckpointError, ConfigError

CHECKPOINT, CONFIG = files("ldm_cin")


@pytest.fixture
def state():
    return load_file(CHECKPOINT)


def refused(capsys, tmp_path, *command):
    """The one line with which the command ends; it leaves nothing beside its input."""
    before = sorted(tmp_path.rglob("*"))
    assert main([*map(str, command)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("latentdiff: error: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    return err


def test_the_first_five_of_each_kind():
    needed = {f"needed.{i}": (2,) for i in range(7)} | {f"shaped.{i}": (2, 3) for i in range(7)}
    there = {f"shaped.{i}": (3, 2) for i in range(7)}
    with pytest.raises(CheckpointError) as caught:
        compare("unet", needed, there, {f"extra.{i}" for i in range(7)})
    assert str(caught.value) == (
        "unet does not fit its config: 7 missing (needed.0, needed.1, needed.2, needed.3, needed.4); "
        "7 misshaped (shaped.0 [3, 2], not [2, 3], shaped.1 [3, 2], not [2, 3], shaped.2 [3, 2], not [2, 3], "
        "shaped.3 [3, 2], not [2, 3], shaped.4 [3, 2], not [2, 3]); "
        "7 unexpected (extra.0, extra.1, extra.2, extra.3, extra.4); give the config of this checkpoint"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("config", ["kl-f8", "celeba256", "sd-2-v", GOLDEN / "ldm_txt2img" / "config.yaml"])
@pytest.mark.parametrize("to", ["latentdiff", "diffusers", "original"])
def test_the_wrong_config(capsys, tmp_path, config, to):
    err = refused(capsys, tmp_path, "convert", CHECKPOINT, tmp_path / "out", "--config", config, "--to", to)
    assert "does not fit its config: " in err and "give the config of this checkpoint" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.diffusion_model.out.2.bias"), "unet does not fit its config: 1 missing"),
        (lambda state: state.update({"first_stage_model.x": torch.ones(1)}), "vae does not .* 1 unexpected"),
        (lambda state: state.update({"y": torch.ones(1)}), "the checkpoint does not .* 1 unexpected"),
        (
            lambda state: state.update({"cond_stage_model.embedding.weight": torch.ones(3, 3)}),
            "class_embedder.* misshaped",
        ),
        (lambda state: state.update(betas=torch.ones(3)), r"betas are 1 to 1 over 3 steps, the config's 0.0015 to"),
        (lambda state: state.update(betas=torch.ones(0)), r"betas are of shape \[0\]"),
        (lambda state: state.update(betas=torch.ones(3, 2, dtype=torch.int64)), r"betas are of shape \[3, 2\]"),
        (
            lambda state: state["model.diffusion_model.out.2.bias"].fill_(torch.nan),
            "out.2.bias holds values that are not",
        ),
    ],
)
def test_tensors_that_do_not_fit(state, change, message):
    change(state)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_original(state, CONFIG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [torch.ones(2), torch.tensor(0.0), torch.tensor(-1.0), None])
def test_stored_scales_that_are_none(scale):
    state = state_dict("ldm_churches")
    state.pop("scale_factor")
    state |= {} if scale is None else {"scale_factor": scale}
    with pytest.raises(CheckpointError, match="scale_factor"):
        load_original(state, GOLDEN / "ldm_churches" / "config.yaml")


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["model.safetensors", "model.ckpt", "legacy.ckpt"])
@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.999])
def test_truncated_files(capsys, tmp_path, state, form, left):
    path = tmp_path / form
    if form.endswith(".safetensors"):
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=form == "model.ckpt")
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data))])
    for command in (["convert", path, tmp_path / "out", "--config", CONFIG], ["info", path]):
        assert str(path) in refused(capsys, tmp_path, *command)


def test_aliases_in_a_config(tmp_path):
    """A few hundred bytes that would be printed as billions."""
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    config = yaml.safe_load(CONFIG.read_text())
    config["model"]["params"]["linear_end"] = "END"
    text = "\n".join([*lines, yaml.safe_dump(config).replace("END", "*a59")])
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"repeats values by alias"):
        load_original(CHECKPOINT, tmp_path / "config.yaml")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 2_000, "is not YAML"),
        (b"model: {target: [", "is not YAML"),
        (b"model: 3", "has no model with a target"),
        (b"model: {target: evil.Model, params: {}}", "the model has the class 'Model'"),
        (b"!!python/object/apply:os.system ['touch canary']", "is not YAML"),
    ],
)
def test_configs_that_are_none(capsys, tmp_path, content, message):
    (tmp_path / "config.yaml").write_bytes(content)
    config = tmp_path / "config.yaml"
    assert message in refused(capsys, tmp_path, "convert", CHECKPOINT, tmp_path / "out", "--config", config)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("unet_config", "num_res_blocks"), 10**8, "num_res_blocks is 100000000; it must be a whole number from 1 to"),
        (("unet_config", "num_res_blocks"), 0, "num_res_blocks is 0"),
        (("unet_config", "channel_mult"), [1] * 33, "channel_mult has 33 entries; at most 32"),
        (("unet_config", "transformer_depth"), 10**6, "transformer_depth is 1000000"),
        (("unet_config", "context_dim"), "wide", "context_dim is 'wide'"),
        (("unet_config", "num_heads"), 2**70, "num_attention_heads is 1180591620717411303424"),
        (("unet_config", "dropout"), "x", "dropout is 'x'; it must be a number"),
        (("cond_stage_config", "embed_dim"), [1], r"embed_dim is \[1\]"),
        (("cond_stage_config", "n_classes"), 10**12, "n_classes is 1000000000000"),
    ],
)
def test_numbers_that_no_model_has(place, value, message):
    """They would take forever, or all memory, to make a network of."""
    config = yaml.safe_load(CONFIG.read_text())
    node, name = place
    config["model"]["params"][node]["params"][name] = value
    with pytest.raises(ConfigError, match=message) as caught:
        load_original(CHECKPOINT, config)
    assert "\n" not in str(caught.value)


def test_configs_that_are_not_read(tmp_path):
    """A pipe, which may never end, a folder, a mistyped name, and more than any model's."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "config.yaml").write_text("#" * 2**20 + "#")
    for name, message in (
        ("pipe.yaml", "it is a pipe, and only files on a disk are read"),
        ("confg.yaml", "no such file: .*; did you mean 'config.yaml'"),
        ("config.yaml", "it has 1048577 characters; at most 1048576 are read"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_original(CHECKPOINT, tmp_path / name)


@pytest.mark.parametrize("to", ["latentdiff", "diffusers", "original"])
def test_an_output_folder_that_is_there(capsys, tmp_path, to):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    err = refused(capsys, tmp_path, "convert", CHECKPOINT, tmp_path / "out", "--config", CONFIG, "--to", to)
    assert "out exists; choose another output folder, or delete it first" in err


@pytest.mark.thorough
@pytest.mark.parametrize("wrapper", ["module.", "_forward_module.", "module._orig_mod."])
def test_names_that_a_wrapper_of_several_devices_left(state, tmp_path, wrapper):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {wrapper + name: tensor for name, tensor in state.items()}}, path)
    wrapped, plain = load_original(path, CONFIG).components["unet"], load_original(state, CONFIG).components["unet"]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, wrapped.state_dict()[name])
    first, *others = state
    torch.save({first: state[first], **{wrapper + name: state[name] for name in others}}, path)
    with pytest.raises(CheckpointError, match=r"does not fit its config"):
        load_original(path, CONFIG)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.uint8])
def test_weights_of_whole_numbers(state, dtype):
    name = "model.diffusion_model.out.2.bias"
    with pytest.raises(CheckpointError, match=rf"out\.2\.bias is of {dtype}, as quantised weights are"):
        load_original({**state, name: state[name].to(dtype)}, CONFIG)
    assert load_original({**state, name: state[name].half()}, CONFIG)


def test_an_output_that_is_a_link_to_nowhere(capsys, tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    assert "out exists; choose another output folder" in refused(
        capsys, tmp_path, "convert", CHECKPOINT, tmp_path / "out"
    )
    assert (tmp_path / "out").is_symlink()
