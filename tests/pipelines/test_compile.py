"""`pipe.compile()`: what it compiles, what it refuses, and that results stay what they were."""

import copy
import warnings

import pytest
import tiny
import torch
import torch._inductor.config
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import UNet2DModel
from peft import LoraConfig

from latentdiff import AdaptiveProjectedGuidance, ConfigError, InputError, TextToImagePipeline
from latentdiff.compilation import artefacts
from latentdiff.compilation.forward import CompiledForward, FrozenForward, JustInTimeForward
from latentdiff.errors import LatentDiffWarning
from latentdiff.nn.attention import SpatialSelfAttention
from latentdiff.nn.resnet import ResnetBlock
from latentdiff.nn.transformer import BasicTransformerBlock
from latentdiff.pipelines.compile import default_mode

JUST_IN_TIME = {"freeze": False, "backend": "eager"}  # torch.compile's way without a compiler


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return tiny.text_to_image(tmp_path_factory.mktemp("model"))


@pytest.fixture
def pipe(loaded):
    """A pipeline with networks of its own."""
    parts = {name: copy.deepcopy(part) for name, part in loaded.components.items()}
    pipe = TextToImagePipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    torch.compiler.reset()


def images(pipe, **options):
    return pipe("a red apple", seed=0, num_inference_steps=2, output_type="pt", **options).images


def compiled(pipe):
    """The modules that are compiled, with what has taken their place."""
    networks = (pipe.unet, pipe.vae, pipe.text_encoder)
    found = {module: vars(module).get("forward") for network in networks for module in network.modules()}
    return {module: forward for module, forward in found.items() if isinstance(forward, CompiledForward)}


def test_weights_are_frozen_on_cpus_but_not_those_of_the_text_encoder(pipe):
    pipe.compile()
    found = compiled(pipe)
    assert set(found) == {pipe.unet, pipe.vae.decoder}
    assert all(isinstance(forward, FrozenForward) for forward in found.values())
    pipe.uncompile("vae")
    assert set(compiled(pipe)) == {pipe.unet}
    pipe.compile("text_encoder")
    assert set(compiled(pipe)) == {pipe.unet, pipe.text_encoder.model}
    pipe.uncompile()
    assert not compiled(pipe)


def test_saved_components_are_those_uncompiled(pipe, tmp_path):
    pipe.compile()
    pipe.save_pretrained(tmp_path / "saved")
    again = TextToImagePipeline.from_pretrained(tmp_path / "saved")
    again.set_progress_bar_config(disable=True)
    pipe.uncompile()
    assert torch.equal(images(again), images(pipe)) and not compiled(again)


@pytest.mark.thorough
def test_torch_compile_compiles_all_networks(pipe):
    expected = images(pipe)
    pipe.compile(**JUST_IN_TIME)
    found = compiled(pipe)
    assert set(found) == {pipe.unet, pipe.vae.decoder, pipe.text_encoder.model}
    assert all(isinstance(forward, JustInTimeForward) for forward in found.values())
    assert torch.allclose(images(pipe), expected, atol=1e-5)
    assert torch.allclose(images(pipe, width=32), images_uncompiled(pipe, width=32), atol=1e-5)  # of another shape


def images_uncompiled(pipe, **options):
    other = TextToImagePipeline(**{name: copy.deepcopy(part) for name, part in pipe.components.items()})
    other.set_progress_bar_config(disable=True)
    other.uncompile()
    return images(other, **options)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options", [{}, {"guidance": [AdaptiveProjectedGuidance()]}, {"guidance_interval": (0.0, 0.5)}]
)
def test_guidance_works_with_compiled_networks(pipe, options):
    expected = images(pipe, guidance_scale=3.0, **options)
    pipe.compile("unet", **JUST_IN_TIME)
    assert torch.allclose(images(pipe, guidance_scale=3.0, **options), expected, atol=1e-5)


@pytest.mark.thorough
def test_regional_compiles_the_repeated_blocks_of_every_family(pipe, tmp_path):
    expected = images(pipe)
    pipe.compile("unet", regional=True, **JUST_IN_TIME)
    assert {type(module) for module in compiled(pipe)} == {BasicTransformerBlock, ResnetBlock}
    assert torch.allclose(images(pipe), expected, atol=1e-5)
    other = tiny.unconditional(tmp_path)
    expected = other(seed=0, num_inference_steps=1, output_type="pt").images
    other.compile("unet", regional=True, **JUST_IN_TIME)
    kinds = {type(module) for module in other.unet.modules() if "forward" in vars(module)}
    assert kinds == {SpatialSelfAttention, ResnetBlock}
    assert torch.allclose(other(seed=0, num_inference_steps=1, output_type="pt").images, expected, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("options", [JUST_IN_TIME, {"freeze": True}])
def test_adapters_that_come_later_are_at_work_and_the_network_uncompiled(pipe, options):
    pipe.compile("unet", **options)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    with pytest.warns(LatentDiffWarning, match="the unet has adapters and runs uncompiled; fuse_lora"):
        full = images(pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error", LatentDiffWarning)  # said once
        half, none = (images(pipe, cross_attention_kwargs={"scale": scale}) for scale in (0.5, 0.0))
    pipe.uncompile()
    assert torch.equal(full, images(pipe))
    assert torch.equal(half, images(pipe, cross_attention_kwargs={"scale": 0.5}))
    assert not torch.equal(half, none) and not torch.equal(half, full)


def offloaded(pipe):
    add_hook_to_module(pipe.unet, ModelHook())


STOCK = UNet2DModel(
    block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4
)


def stock(pipe):
    pipe.register_modules(unet=STOCK.eval())


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (offloaded, {}, "the unet is offloaded"),
        (lambda pipe: pipe.unet.train(), {}, "the unet is in training mode.*pipe.unet.eval"),
        (stock, {}, "the unet is a stock UNet2DModel, which can't be frozen; compile it with freeze=False"),
        (None, {"components": "unett"}, "'unett' can't be compiled; did you mean 'unet'"),
        (None, {"components": ["tokenizer"]}, "'tokenizer' can't be compiled"),
        (None, {"freeze": True, "mode": "max-autotune"}, "mode is given with freeze=True"),
        (None, {"freeze": True, "regional": True}, "regional is given with freeze=True"),
        (None, {"freeze": True, "backend": "eager"}, "backend is given with freeze=True"),
        (None, {"freeze": False, "planned_calls": {"unet": 1}}, "planned_calls is for frozen weights"),
        (None, {"components": ["unet", "vae"], "planned_calls": {"unet": 1}}, "planned_calls is for unet, what is"),
        (None, {"components": "vae", "regional": True, **JUST_IN_TIME}, "the vae, a AutoencoderKL, names no repeated"),
    ],
)
def test_what_cannot_be_compiled_is_refused_and_nothing_is(pipe, prepare, options, message):
    if prepare is not None:
        prepare(pipe)
    with pytest.raises(ConfigError, match=message):
        pipe.compile(**options)
    assert not compiled(pipe)


def test_planned_calls_are_counts(pipe):
    with pytest.raises(InputError, match="planned_calls is 0; it must be an integer of at least 1"):
        pipe.compile(planned_calls={"unet": 0})


@pytest.mark.parametrize(("device", "mode"), [("cuda", "reduce-overhead"), ("mps", None), ("cpu", None)])
def test_cuda_graphs_are_for_cuda(device, mode):
    assert default_mode(device, "inductor") == mode
    assert default_mode(device, "eager") is None


@pytest.mark.slow
def test_a_guided_run_of_frozen_networks(pipe, tmp_path, monkeypatch):
    """Guided and unguided steps have a program each, and the second pipeline takes both from the disk."""
    monkeypatch.setattr(artefacts, "default_programs_folder", lambda: tmp_path)
    options = {"guidance_scale": 3.0, "guidance_interval": (0.0, 0.5)}
    expected = images(pipe, **options)
    pipe.compile()
    assert torch.allclose(images(pipe, **options), expected, atol=1e-5)
    programs = compiled(pipe)[pipe.unet].programs.loaded
    assert len(programs) == 2 and all(programs.values())
    again = TextToImagePipeline(**{name: copy.deepcopy(part) for name, part in pipe.components.items()})
    again.set_progress_bar_config(disable=True)
    again.compile()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert torch.equal(images(again, **options), images(pipe, **options))
