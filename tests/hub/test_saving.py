"""Saved folders: whole or not at all, never over something else, and straight to the hub."""

import json

import pytest
import tiny
import torch
from huggingface_hub import ModelCard
from loopback_hub import OWNER
from safetensors.torch import load_file

from latentdiff import CheckpointError, DiffusionPipeline, HubError, InputError
from latentdiff.hub.card import model_card
from latentdiff.hub.folder import ModelFolder

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def pipe(folder):
    return DiffusionPipeline.from_pretrained(folder)


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.thorough
def test_path_and_hub_in_one_call(hub, pipe, tmp_path):
    """diffusers' own method splits the folder as a string, which a Path doesn't let it do."""
    pipe.save_pretrained(tmp_path / "apples", push_to_hub=True, private=True, commit_message="first")
    repo = hub.repos[f"{OWNER}/apples"]
    assert repo.private and repo.commits[-1][2] == "first"
    assert sorted(repo.commits[-1][1]) == files_of(tmp_path / "apples")
    assert b'from_pretrained("tester/apples")' in repo.commits[-1][1]["README.md"]
    again = DiffusionPipeline.from_pretrained(f"{OWNER}/apples")
    assert torch.equal(again.unet.conv_in.bias, pipe.unet.conv_in.bias)


def test_name_and_string(hub, pipe, tmp_path):
    pipe.save_pretrained(str(tmp_path / "here"), push_to_hub=True, repo_id="team/there")
    assert b'from_pretrained("team/there")' in hub.repos["team/there"].commits[-1][1]["README.md"]


def test_folder_stays_if_the_upload_fails(hub, pipe, tmp_path):
    with pytest.raises(HubError):
        pipe.save_pretrained(tmp_path / "here", push_to_hub=True, token="hf_wrong")
    DiffusionPipeline.from_pretrained(tmp_path / "here")


@pytest.mark.parametrize(
    "options",
    [{"private": True}, {"variant": "../x"}, {"nonsense": 1}, {"safe_serialization": False}, {"repo_id": "x"}],
)
def test_options_without_effect_are_refused(pipe, tmp_path, options):
    with pytest.raises(InputError, match=next(iter(options))):
        pipe.save_pretrained(tmp_path / "here", **options)
    assert not (tmp_path / "here").exists()


def test_other_folders_are_not_touched(pipe, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("Dear")
    with pytest.raises(InputError, match="holds no pipeline"):
        pipe.save_pretrained(tmp_path / "letters")
    with pytest.raises(InputError, match="is a file"):
        pipe.save_pretrained(tmp_path / "letters" / "mother.txt")
    assert files_of(tmp_path / "letters") == ["mother.txt"]
    (tmp_path / "empty").mkdir()
    pipe.save_pretrained(tmp_path / "empty")
    DiffusionPipeline.from_pretrained(tmp_path / "empty")


def test_saving_again(pipe, tmp_path):
    """Other variants, notes and the card stay; shards of the same weights don't."""
    model = tmp_path / "model"
    pipe.save_pretrained(model, max_shard_size="100KB")
    (model / "README.md").write_text("mine")
    (model / "samples").mkdir()
    (model / "samples" / "one.png").write_bytes(b"x")
    before = pipe.unet.conv_in.bias.clone()
    with torch.no_grad():
        pipe.unet.conv_in.bias += 1
    pipe.save_pretrained(model, variant="ema")
    assert torch.equal(DiffusionPipeline.from_pretrained(model).unet.conv_in.bias, before)
    assert torch.equal(DiffusionPipeline.from_pretrained(model, variant="ema").unet.conv_in.bias, before + 1)
    pipe.save_pretrained(model)
    assert torch.equal(DiffusionPipeline.from_pretrained(model).unet.conv_in.bias, before + 1)
    assert not [path for path in files_of(model) if "-of-" in path or "index.json" in path.replace("model_index", "")]
    assert (model / "README.md").read_text() == "mine" and (model / "samples" / "one.png").exists()
    pipe.save_pretrained(model, card=model_card(pipe, license="mit"))
    assert ModelCard.load(model / "README.md").data.license == "mit"
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_saving_over_the_folder_that_was_loaded(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        loaded.unet.conv_in.bias += 1
    loaded.save_pretrained(tmp_path / "model")
    again = DiffusionPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(again.unet.conv_in.bias, pipe.unet.conv_in.bias + 1)


def test_interrupted_save_leaves_what_was_there(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path / "model")
    before = {path: (tmp_path / "model" / path).read_bytes() for path in files_of(tmp_path / "model")}

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with torch.no_grad():
        pipe.unet.conv_in.bias += 1
    monkeypatch.setattr(type(pipe.scheduler), "save_pretrained", fail)
    with pytest.raises(KeyboardInterrupt):
        pipe.save_pretrained(tmp_path / "model")
    assert {path: (tmp_path / "model" / path).read_bytes() for path in files_of(tmp_path / "model")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_link_to_a_folder_stays_a_link(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model", target_is_directory=True)
    (tmp_path / "model" / UNET).unlink()
    pipe.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and load_file(tmp_path / "model" / UNET)


def test_saving_into_the_cache_of_downloads(hub, pipe, folder):
    """Its files are links to blobs that other revisions share, so these must not be written through."""
    hub.add(f"{OWNER}/tiny", folder)
    loaded = DiffusionPipeline.from_pretrained(f"{OWNER}/tiny")
    blobs = {path: path.read_bytes() for path in hub.cache.rglob("blobs/*")}
    snapshot = next(hub.cache.rglob("model_index.json")).parent
    with torch.no_grad():
        loaded.unet.conv_in.bias += 1
    loaded.save_pretrained(snapshot)
    assert blobs and all(path.read_bytes() == data for path, data in blobs.items())


def test_no_path_of_this_machine_is_saved(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    again = DiffusionPipeline.from_pretrained(tmp_path / "model")
    again.save_pretrained(tmp_path / "again")
    for path in files_of(tmp_path / "again"):
        assert str(tmp_path).encode() not in (tmp_path / "again" / path).read_bytes()
    assert "_name_or_path" not in json.loads((tmp_path / "again" / "unet" / "config.json").read_text())


@pytest.mark.parametrize("at", ["check", "load_own"])
def test_a_model_that_is_saved_anew_while_it_is_loaded_is_of_one_save(tmp_path, monkeypatch, at):
    """Its folder is replaced when some of it has been read."""
    model = tiny.tiny_unconditional(tmp_path)
    other = DiffusionPipeline.from_pretrained(model)
    with torch.no_grad():
        other.unet.conv_in.bias.add_(1)
        other.vae.decoder.conv_in.bias.add_(1)
    step, saves = getattr(ModelFolder, at), [lambda: other.save_pretrained(model)]

    def save_first(*arguments, **options):
        result = step(*arguments, **options)
        if saves:
            saves.pop()()
        return result

    monkeypatch.setattr(ModelFolder, at, save_first)
    loaded = DiffusionPipeline.from_pretrained(model)
    assert torch.equal(loaded.unet.conv_in.bias, other.unet.conv_in.bias)
    assert torch.equal(loaded.vae.decoder.conv_in.bias, other.vae.decoder.conv_in.bias)


def test_a_model_that_is_saved_again_and_again_is_refused(tmp_path, monkeypatch):
    model = tiny.tiny_unconditional(tmp_path)
    other, step = DiffusionPipeline.from_pretrained(model), ModelFolder.load_own

    def save_first(*arguments, **options):
        other.save_pretrained(model)
        return step(*arguments, **options)

    monkeypatch.setattr(ModelFolder, "load_own", save_first)
    with pytest.raises(CheckpointError, match="is saved anew again and again while it is loaded"):
        DiffusionPipeline.from_pretrained(model)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("text", "what"),
    [(POINTER, "a pointer of Git LFS"), ("<!doctype html>\n<html>", "a web page"), ("Not Found", "text")],
)
@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"])
def test_a_file_of_a_model_that_was_not_fetched_is_named_as_what_it_is(tmp_path, file, text, what):
    model = tiny.tiny_unconditional(tmp_path)
    (model / file).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{file}.* is {what}.*; (fetch|give)"):
        DiffusionPipeline.from_pretrained(model)
