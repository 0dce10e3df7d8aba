"""Folders: what is saved loads, what diffusers saved loads too, what is broken is named."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from diffusers import UNet2DConditionModel as StockUNet
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES
from safetensors.torch import load_file, save_file
from tiny import text_to_image, tiny_text_to_image, unconditional, write_clip_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel

import latentdiff
from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, HubError, InputError, TextToImagePipeline


def make(pipe, **options):
    pipe.set_progress_bar_config(disable=True)
    return pipe("a cat", num_inference_steps=3, seed=0, output_type="np", **options).images


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_text_to_image(tmp_path_factory.mktemp("original"))


@pytest.fixture
def folder(original, tmp_path):
    """A copy, which tests may change."""
    return shutil.copytree(original, tmp_path / original.name)


def test_round_trip_through_the_base_class(folder, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(folder)
    assert type(pipe) is TextToImagePipeline
    pipe.set_scheduler("dpmpp_2m")
    pipe.save_pretrained(tmp_path / "again")
    again = DiffusionPipeline.from_pretrained(tmp_path / "again")
    assert type(again.scheduler) is latentdiff.DPMSolverPP2MScheduler
    assert np.array_equal(make(pipe), make(again))


def test_index_names_classes_by_library_only(folder):
    """A module path would load from disk where the module is imported already, and never from the hub."""
    index = json.loads((folder / "model_index.json").read_text())
    assert index["unet"] == ["latentdiff", "UNet2DConditionModel"]
    assert index["text_encoder"] == ["latentdiff", "LDMTextEncoder"]
    assert index["scheduler"] == ["latentdiff", "DDIMScheduler"]
    assert "latentdiff" in LOADABLE_CLASSES and latentdiff.ModelMixin and latentdiff.SchedulerMixin


def test_unconditional_round_trip(tmp_path):
    pipe = unconditional(tmp_path)
    pipe.save_pretrained(tmp_path / "again")
    assert type(DiffusionPipeline.from_pretrained(tmp_path / "again")) is latentdiff.UnconditionalPipeline


def stock_folder(folder, prediction_type):
    """A Stable Diffusion folder as diffusers makes it, tiny."""
    torch.manual_seed(0)
    unet = StockUNet(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=(2, 4),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        use_linear_projection=prediction_type == "v_prediction",
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    tokenizer = write_clip_tokenizer(folder.parent)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(config).eval(),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


@pytest.mark.thorough
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("scheduler", [None, "dpmpp_2m"])
def test_stable_diffusion_folder_gives_the_image_of_diffusers(tmp_path, prediction_type, scheduler):
    folder = tmp_path / "sd"
    stock_folder(folder, prediction_type)
    theirs = StableDiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    ours = DiffusionPipeline.from_pretrained(folder)
    ours.set_progress_bar_config(disable=True)
    assert type(ours) is TextToImagePipeline and type(ours.unet) is latentdiff.UNet2DConditionModel
    if scheduler:
        ours.set_scheduler(scheduler)
        theirs.scheduler = DPMSolverMultistepScheduler.from_config(theirs.scheduler.config)
    options = {"num_inference_steps": 5, "guidance_scale": 4.0, "output_type": "np", "height": 16, "width": 32}
    latents = torch.randn(2, 4, 8, 16)
    prompts, negative = ["a red cat", "an apple"], ["blue", "a star"]
    expected = theirs(prompts, negative_prompt=negative, latents=latents, **options).images
    found = ours(prompts, negative_prompt=negative, latents=latents, **options).images
    assert np.abs(found - expected).max() <= 1e-4


def test_stock_unet_is_accepted(tmp_path):
    folder = tmp_path / "sd"
    stock_folder(folder, "epsilon")
    ours = TextToImagePipeline.from_pretrained(folder)
    stock = TextToImagePipeline.from_pretrained(folder, unet=StockUNet.from_pretrained(folder, subfolder="unet"))
    assert type(stock.unet) is StockUNet
    assert np.abs(make(ours, height=16, width=16) - make(stock, height=16, width=16)).max() <= 1e-4


def damage_truncate(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def damage_config(folder):
    (folder / "vae" / "config.json").write_text("{")


def damage_shape(folder):
    path = folder / "unet" / "config.json"
    path.write_text(
        path.read_text().replace('"num_attention_heads": 2', '"num_attention_heads": 2, "x": 0').replace("8,", "16,", 1)
    )


def drop_tensor(folder, component, file="diffusion_pytorch_model.safetensors"):
    path = folder / component / file
    tensors = load_file(path)
    tensors.popitem()
    save_file(tensors, path)


DAMAGES = {
    "tensor of the unet gone": lambda f: drop_tensor(f, "unet"),
    "tensor of the vae gone": lambda f: drop_tensor(f, "vae"),
    "tensor of the text encoder gone": lambda f: drop_tensor(f, "text_encoder"),
    "no component": lambda f: shutil.rmtree(f / "vae"),
    "no weights": lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
    "truncated weights": damage_truncate,
    "broken config": damage_config,
    "other shapes": damage_shape,
    "no index": lambda f: (f / "model_index.json").unlink(),
    "broken index": lambda f: (f / "model_index.json").write_text("nonsense"),
    "no tokenizer": lambda f: shutil.rmtree(f / "tokenizer"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_folder_is_one_line(folder, name):
    DAMAGES[name](folder)
    with pytest.raises(CheckpointError) as caught:
        DiffusionPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_unknown_names(tmp_path):
    with pytest.raises(ConfigError, match="owner/name"):
        DiffusionPipeline.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="builtin"):
        DiffusionPipeline.from_pretrained("builtin:emojis")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    with pytest.raises(CheckpointError, match=r"model\.ckpt is a file; give a model's folder"):
        DiffusionPipeline.from_pretrained(tmp_path / "model.ckpt")


@pytest.mark.thorough
def test_unreachable_hub(tmp_path):
    with pytest.raises(HubError, match="someone/model"):
        DiffusionPipeline.from_pretrained("someone/model", local_files_only=True, cache_dir=tmp_path)


def test_unknown_pipeline_class(folder):
    path = folder / "model_index.json"
    path.write_text(path.read_text().replace('"TextToImagePipeline"', '"os.system"'))
    with pytest.raises(ConfigError, match=r"os\.system"):
        DiffusionPipeline.from_pretrained(folder)


def test_loaded_pipeline_makes_the_saved_image(tmp_path):
    pipe = text_to_image(tmp_path)
    assert np.array_equal(make(pipe), make(DiffusionPipeline.from_pretrained(tmp_path / "text")))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("stored", "right"), [(8, (16, 16)), ([8, 16], (16, 32)), (None, None), ("8", None), ([8], None)]
)
def test_a_network_that_leaves_its_size_open(stored, right, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(tiny_text_to_image(tmp_path))
    pipe.unet.register_to_config(sample_size=stored)
    if right is None:
        with pytest.raises(InputError, match="height is not given, and this model's UNet has sample_size"):
            pipe("a dog", num_inference_steps=1)
        assert pipe("a dog", num_inference_steps=1, height=16, width=16).images[0].size == (16, 16)
    else:
        assert pipe("a dog", num_inference_steps=1, output_type="np").images[0].shape[:2] == right


def test_a_tokenizer_of_another_model(tmp_path):
    """It knows more words than the text encoder."""
    pipe = DiffusionPipeline.from_pretrained(tiny_text_to_image(tmp_path))
    assert pipe("a dog", num_inference_steps=1).images
    pipe.tokenizer.add_tokens(["violet"])
    with pytest.raises(ConfigError, match="the text encoder has 20 tokens; take the tokenizer of the same model"):
        pipe("a violet dog", num_inference_steps=1)
    assert pipe("a dog", num_inference_steps=1).images
