"""`dtype="auto"`: by what the machine multiplies in."""

import pytest
import tiny
import torch

from latentdiff import DiffusionPipeline, InputError
from latentdiff.pipelines import codec, precision
from latentdiff.pipelines.load_options import as_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({"avx512_bf16": 1}, torch.float32),  # a count, such as those of cores and caches
        ({}, torch.float32),
    ],
)
def test_bfloat16_is_for_cores_that_multiply_in_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert precision.best_dtype(CPU) == expected


def test_a_torch_that_does_not_tell_computes_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision.best_dtype(CPU) == torch.float32


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_is_asked_without_emulation(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert precision.best_dtype(torch.device("cuda")) == expected


def test_other_devices_compute_in_float32():
    assert precision.best_dtype(torch.device("mps")) == torch.float32


def test_auto_is_a_data_type_by_name(tmp_path):
    expected = precision.best_dtype()
    assert as_dtype("auto") == expected
    pipe = DiffusionPipeline.from_pretrained(tiny.tiny_unconditional(tmp_path), dtype="auto")
    assert pipe.unet.dtype == pipe.vae.dtype == expected
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "unconditional", dtype={"unet": "auto", "default": "float16"})
    assert (pipe.unet.dtype, pipe.vae.dtype) == (expected, torch.float16)
    with pytest.raises(InputError, match="'automatic'; did you mean 'auto'"):
        as_dtype("automatic")


@pytest.mark.parametrize(("dtype", "last"), [(torch.float32, False), (torch.bfloat16, True)])
def test_latents_are_decoded_channels_last_in_bfloat16(tmp_path, dtype, last):
    vae = tiny.unconditional(tmp_path).vae
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = codec.decode(vae, latents)
    found = []
    vae.decoder.register_forward_pre_hook(
        lambda module, args: found.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    images = codec.decode(vae.to(dtype), latents)
    assert found == [last]
    assert (images - expected).abs().max() < 0.03
