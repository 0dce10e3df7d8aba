"""What loading reads, and what it says of conversions."""

import sys
import warnings
from collections import Counter

import pytest
import tiny
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline as StockPipeline

from latentdiff import DiffusionPipeline
from latentdiff.errors import LatentDiffWarning
from latentdiff.hub import networks
from latentdiff.pipelines import load_options

listeners: list[Counter[str]] = []


def _hear(event, args):
    if event == "open" and isinstance(args[0], str) and args[0].endswith(".safetensors"):
        for opened in listeners:
            opened[args[0]] += 1


@pytest.fixture
def folder(tmp_path):
    return tiny.tiny_text_to_image(tmp_path)


def test_each_weight_file_is_mapped_once_and_its_header_read_once(folder, monkeypatch):
    """A hook of the interpreter hears every file that Python opens; safetensors maps by itself, in one function."""
    mapped, load_file = Counter(), networks.load_file

    def counted(path):
        mapped[str(path)] += 1
        return load_file(path)

    monkeypatch.setattr(networks, "load_file", counted)
    files = {str(path) for path in folder.rglob("*.safetensors")}
    assert len(files) == 3
    sys.addaudithook(_hear)
    opened = Counter()
    listeners.append(opened)
    try:
        DiffusionPipeline.from_pretrained(folder)
    finally:
        listeners.remove(opened)
    assert mapped == opened == dict.fromkeys(files, 1)


def test_weights_are_mapped_and_not_copied_unless_they_are_converted(folder):
    """A tensor of a mapped file lies in a storage of all of it, or at a place of the file that isn't its own block."""
    plain = DiffusionPipeline.from_pretrained(folder).unet
    stored = folder / "unet" / "diffusion_pytorch_model.safetensors"
    starts = sorted(parameter.data_ptr() for parameter in plain.parameters())
    assert starts[-1] - starts[0] < stored.stat().st_size


def sentences(folder, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DiffusionPipeline.from_pretrained(folder, **options)
    return [str(warning.message) for warning in caught if issubclass(warning.category, LatentDiffWarning)]


def test_a_slow_conversion_is_told_once_with_the_form_that_is_not(folder, monkeypatch):
    size = sum(4 * p.numel() for name in ("unet", "vae", "text_encoder") for p in _weights(folder, name))
    monkeypatch.setattr(load_options, "SLOW_CONVERSION", size)
    [line] = sentences(folder, dtype=torch.bfloat16)
    assert "in float32, which every load converts to bfloat16" in line
    assert f"`latentdiff convert {folder} OUT --dtype bfloat16`" in line
    assert sentences(folder) == sentences(folder, dtype="float32") == []
    assert sentences(folder, dtype={"unet": torch.bfloat16}) == []  # less than the limit
    monkeypatch.setattr(load_options, "SLOW_CONVERSION", size + 1)
    assert sentences(folder, dtype=torch.bfloat16) == []


def _weights(folder, name):
    return getattr(DiffusionPipeline.from_pretrained(folder), name).state_dict().values()


def test_networks_are_loaded_here_beside_components_that_are_given(folder, monkeypatch):
    """diffusers' loader is slower, and serves only options of its own."""
    whole = DiffusionPipeline.from_pretrained(folder)
    monkeypatch.setattr(StockPipeline, "from_pretrained", None)
    pipe = DiffusionPipeline.from_pretrained(folder, vae=whole.vae, dtype=torch.float16)
    assert pipe.vae is whole.vae and pipe.unet.dtype == pipe.text_encoder.dtype == torch.float16
