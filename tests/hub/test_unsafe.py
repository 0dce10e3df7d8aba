"""Models that want more than to be loaded: nothing leaves their folder, no code of theirs runs."""

import json
import shutil

import pytest
from loopback_hub import OWNER

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, InputError, UnsafeCheckpointError

OUTSIDE = ("../evil", "/etc/evil", "..\\evil", "C:evil", "C:\\evil", "a/../../evil")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


def edit(path, **changes):
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(values))


def refused(kind, match, name, **options):
    with pytest.raises(kind, match=match) as caught:
        DiffusionPipeline.from_pretrained(name, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.thorough
@pytest.mark.parametrize("place", ["folder", "hub"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_component_name_that_leads_outside(hub, copy, name, place):
    edit(copy / "model_index.json", **{name: ["diffusers", "AutoencoderKL"]})
    hub.add(f"{OWNER}/evil", copy)
    refused(CheckpointError, "no plain name", copy if place == "folder" else f"{OWNER}/evil")
    assert len(hub.asked("GET", "resolve")) == (place == "hub")


@pytest.mark.thorough
@pytest.mark.parametrize("name", OUTSIDE)
def test_file_of_a_repository_that_leads_outside(hub, copy, name):
    hub.add(f"{OWNER}/evil", copy).commits[-1][1][f"unet/{name}.json" if name[0] == "." else name] = b"evil"
    refused(CheckpointError, "leads out of its folder", f"{OWNER}/evil")
    assert len(hub.asked("GET", "resolve")) == 1


@pytest.mark.parametrize("name", [*OUTSIDE, "deeper/evil"])
def test_shard_that_leads_outside(copy, name):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, copy.parent / "evil")
    weights.unlink()
    table = {"metadata": {}, "weight_map": {"conv_in.weight": name}}
    (copy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(table))
    refused(CheckpointError, "outside its folder", copy)


@pytest.mark.parametrize(
    "entry",
    [["os", "system"], ["mymodule", "Net"], ["diffusers.utils", "logging"], ["unet", "Net"], ["a.py", "B"], [1, 2]],
)
def test_component_of_another_module(copy, entry):
    edit(copy / "model_index.json", unet=entry)
    refused(ConfigError, str(entry[0]), copy)


@pytest.mark.parametrize(
    "entry", [["diffusers", "DiffusionPipeline"], ["transformers", "AutoModel"], ["diffusers", "nothing"]]
)
def test_component_of_no_component_class(copy, entry):
    edit(copy / "model_index.json", vae=entry)
    refused(ConfigError, f"{entry[1]}.*no component of {entry[0]}", copy)


def test_module_beside_the_weights_does_not_run(hub, copy):
    (copy / "unet" / "mine.py").write_text("raise SystemExit('ran')")
    edit(copy / "model_index.json", unet=["mine", "Net"])
    hub.add(f"{OWNER}/evil", copy)
    for name in (copy, f"{OWNER}/evil"):
        refused(ConfigError, "'mine'", name)
    assert not hub.asked("GET", ".py")


def test_pipeline_code(hub, copy):
    (copy / "pipeline.py").write_text("raise SystemExit('ran')")
    hub.add(f"{OWNER}/evil", copy)
    for name in (copy, f"{OWNER}/evil"):
        refused(ConfigError, r"pipeline\.py", name)
    (copy / "pipeline.py").rename(copy / "mine.py")
    edit(copy / "model_index.json", _class_name=["mine", "Pipeline"])
    refused(ConfigError, "mine", copy)
    assert not hub.asked("GET", ".py")


@pytest.mark.parametrize("option", ["trust_remote_code", "custom_pipeline", "custom_revision"])
def test_options_that_run_code(folder, option):
    refused(InputError, option, folder, **{option: "x"})


def test_pickled_weights_are_not_read(copy):
    for path in (copy / "unet").glob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))
    refused(UnsafeCheckpointError, "unet has pickled weights", copy)
    refused(InputError, "use_safetensors", copy, use_safetensors=False)


def test_pickled_variant_is_not_read(copy):
    (copy / "vae" / "diffusion_pytorch_model.fp16.bin").write_bytes(b"evil")
    refused(UnsafeCheckpointError, "vae has pickled weights", copy, variant="fp16")
    DiffusionPipeline.from_pretrained(copy)
