"""Pipelines whose weights are held in 8 bits: what is, how near the results are, and what doesn't go with it."""

import copy

import pytest
import tiny
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from peft import LoraConfig
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from latentdiff import AutoGuidance, ConfigError, DiffusionPipeline, ImageGuidance, InputError, TextToImagePipeline
from latentdiff.bench.against import stock_pipeline
from latentdiff.conversion.convert import to_original
from latentdiff.nn.int8 import Int8Weight, has_int8

OPTIONS = {"num_inference_steps": 3, "seed": 0, "output_type": "latent"}
KEPT = {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.tiny_text_to_image(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pipe(folder):
    return tiny._quiet(DiffusionPipeline.from_pretrained(folder))


def load(folder, **options):
    return tiny._quiet(DiffusionPipeline.from_pretrained(folder, **options))


def size(network):
    return sum(tensor.numel() * tensor.itemsize for tensor in network.state_dict().values())


def test_all_layers_but_the_outermost_are_quantised(pipe):
    before = size(pipe.unet)
    layers = {name for name, part in pipe.unet.named_modules() if type(part) in (nn.Linear, nn.Conv2d)}
    weights = sum(part.weight.numel() for name, part in pipe.unet.named_modules() if name in layers - KEPT)
    pipe.quantize()
    assert {name for name, part in pipe.unet.named_modules() if isinstance(part, Int8Weight)} == layers - KEPT
    assert has_int8(pipe.text_encoder) and not has_int8(pipe.vae)
    scales = sum(tensor.numel() for name, tensor in pipe.unet.named_parameters() if name.endswith(".scale"))
    assert size(pipe.unet) == before - 3 * weights + 4 * scales


def test_images_are_near_those_of_whole_weights(pipe):
    exact = pipe("a red apple", **OPTIONS).images
    pipe.quantize("int8")
    found = pipe("a red apple", **OPTIONS).images
    apart = (found - exact).norm() / exact.norm()
    assert 1e-4 < apart < 0.05
    pipe.quantize()  # what is quantised stays as it is
    assert torch.equal(pipe("a red apple", **OPTIONS).images, found)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
def test_loading_quantises_what_is_stored(pipe, tmp_path, stored, asked):
    pipe.to(stored).save_pretrained(tmp_path / "stored")
    found = load(tmp_path / "stored", dtype=asked, quantize="int8")
    for name in ("unet", "text_encoder"):
        network = getattr(found, name)
        assert network.dtype == asked
        expected = copy.deepcopy(getattr(pipe, name))
        for layer, weight in expected.named_modules():
            if isinstance(part := network.get_submodule(layer), Int8Weight):
                exact = weight.weight.detach().float()
                off = (part.levels.float() * part.scale.float() - exact).abs() / part.scale.float()
                assert off[part.levels.abs() < 127].max() <= 0.5 + 1e-4 and off.max() <= 1
    assert found.vae.dtype == asked
    assert found("a red apple", **OPTIONS).images.isfinite().all()


def test_loading_gives_what_quantising_gives(folder, pipe):
    pipe.quantize()
    loaded = load(folder, quantize="int8")
    assert torch.equal(loaded("a red apple", **OPTIONS).images, pipe("a red apple", **OPTIONS).images)
    mixed = load(folder, quantize="int8", dtype={"unet": "bfloat16", "default": "float32"})
    assert (mixed.unet.dtype, mixed.text_encoder.dtype, mixed.vae.dtype) == (torch.bfloat16, *[torch.float32] * 2)


def test_no_weight_holds_on_to_a_mapped_file(folder):
    pipe = load(folder, quantize="int8")
    for part in (pipe.unet, pipe.text_encoder):
        for parameter in part.parameters():
            assert parameter.untyped_storage().nbytes() == parameter.nbytes


def test_a_text_encoder_of_transformers(pipe, tmp_path):
    tokenizer = tiny.write_clip_tokenizer(tmp_path)
    options = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=16, **options)
    pipe = TextToImagePipeline.from_pipe(pipe, text_encoder=CLIPTextModel(config).eval(), tokenizer=tokenizer)
    pipe.save_pretrained(tmp_path / "clip")
    exact = pipe("a cat", **OPTIONS).images
    found = load(tmp_path / "clip", quantize="int8")
    assert has_int8(found.text_encoder)
    assert (found("a cat", **OPTIONS).images - exact).norm() / exact.norm() < 0.05


@pytest.mark.parametrize("options", [{"cache_interval": 2}, {"guidance_scale": 3.0, "guidance_rescale": 0.5}])
def test_caching_and_guidance(pipe, options):
    exact = pipe("a cat", **options, **OPTIONS).images
    pipe.quantize()
    assert (pipe("a cat", **options, **OPTIONS).images - exact).norm() / exact.norm() < 0.1


@pytest.mark.thorough
def test_guidance_by_networks_and_images(pipe):
    weak = copy.deepcopy(pipe.unet)
    pipe.quantize()
    for guide in (AutoGuidance(weak, 2.0), ImageGuidance(pipe.vae, torch.zeros(1, 3, 16, 16), 0.1)):
        assert pipe("a cat", guidance_scale=1.0, guidance=[guide], **OPTIONS).images.isfinite().all()


def test_adapters_come_afterwards_and_stay_beside_the_weights(pipe):
    adapter = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv1", "time_emb_proj"], init_lora_weights=False)
    adapted = TextToImagePipeline.from_pipe(pipe, unet=copy.deepcopy(pipe.unet))
    adapted.unet.add_adapter(adapter)
    with pytest.raises(ConfigError, match=r"the unet has adapters; quantize\(\) comes before load_lora_weights\(\)"):
        adapted.quantize()
    assert not has_int8(adapted.unet) and not has_int8(adapted.text_encoder)
    pipe.quantize()
    before = pipe("a cat", **OPTIONS).images
    pipe.unet.add_adapter(adapter)
    assert (pipe("a cat", **OPTIONS).images - before).abs().max() > 1e-3
    nothing = pipe("a cat", cross_attention_kwargs={"scale": 0.0}, **OPTIONS).images
    torch.testing.assert_close(nothing, before, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="the unet's weights are int8, to which adapters can't be added"):
        pipe.fuse_lora()


@pytest.mark.thorough
def test_compiled_networks(pipe):
    pipe.compile("unet", freeze=False, backend="eager")
    with pytest.raises(ConfigError, match=r"the unet is compiled; call uncompile\(\) before quantize\(\)"):
        pipe.quantize()
    pipe.uncompile()
    pipe.quantize()
    expected = pipe("a cat", **OPTIONS).images
    with pytest.raises(ConfigError, match="the unet's weights are int8, which freezing would unpack") as raised:
        pipe.compile()
    assert "\n" not in str(raised.value)
    pipe.compile("vae")
    pipe.uncompile()
    pipe.compile("unet", freeze=False, backend="eager")
    torch.testing.assert_close(pipe("a cat", **OPTIONS).images, expected, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_what_does_not_go_with_it_is_one_line(pipe, folder, tmp_path):
    for give in (lambda: pipe.quantize("int4"), lambda: load("nothing", quantize="int4")):
        with pytest.raises(InputError, match="quantize is 'int4'; did you mean 'int8'"):
            give()
    add_hook_to_module(pipe.unet.mid_block, ModelHook())
    with pytest.raises(ConfigError, match=r"the unet is offloaded; quantize\(\) comes before offloading"):
        pipe.quantize()
    assert not has_int8(pipe.text_encoder)  # all or none
    quantised = load(folder, quantize="int8")
    with pytest.raises(ConfigError, match="weights are int8, which can't be saved; load it without quantize"):
        quantised.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    with pytest.raises(ConfigError, match="weights are int8, which can't be converted; load it without quantize"):
        to_original(quantised.components)
    with pytest.raises(ConfigError, match="the unet's weights are int8, which diffusers' pipeline has no place for"):
        stock_pipeline(quantised)
