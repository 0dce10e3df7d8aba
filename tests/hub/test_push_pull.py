"""What is pushed is what is pulled, and the options reach the hub."""

import json

import numpy as np
import pytest
import torch
from loopback_hub import OWNER
from tiny import tiny_unconditional

from latentdiff import DiffusionPipeline, InputError, TextToImagePipeline, UnconditionalPipeline

pytestmark = pytest.mark.thorough


def load(name, **options):
    pipe = DiffusionPipeline.from_pretrained(name, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(pipe):
    return pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images


def same_tensors(left, right):
    for name, part in left.components.items():
        if isinstance(part, torch.nn.Module):
            other = right.components[name].state_dict()
            assert part.state_dict().keys() == other.keys()
            assert all(torch.equal(tensor, other[key]) for key, tensor in part.state_dict().items())


def shifted(pipe, amount):
    with torch.no_grad():
        pipe.unet.conv_in.bias += amount
    return pipe


def test_push_then_pull_is_identical(hub, folder):
    pipe = load(folder)
    pipe.push_to_hub(f"{OWNER}/tiny")
    again = load(f"{OWNER}/tiny")
    assert type(again) is TextToImagePipeline
    same_tensors(pipe, again)
    assert np.array_equal(image(pipe), image(again))
    assert not [path for path in hub.repos[f"{OWNER}/tiny"].commits[-1][1] if path.endswith(".bin")]


def test_unconditional(hub, tmp_path):
    pipe = load(tiny_unconditional(tmp_path))
    pipe.push_to_hub(f"{OWNER}/faces")
    again = load(f"{OWNER}/faces")
    assert type(again) is UnconditionalPipeline
    same_tensors(pipe, again)


def test_options_reach_the_hub(hub, folder):
    commit = load(folder).push_to_hub("named", private=True, commit_message="ten epochs")
    repo = hub.repos[f"{OWNER}/named"]
    assert repo.private and repo.commits[-1][2] == "ten epochs" and commit.oid == repo.commits[-1][0]
    assert "README.md" in repo.commits[-1][1]


def test_no_path_of_this_machine_is_published(hub, folder):
    load(folder).push_to_hub(f"{OWNER}/tiny")
    files = hub.repos[f"{OWNER}/tiny"].commits[-1][1]
    assert not [path for path, data in files.items() if str(folder.parent).encode() in data]


def test_pull_request(hub, folder):
    pipe = load(folder)
    pipe.push_to_hub(f"{OWNER}/tiny")
    before = hub.repos[f"{OWNER}/tiny"].refs["main"]
    commit = shifted(load(folder), 1).push_to_hub(f"{OWNER}/tiny", create_pr=True)
    assert hub.repos[f"{OWNER}/tiny"].refs["main"] == before
    assert commit.pr_url.endswith("/discussions/1")
    assert torch.equal(load(f"{OWNER}/tiny").unet.conv_in.bias, pipe.unet.conv_in.bias)
    assert torch.equal(load(f"{OWNER}/tiny", revision="refs/pr/1").unet.conv_in.bias, pipe.unet.conv_in.bias + 1)


def test_pull_request_against_a_branch_is_refused(hub, folder):
    with pytest.raises(InputError, match="drop one"):
        load(folder).push_to_hub(f"{OWNER}/tiny", create_pr=True, revision="v2")
    assert not hub.asked("POST", "")


def test_revisions(hub, folder):
    pipe = load(folder)
    first = pipe.push_to_hub(f"{OWNER}/tiny").oid
    shifted(load(folder), 1).push_to_hub(f"{OWNER}/tiny")
    shifted(load(folder), 2).push_to_hub(f"{OWNER}/tiny", revision="v2")
    bias = pipe.unet.conv_in.bias
    for revision, amount in ((first, 0), ("main", 1), ("v2", 2), (None, 1)):
        assert torch.equal(load(f"{OWNER}/tiny", revision=revision).unet.conv_in.bias, bias + amount)


def test_variants_lie_side_by_side(hub, folder):
    pipe = load(folder)
    pipe.push_to_hub(f"{OWNER}/tiny")
    shifted(load(folder), 1).push_to_hub(f"{OWNER}/tiny", variant="ema")
    assert torch.equal(load(f"{OWNER}/tiny", variant="ema").unet.conv_in.bias, pipe.unet.conv_in.bias + 1)
    assert not hub.asked("GET", "model.safetensors")
    assert torch.equal(load(f"{OWNER}/tiny").unet.conv_in.bias, pipe.unet.conv_in.bias)


def test_variant_of_one_component_only(hub, folder, tmp_path):
    pipe = load(folder)
    pipe.save_pretrained(tmp_path / "one")
    shifted(load(folder), 1).unet.save_pretrained(tmp_path / "one" / "unet", variant="ema")
    hub.add(f"{OWNER}/tiny", tmp_path / "one")
    again = load(f"{OWNER}/tiny", variant="ema")
    assert torch.equal(again.unet.conv_in.bias, pipe.unet.conv_in.bias + 1)
    assert torch.equal(again.vae.encoder.conv_in.weight, pipe.vae.encoder.conv_in.weight)


def test_half_precision_variant(hub, folder):
    load(folder, dtype=torch.float16).push_to_hub(f"{OWNER}/tiny", variant="fp16")
    assert load(f"{OWNER}/tiny", variant="fp16", dtype=torch.float16).unet.dtype == torch.float16


def test_subfolder(hub, folder):
    pipe = load(folder)
    pipe.push_to_hub(f"{OWNER}/tiny", subfolder="models/small")
    files = hub.repos[f"{OWNER}/tiny"].commits[-1][1]
    assert all(path.startswith("models/small/") for path in files)
    for place in ("models/small", "./models/small/"):
        same_tensors(pipe, load(f"{OWNER}/tiny", subfolder=place))
    with pytest.raises(InputError, match="subfolder"):
        load(f"{OWNER}/tiny", subfolder="../small")


def test_shards_do_not_stay_beside_one_file(hub, folder):
    pipe = load(folder)
    pipe.push_to_hub(f"{OWNER}/tiny", max_shard_size="100KB")
    files = hub.repos[f"{OWNER}/tiny"].commits[-1][1]
    index = json.loads(files["unet/diffusion_pytorch_model.safetensors.index.json"])
    assert len(set(index["weight_map"].values())) > 1
    same_tensors(pipe, load(f"{OWNER}/tiny"))
    moved = shifted(load(folder), 1)
    moved.push_to_hub(f"{OWNER}/tiny")
    files = hub.repos[f"{OWNER}/tiny"].commits[-1][1]
    assert [path for path in files if path.startswith("unet/diff")] == ["unet/diffusion_pytorch_model.safetensors"]
    same_tensors(moved, load(f"{OWNER}/tiny"))


def test_only_what_is_needed_is_fetched(hub, folder, tmp_path):
    load(folder).save_pretrained(tmp_path / "full")
    for name in ("samples.zip", "model.ckpt", "unet/diffusion_pytorch_model.bin", "unet/model.onnx", "vae/code.py"):
        (tmp_path / "full" / name).write_bytes(b"x")
    hub.add(f"{OWNER}/tiny", tmp_path / "full")
    load(f"{OWNER}/tiny")
    fetched = " ".join(hub.asked("GET", "resolve"))
    assert not [end for end in (".zip", ".ckpt", ".bin", ".onnx", ".py") if end in fetched]


def test_second_load_fetches_nothing(hub, folder):
    hub.add(f"{OWNER}/tiny", folder)
    load(f"{OWNER}/tiny")
    hub.requests.clear()
    load(f"{OWNER}/tiny")
    assert not hub.asked("GET", "resolve")


def test_one_commit(hub, folder):
    pipe = load(folder)
    pipe.push_to_hub(f"{OWNER}/tiny")
    pipe.push_to_hub(f"{OWNER}/tiny")  # nothing is new, or the same files again
    shifted(load(folder), 1).push_to_hub(f"{OWNER}/tiny", max_shard_size="100KB")
    files = [files for _, files, _ in hub.repos[f"{OWNER}/tiny"].commits]
    assert len(files) <= 4 and all("unet/config.json" in there for there in files[1:])
    assert "unet/diffusion_pytorch_model.safetensors" not in files[-1]
    with pytest.raises(InputError, match="subfolder"):
        pipe.push_to_hub(f"{OWNER}/tiny", subfolder="../x")
