"""Conversions read a tensor when they write it, and refuse what they can't do before they read any."""

import zipfile

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_inpaint, tiny_text_to_image
from twins import Twin, narrow_clip

from latentdiff import DiffusionPipeline, UNet2DConditionModel
from latentdiff.cli.main import main
from latentdiff.conversion import load_original, networks
from latentdiff.conversion.convert import convert_original, describe_original, save_original, to_original
from latentdiff.conversion.to_diffusers import save_diffusers, stock_unet_config
from latentdiff.errors import CheckpointError, ConfigError, InputError
from latentdiff.inspection.folder import describe_folder
from latentdiff.io.checkpoint_writer import write_checkpoint

pytestmark = pytest.mark.thorough


@pytest.fixture(autouse=True)
def small_clip(monkeypatch):
    monkeypatch.setattr(networks, "make_clip", narrow_clip(networks.make_clip))


def poisoned(name, tmp_path):
    """A checkpoint whose every weight is an error to read."""
    twin = Twin(name, ema=False)
    weights = {key: tensor for key, tensor in twin.state.items() if "." in key and tensor.is_floating_point()}
    torch.save(twin.state | {key: tensor * torch.nan for key, tensor in weights.items()}, tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt", twin


@pytest.mark.parametrize("name", ["sd-1", "inpainting_big", "cin256"])
def test_networks_have_no_memory_until_they_are_written(tmp_path, name):
    path, twin = poisoned(name, tmp_path)
    model = describe_original(path, twin.node, ema=False)
    for part in twin.plan.parts:
        assert all(parameter.is_meta for parameter in model.components[part].parameters())
    with pytest.raises(CheckpointError, match="holds values that are not finite"):
        save_original(model.components, tmp_path / "out", weights=model.weights)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.ckpt"]


@pytest.mark.parametrize(
    ("name", "to", "message"),
    [
        ("semantic_synthesis256", "diffusers", "diffusers has no pipeline for semantic-to-image"),
        ("inpainting_big", "diffusers", "heads of one width"),
        ("text2img256", "diffusers", "an eighth of the image's sides"),
        ("rdm768", "latentdiff", "there is no pipeline for retrieval-augmented"),
    ],
)
def test_the_wrong_target_is_refused_before_weights_are_read(tmp_path, name, to, message):
    path, twin = poisoned(name, tmp_path)
    with pytest.raises(ConfigError, match=message):
        if to == "latentdiff":
            convert_original(path, tmp_path / "out", twin.node, ema=False)
        model = describe_original(path, twin.node, ema=False)
        save_diffusers(model.task, model.components, tmp_path / "out", weights=model.weights)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.ckpt"]


def test_an_existing_folder_is_refused_before_weights_are_read(tmp_path):
    path, twin = poisoned("sd-1", tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    model = describe_original(path, twin.node, ema=False)
    for save in (
        lambda: save_original(model.components, tmp_path / "out", weights=model.weights),
        lambda: save_diffusers(model.task, model.components, tmp_path / "out", weights=model.weights),
        lambda: convert_original(path, tmp_path / "out", twin.node, ema=False),
    ):
        with pytest.raises(InputError, match="out exists; choose another output folder, or delete it first"):
            save()
    assert (tmp_path / "out" / "mine").read_text() == "kept"


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("name", ["sd-1", "celeba256", "txt2img-1p4B"])
def test_folders_are_those_of_loaded_models(tmp_path, name, dtype):
    """Streamed from the file, and written from memory: the same files, byte for byte."""
    twin = Twin(name)
    torch.save({"state_dict": twin.state}, tmp_path / "model.ckpt")
    streamed = describe_original(tmp_path / "model.ckpt", twin.node, dtype=dtype)
    loaded = load_original(tmp_path / "model.ckpt", twin.node, dtype=dtype)
    save_diffusers(loaded.task, streamed.components, tmp_path / "a", weights=streamed.weights)
    save_diffusers(loaded.task, loaded.components, tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file())
    for file in files:
        if file.suffix == ".safetensors":
            first, second = load_file(tmp_path / "a" / file), load_file(tmp_path / "b" / file)
            assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        else:
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    save_original(streamed.components, tmp_path / "c", weights=streamed.weights)
    state = torch.load(tmp_path / "c" / "model.ckpt", weights_only=True, mmap=True)["state_dict"]
    _, expected = to_original(loaded.components)
    assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)


def test_a_folder_is_read_as_it_is_written(tmp_path):
    """Ours and a stock one: networks without weights, and the files of a loaded pipeline."""
    folder = tiny_text_to_image(tmp_path)
    model = describe_folder(str(folder), None)
    assert model.task == "text-to-image"
    for name in ("unet", "vae", "text_encoder"):
        assert all(parameter.is_meta for parameter in model.components[name].parameters()), name
    expected = DiffusionPipeline.from_pretrained(folder).components
    for name, weights in model.weights.items():
        state = expected[name].state_dict()
        assert weights.infos.keys() == state.keys()
        assert all(torch.equal(weights.read(key), tensor) for key, tensor in state.items())


def test_a_folder_with_older_names_is_loaded(tmp_path):
    """Attention layers by the names of 2022, which diffusers still reads: the network is loaded whole."""
    folder = tiny_inpaint(tmp_path)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(key):
        for new, name in old.items():
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{name}.")
        return key

    before = load_file(path)
    save_file({renamed(key): tensor for key, tensor in before.items()}, path)
    model = describe_folder(str(folder), None)
    assert "vae" not in model.weights and "unet" in model.weights
    state = model.components["vae"].state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in before.items())


def test_a_folder_without_a_component_is_refused(tmp_path, capsys):
    folder = tiny_inpaint(tmp_path)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    for to in ("original", "diffusers", "latentdiff"):
        assert main(["convert", str(folder), str(tmp_path / "out"), "--to", to]) == 2
        assert "unet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_file_is_a_sound_archive(tmp_path):
    """As torch writes it: storages at multiples of 64 bytes, right checksums, shared tensors stored once."""
    tensors = {
        "a": torch.randn(3, 5),
        "half": torch.randn(7).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }
    layout = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    path = tmp_path / "model.ckpt"
    write_checkpoint(path, layout, tensors.items(), copies={"b": "a"}, metadata={"global_step": 4})
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        data = path.read_bytes()
        for place, tensor in enumerate(tensors.values()):
            if tensor.numel():
                content = archive.read(f"archive/data/{place}")
                assert any(data[start : start + len(content)] == content for start in range(0, len(data), 64))
    for options in ({"mmap": True}, {"mmap": False}):
        content = torch.load(path, weights_only=True, **options)
        assert content["global_step"] == 4 and list(content["state_dict"]) == [*tensors, "b"]
        for name, tensor in {**tensors, "b": tensors["a"]}.items():
            found = content["state_dict"][name]
            assert found.dtype == tensor.dtype and torch.equal(found, tensor)
        assert content["state_dict"]["b"].data_ptr() == content["state_dict"]["a"].data_ptr()
    assert torch.load(path, weights_only=False)["global_step"] == 4
    with pytest.raises(ConfigError, match=r"w is torch\.float8_e4m3fn, which original checkpoints"):
        write_checkpoint(path, [("w", torch.float8_e4m3fn, (1,))], [], copies={}, metadata={})


HEADS = {
    # Heads of the levels, of which those with attention are 8 wide: what levels without say doesn't matter.
    "a level between": ((32, 64, 128), (True, False, True), (4, 3, 16), 8),
    "the first": ((32, 64, 128), (False, True, True), (5, 8, 16), 8),
    "the middle alone": ((32, 64, 128), (False, False, False), (5, 7, 16), 8),
    "all": ((32, 64, 128), (True, True, True), (4, 8, 16), 8),
    "one number": ((32, 32), (False, True), 4, 8),
}


@pytest.mark.parametrize("case", HEADS)
@torch.no_grad()
def test_heads_are_those_of_their_own_level(case):
    """diffusers' UNet2DModel with the configuration, and with our weights, computes what our network does."""
    channels, attends, heads, width = HEADS[case]
    torch.manual_seed(0)
    ours = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=channels,
        attention_levels=attends,
        num_attention_heads=heads,
        layers_per_block=1,
    )
    for parameter in ours.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.1)
    config = stock_unet_config(ours.config)
    assert config["attention_head_dim"] == width
    theirs = diffusers.UNet2DModel.from_config(config)
    theirs.load_state_dict(ours.state_dict())
    sample, steps = torch.randn(2, 4, 16, 16), torch.tensor([3, 700])
    torch.testing.assert_close(theirs(sample, steps).sample, ours(sample, steps).sample, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("heads", [(4, 4, 16), (2, 3, 16)])
def test_heads_of_several_widths_are_refused(heads):
    unet = UNet2DConditionModel(
        block_out_channels=(32, 60, 128),
        attention_levels=(True, False, True),
        num_attention_heads=heads,
        norm_num_groups=4,
    )
    if heads[0] == 4:
        assert stock_unet_config(unet.config)["attention_head_dim"] == 8
        return
    with pytest.raises(ConfigError, match=r"heads of one width, this network has widths \[8, 16\]"):
        stock_unet_config(unet.config)
