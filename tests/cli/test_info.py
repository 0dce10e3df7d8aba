import json
import math
import os
import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from latentdiff import NoisyLatentClassifier, TextToImagePipeline, TinyDecoder
from latentdiff.cli.main import main
from latentdiff.errors import CheckpointError
from latentdiff.hub.component_folder import ComponentFolder
from latentdiff.inspection.model import KINDS
from latentdiff.io.generated import write_image
from latentdiff.io.headers import read_header
from latentdiff.registry import PIPELINES
from latentdiff.tasks import task_of_pipeline

CLASSIFIER = {"sample_size": 8, "num_classes": 3, "block_out_channels": (8, 8), "layers_per_block": 1}
CLASSIFIER |= {"attention_levels": (False, True), "num_head_channels": 8, "norm_num_groups": 8}


@pytest.fixture
def copied(text_model, tmp_path):
    return shutil.copytree(text_model, tmp_path / "model")


def described(run, target):
    code, out, err = run("info", target, "--json")
    assert (code, err) == (0, [])
    return json.loads("\n".join(out))


def test_a_text_to_image_model(run, text_model):
    facts = described(run, text_model)
    pipeline = TextToImagePipeline.from_pretrained(text_model)
    assert facts["pipeline"] == "TextToImagePipeline"
    assert facts["task"] == "text-to-image"
    assert facts["resolution"] == [16, 16]
    assert facts["latent_shape"] == [4, 8, 8]
    assert facts["context_width"] == 16
    parts = facts["components"]
    networks = {name: getattr(pipeline, name) for name in ("unet", "vae", "text_encoder")}
    for name, network in networks.items():
        assert parts[name]["parameters"] == sum(p.numel() for p in network.parameters())
        assert parts[name]["dtype"] == "float32"
    assert facts["parameters"] == sum(parts[name]["parameters"] for name in networks)
    assert parts["unet"]["class"] == "latentdiff.UNet2DConditionModel"
    assert parts["scheduler"]["beta_schedule"] == "scaled_linear"
    assert parts["scheduler"]["prediction_type"] == "epsilon"


def test_the_same_as_text(run, unconditional_model):
    code, out, _ = run("info", unconditional_model)
    assert code == 0
    assert out[:2] == ["pipeline: UnconditionalPipeline", "task: unconditional"]
    assert "  scheduler:" in out
    assert "    beta schedule: scaled_linear" in out
    assert not any("None" in line for line in out)


def test_one_component(run, text_model):
    facts = described(run, f"{text_model}/vae")
    assert facts["class"] == "AutoencoderKL"
    assert facts["latent_channels"] == 4


def test_what_a_component_is_for_is_said(run, text_model, tmp_path):
    assert described(run, f"{text_model}/vae")["kind"] == "a first stage"
    TinyDecoder(block_out_channels=(8, 8), layers_per_block=1).save_pretrained(tmp_path / "decoder")
    NoisyLatentClassifier(**CLASSIFIER).save_pretrained(tmp_path / "classifier")
    facts = described(run, "decoder")
    assert (facts["kind"], facts["class"]) == (KINDS["TinyDecoder"], "TinyDecoder") and facts["parameters"] > 0
    assert "pipe.set_decoder" in facts["kind"] and "guidance" in described(run, "classifier")["kind"]
    assert "kind" not in described(run, f"{text_model}/unet")


def test_the_folder_of_a_run_is_what_it_has_made(run, fails, tmp_path):
    """Of a run that has made no pipeline and no first stage."""
    decoder = TinyDecoder(block_out_channels=(8, 8), layers_per_block=1)
    decoder.save_pretrained(tmp_path / "run" / "decoder")
    fails("no model_index.json", "info", "run")  # it is no run
    (tmp_path / "run" / "log.jsonl").touch()
    assert described(run, "run") == described(run, "run/decoder")


def write_latents(folder, stamp, name):
    folder.mkdir()
    np.save(folder / "moments.npy", np.zeros((6, 8, 4, 4), np.float16))
    (folder / name).write_text(json.dumps(stamp))


LATENTS = {"first_stage": "abc", "images": "def", "random_flip": True, "precision": "float32"}


def test_latents_are_told(run, tmp_path):
    write_latents(tmp_path / "latents", {**LATENTS, "bad": {"1": "it is empty"}}, "meta.json")
    facts = described(run, "latents")
    assert facts["kind"].startswith("latents,") and facts["bytes"] > 6 * 8 * 4 * 4 * 2
    found = [facts[name] for name in ("rows", "shape", "random_flip", "precision", "images_that_cannot_be_decoded")]
    assert found == [6, [8, 4, 4], True, "float32", 1] and facts["first_stage"] == "abc"
    code, out, _ = run("info", "latents")
    assert code == 0 and "images that cannot be decoded: 1" in out and not any("None" in line for line in out)


def test_unfinished_latents_are_told(run, tmp_path):
    write_latents(tmp_path / "latents.partial", {**LATENTS, "shard": 256}, "plan.json")
    (tmp_path / "latents.partial" / "shards").mkdir()
    (tmp_path / "latents.partial" / "shards" / "0.json").write_text("{}")
    facts = described(run, "latents.partial")
    assert (facts["kind"], facts["rows"], facts["shards_done"]) == ("unfinished latents", 6, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "moments.npy", 100),
        lambda folder: np.save(folder / "moments.npy", np.float16(1)),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "meta.json").write_text(json.dumps(LATENTS)),
        lambda folder: (folder / "meta.json").write_text(json.dumps({**LATENTS, "bad": 5})),
    ],
)
def test_damaged_latents_are_one_line(fails, tmp_path, damage):
    write_latents(tmp_path / "latents", {**LATENTS, "bad": {}}, "meta.json")
    damage(tmp_path / "latents")
    fails("latents holds damaged latents; remove the folder, and make them again", "info", "latents")


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\ntags: [a]\nlicense: mit\n---\n# Card\n", "mit"),
        ("# Card\nlicense: mit\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\n- a\n---\n", None),
    ],
)
def test_the_licence_is_read_from_the_model_card(run, copied, card, license):
    (copied / "README.md").write_text(card)
    assert described(run, copied)["license"] == license


def test_every_task_is_told_from_its_class():
    for task in PIPELINES.names():
        assert task_of_pipeline(PIPELINES.get(task).__name__).name == task
    assert task_of_pipeline("StableDiffusionPipeline").name == "text-to-image"
    assert task_of_pipeline("WhateverPipeline") is None


def test_shards_count_together_and_variants_do_not(tmp_path):
    save_file({"a": torch.zeros(2, 3)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(4, dtype=torch.float16)}, tmp_path / "model-00002-of-00002.safetensors")
    save_file({"a": torch.zeros(100)}, tmp_path / "model.fp16.safetensors")
    table = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(table))
    folder = ComponentFolder.open(tmp_path)
    assert [path.name[:11] for path in folder.weight_paths] == ["model-00001", "model-00002"]
    assert folder.parameters == 10
    assert folder.dtypes == {"float32", "float16"}


def header(entry, length=None):
    text = json.dumps(entry).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01\x00",
        header({}, length=2**63),
        header({}, length=50),
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        struct.pack("<Q", 4) + b"[[[[",
        header([]),
        header({"a": 1}),
        header({"a": GOOD}),
        header({"a": GOOD}) + bytes(7),
        header({"a": {**GOOD, "shape": [-2]}}) + bytes(8),
        header({"a": {**GOOD, "shape": ["2"]}}) + bytes(8),
        header({"a": {**GOOD, "shape": 2}}) + bytes(8),
        header({"a": {**GOOD, "dtype": None}}) + bytes(8),
        header({"a": {**GOOD, "data_offsets": [8, 0]}}) + bytes(8),
        header({"a": {**GOOD, "data_offsets": [0]}}) + bytes(8),
        header({"a": {"dtype": "F32", "shape": [2]}}) + bytes(8),
    ],
)
def test_a_damaged_header_is_an_error(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors is (damaged|empty)"):
        read_header(tmp_path / "a.safetensors")


def test_a_good_header_is_read(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(header({"__metadata__": {"x": "y"}, "a": GOOD}) + bytes(8))
    assert read_header(tmp_path / "a.safetensors") == {"a": GOOD}


def test_a_damaged_model_is_one_line(fails, copied):
    fails("no model_index.json", "info", copied / "tokenizer")
    (copied / "vae" / "config.json").write_text("{")
    fails("vae/config.json cannot be read", "info", copied)
    (copied / "vae" / "config.json").unlink()
    (copied / "unet" / "config.json").write_text('{"sample_size": {}, "block_out_channels": 3}')
    (copied / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100)
    fails("is text, not a checkpoint", "info", copied)
    shutil.rmtree(copied / "unet")
    fails("lacks the component 'unet'", "info", copied)


def test_what_is_no_target_is_one_line(fails, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    fails("holds no generation parameters", "info", "plain.png")
    fails("cannot be read as a PNG", "info", "broken.png")
    fails("no model_index.json", "info", "empty")
    fails("unknown model 'nothing'", "info", "nothing")
    fails("unknown model 'builtin:nothing'", "info", "builtin:nothing")


def test_odd_parameters_of_an_image_are_shown(run, tmp_path):
    odd = {"scheduler": [1], "guidance_interval": [], "prompt": "-x", "negative_prompt": "-y", "steps": {"a": 1}}
    write_image(Image.new("RGB", (4, 4)), tmp_path / "a.png", odd)
    facts = described(run, "a.png")
    assert facts["parameters"] == odd
    assert facts["command"].endswith("--negative-prompt=-y -- -x")


def test_checkpoint(tmp_path, capsys):
    """A published first stage at full size, whose header alone says what it is: its data is a hole in the file."""
    from latentdiff.conversion.plan import make_conversion_plan
    from latentdiff.conversion.zoo import zoo_config

    shapes = make_conversion_plan(zoo_config("vq-f8-n256")).parts["vae"].map.original_shapes
    end, header = 0, {}
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["task"], facts["parameters"]) == ("vq-f8-n256", "first stage", 67652783)
    assert (facts["dtype"], facts["ema"]) == ("float32", False)
    assert facts["converts_to"] == ["original", "latentdiff", "diffusers"]
