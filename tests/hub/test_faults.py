"""What goes wrong on the way is one line, or goes on where it stopped."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants, utils
from huggingface_hub.errors import HfHubHTTPError
from loopback_hub import OWNER

from latentdiff import CheckpointError, DiffusionPipeline, HubError, UnsafeCheckpointError
from latentdiff.hub import download as hub_module

NAME = f"{OWNER}/tiny"
UNET = "diffusion_pytorch_model.safetensors"


def load(**options):
    return DiffusionPipeline.from_pretrained(NAME, **options)


def refused(kind, match, **options):
    with pytest.raises(kind, match=match) as caught:
        load(**options)
    assert "\n" not in str(caught.value) and "tiny" in str(caught.value)
    return str(caught.value)


@pytest.fixture
def model(hub, folder):
    hub.add(NAME, folder)
    return hub


def test_no_such_model(hub):
    refused(HubError, "shows no model")


def test_private_model_without_token(model, monkeypatch):
    model.repos[NAME].private = True
    refused(HubError, "check the name and the token", token=False)
    load()


def test_gated_model(model):
    model.repos[NAME].gated = True
    refused(HubError, "accept its terms")


def test_wrong_token_for_a_cached_model(model):
    load()
    refused(HubError, "refused the token", token="hf_wrong")
    load(token="hf_wrong", local_files_only=True)


def test_wrong_token(model):
    line = refused(HubError, "refused the token", token="hf_wrong")
    assert "hf_wrong" not in line


def test_wrong_token_at_push(model, folder):
    with pytest.raises(HubError, match="refused the token"):
        DiffusionPipeline.from_pretrained(folder).push_to_hub(NAME, token="hf_wrong")


def test_no_such_revision(model):
    assert "main" in refused(HubError, "no revision 'v9'", revision="v9")


def test_no_such_variant(model, folder, tmp_path):
    assert "no variants" in refused(CheckpointError, "variant 'fp16'", variant="fp16")
    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.save_pretrained(tmp_path / "ema", variant="ema")
    model.add(NAME, tmp_path / "ema")
    assert "its variants: ema" in refused(CheckpointError, "variant 'fp16'", variant="fp16")
    assert "its variants: ema" in refused(CheckpointError, "in variants only")


def test_no_such_file(model):
    commit = model.repos[NAME].commits[-1][1]
    del commit["model_index.json"]
    refused(CheckpointError, "no file model_index.json")
    refused(CheckpointError, "no file small/model_index.json", subfolder="small")


def test_component_missing(model):
    files = model.repos[NAME].commits[-1][1]
    for path in [path for path in files if path.startswith("vae/")]:
        del files[path]
    refused(CheckpointError, "lacks the component 'vae'")


def test_shard_missing(model, folder, tmp_path):
    DiffusionPipeline.from_pretrained(folder).save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    next((tmp_path / "shards" / "unet").glob("*-00002-of-*")).unlink()
    model.add(NAME, tmp_path / "shards")
    refused(CheckpointError, "lacks .*00002")


def test_pickled_weights(model):
    files = model.repos[NAME].commits[-1][1]
    files["unet/diffusion_pytorch_model.bin"] = files.pop("unet/diffusion_pytorch_model.safetensors")
    refused(UnsafeCheckpointError, "use_safetensors=False")
    assert not model.asked("GET", ".bin")


def test_interrupted_download_goes_on_within_a_call(model, folder, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    model.drops[UNET] = [1000, 50_000]
    pipe = load()
    stored = DiffusionPipeline.from_pretrained(folder)
    for name in ("unet", "vae", "text_encoder"):
        left, right = getattr(pipe, name).state_dict(), getattr(stored, name).state_dict()
        assert all(torch.equal(tensor, right[key]) for key, tensor in left.items())


@pytest.mark.parametrize(("method", "part"), [("HEAD", "model_index.json"), ("HEAD", UNET), ("GET", "/revision/")])
def test_connection_closed_before_the_answer(model, folder, method, part):
    """A hub may close a kept connection just as a request goes out on it; asked again, it answers."""
    left = [1, 2]

    def hang_up(kind, path):
        if kind == method and part in path and left:
            left.pop()
            raise ConnectionAbortedError

    model.on_request = hang_up
    pipe = load()
    assert not left
    assert torch.equal(pipe.unet.conv_in.bias, DiffusionPipeline.from_pretrained(folder).unet.conv_in.bias)


def test_hub_that_always_hangs_up(model):
    def hang_up(kind, path):
        raise ConnectionAbortedError

    model.on_request = hang_up
    refused(HubError, "try again")


def test_broken_download_goes_on_in_the_next_call(model, folder, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    full = len((folder / "unet" / UNET).read_bytes())
    model.drops[UNET] = [0] * 40 + [100]
    refused(HubError, "try again")
    model.drops.clear()
    pipe = load()
    assert torch.equal(pipe.unet.conv_in.bias, DiffusionPipeline.from_pretrained(folder).unet.conv_in.bias)
    stored = next((model.cache / f"models--{OWNER}--tiny" / "snapshots").glob(f"*/unet/{UNET}"))
    assert stored.stat().st_size == full and stored.read_bytes() == (folder / "unet" / UNET).read_bytes()


@pytest.mark.thorough
def test_repository_that_changes_during_a_call(model, folder, tmp_path):
    """The index and all weights are of the commit that the call found first."""
    pipe = DiffusionPipeline.from_pretrained(folder)
    first = pipe.unet.conv_in.bias.clone(), pipe.vae.encoder.conv_in.bias.clone()
    with torch.no_grad():
        pipe.unet.conv_in.bias += 1
        pipe.vae.encoder.conv_in.bias += 1
    pipe.save_pretrained(tmp_path / "new")

    def change(method, path):
        if method == "GET" and path.endswith("model_index.json"):
            model.on_request = None
            model.add(NAME, tmp_path / "new")

    model.on_request = change
    old = load()
    assert torch.equal(old.unet.conv_in.bias, first[0]) and torch.equal(old.vae.encoder.conv_in.bias, first[1])
    new = load()
    assert torch.equal(new.unet.conv_in.bias, first[0] + 1)
    assert torch.equal(new.vae.encoder.conv_in.bias, first[1] + 1)


@pytest.mark.thorough
def test_offline(model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    utils.close_session()
    refused(HubError, "not in the cache")
    assert not model.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    utils.close_session()
    load()
    model.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    utils.close_session()
    pipe = load()
    refused(HubError, "not in the cache", revision="v9")
    with pytest.raises(HubError, match="offline mode"):
        pipe.push_to_hub(NAME)
    assert not model.requests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    utils.close_session()


def test_local_files_only(model):
    refused(HubError, "not in the cache", local_files_only=True)
    load()
    model.requests.clear()
    load(local_files_only=True)
    assert not model.requests
    refused(CheckpointError, "variant 'ema'", local_files_only=True, variant="ema")


# torch reads none of the hub's variables, so that two processes share its import.
LOAD_BY_ENVIRONMENT = """
import os, sys
import torch
for line in sys.stdin:
    if not os.fork():
        os.environ[line.strip()] = "1"
        import latentdiff
        print(type(latentdiff.DiffusionPipeline.from_pretrained(sys.argv[1])).__name__, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_by_environment(model):
    """The client as users start it: nothing is patched, first with a network, then without."""
    environment = {**os.environ, "HF_ENDPOINT": model.url, "HF_HUB_CACHE": str(model.cache)}
    command = [sys.executable, "-c", LOAD_BY_ENVIRONMENT, NAME]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as loads:
        for variable, asks in (("HF_HUB_DISABLE_XET", True), ("HF_HUB_OFFLINE", False)):
            model.requests.clear()
            print(variable, file=loads.stdin, flush=True)
            assert loads.stdout.readline() == "TextToImagePipeline\n"
            assert bool(model.requests) == asks


@pytest.mark.thorough
def test_no_network(model, monkeypatch):
    """What is in the cache is used; what isn't is one line."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    load()
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}")
    load()
    refused(HubError, "check the network", cache_dir=model.cache / "empty")


def test_network_gone_after_the_index(model, monkeypatch):
    def fail(self, *args, **kwargs):
        raise HfHubHTTPError.__bases__[0]("gone")

    monkeypatch.setattr(hub_module.HfApi, "model_info", fail)
    refused(HubError, "only in part .*scheduler")


def test_hub_is_down(model, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    model.down = True
    refused(HubError, "try again")
    model.down = False
    load()
    model.down = True
    load()


def test_names_that_are_none(hub):
    for name in ("owner/na me", "owner/" + "x" * 200):
        with pytest.raises(HubError, match="owner/name"):
            DiffusionPipeline.from_pretrained(name)
