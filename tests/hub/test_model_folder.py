"""A model's folder is opened once, and there is one rule for which of its weights count."""

import json
import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers import LDMPipeline, VQModel
from safetensors.torch import load_file, save_file
from test_old_layouts import autoencoder, ddim, plain_unet

from latentdiff import CheckpointError, DiffusionPipeline, TextToImagePipeline, UnsafeCheckpointError
from latentdiff.hub.component_folder import ComponentFolder
from latentdiff.hub.folder import ModelFolder
from latentdiff.inspection.folder import load_folder, load_stored_first_stage
from latentdiff.inspection.model import describe_component, describe_pipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"
WATCHED = []  # the folder that is watched, and the events in it; an audit hook can't be taken away again


def own_code():
    """Whether it is this package's code that has called the standard library to look at a file."""
    frame = sys._getframe(2)
    while frame and frame.f_globals.get("__name__", "").split(".")[0] in sys.stdlib_module_names:
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"].startswith("latentdiff.")


def hook(event, arguments):
    if event not in ("os.listdir", "os.scandir", "open"):
        return
    for folder, events in WATCHED:
        path = Path(str(arguments[0]))
        if path.is_relative_to(folder) and own_code():
            events["open" if event == "open" else "list", path.relative_to(folder).as_posix()] += 1


sys.addaudithook(hook)


@contextmanager
def watch(folder):
    """Counts of what the package's own code lists and opens: diffusers lists for itself, safetensors opens unseen."""
    events = Counter()
    WATCHED.append((folder, events))
    try:
        yield events
    finally:
        WATCHED.pop()


def plain(folder, tmp_path):
    return folder, {}


def sharded(folder, tmp_path):
    DiffusionPipeline.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    return tmp_path / "shards", {}


def with_variant(folder, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "variants")
    pipe.save_pretrained(tmp_path / "variants", variant="ema")
    return tmp_path / "variants", {"variant": "ema"}


def of_2022(folder, tmp_path):
    """Another class for the UNet, another name for the first stage: both are loaded here and not by diffusers."""
    vqvae = autoencoder(VQModel, latent_channels=3, num_vq_embeddings=16, scaling_factor=1.0)
    LDMPipeline(vqvae=vqvae, unet=plain_unet(3), scheduler=ddim()).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain", {}


@pytest.mark.thorough
@pytest.mark.parametrize("make", [plain, sharded, with_variant, of_2022])
@pytest.mark.parametrize("use", ["load", "info", "convert"])
def test_folders_are_listed_and_files_are_opened_once(folder, tmp_path, make, use):
    """Of the files, it is the headers of the weights that count most."""
    model, options = make(folder, tmp_path)
    with watch(model) as events:
        if use == "load":
            DiffusionPipeline.from_pretrained(model, **options)
        elif use == "info":
            describe_pipeline(str(model))
        else:
            load_folder(str(model), None)
    folders = {path.name for path in model.iterdir() if path.is_dir()}
    assert {path: count for (kind, path), count in events.items() if kind == "list"} == dict.fromkeys(
        [".", *folders], 1
    )
    opened = {path: count for (kind, path), count in events.items() if kind == "open"}
    ending = ".ema.safetensors" if options and use == "load" else WEIGHTS if make is not sharded else ".safetensors"
    headers = {path.relative_to(model).as_posix() for path in model.glob(f"*/*{ending}")}
    assert headers and set(opened.values()) == {1}
    assert {path for path in opened if path.endswith(".safetensors")} == headers


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def rename_to_variant(part, variant):
    (part / WEIGHTS).rename(part / f"diffusion_pytorch_model.{variant}.safetensors")


def test_other_files_are_no_weights(copy):
    """Whatever else lies beside the weights, such as an adapter, neither loads nor counts nor is converted."""
    for name in ("a.safetensors", "model.other.safetensors"):
        save_file({"x": torch.zeros(10)}, copy / "vae" / name)
    pipe = DiffusionPipeline.from_pretrained(copy)
    expected = sum(parameter.numel() for parameter in pipe.vae.parameters())
    assert describe_pipeline(str(copy))["components"]["vae"]["parameters"] == expected
    assert describe_component(str(copy / "vae"))["parameters"] == expected
    vae = load_stored_first_stage(ComponentFolder.open(copy / "vae"), None)
    stored = load_file(copy / "vae" / WEIGHTS)
    assert all(torch.equal(tensor, stored[name]) for name, tensor in vae.state_dict().items())


def test_info_names_the_variant_of_a_component_that_has_nothing_else(copy):
    before = describe_pipeline(str(copy))
    rename_to_variant(copy / "vae", "fp16")
    after = describe_pipeline(str(copy))
    assert after["components"]["vae"].pop("variant") == "fp16" and after == before
    with pytest.raises(CheckpointError, match="vae has weights in variants only"):
        DiffusionPipeline.from_pretrained(copy)


def test_a_first_stage_in_variants_only_is_not_converted(copy):
    rename_to_variant(copy / "vae", "fp16")
    with pytest.raises(CheckpointError, match="vae has weights in variants only"):
        load_folder(str(copy / "vae"), None)


def test_a_component_that_is_given_is_not_looked_at(copy):
    unet = TextToImagePipeline.from_pretrained(copy).unet
    (copy / "unet" / WEIGHTS).rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UnsafeCheckpointError, match="unet has pickled weights"):
        DiffusionPipeline.from_pretrained(copy)
    assert DiffusionPipeline.from_pretrained(copy, unet=unet).unet is unet


def test_what_a_folder_knows(copy):
    rename_to_variant(copy / "unet", "ema")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "feature_extractor": ["transformers", "Gone"]}))
    (copy / "feature_extractor").mkdir()
    folder = ModelFolder.open(copy, variant="ema")
    assert (folder.name, folder.path, folder.index.class_name) == (str(copy), copy, "TextToImagePipeline")
    assert folder.pipeline_class(DiffusionPipeline) is TextToImagePipeline
    loaded = folder.check(TextToImagePipeline, given=["tokenizer"])
    assert set(folder.components) - set(loaded.components) == {"tokenizer", "feature_extractor"}
    assert {name: part.variant for name, part in loaded.components.items() if part.weights} == {
        "unet": "ema",
        "vae": None,
        "text_encoder": None,
    }
    assert loaded.available_variant == "ema" and loaded.without(["unet"]).available_variant is None
    assert folder.components["unet"].tensors is loaded.components["unet"].tensors
