"""The pipelines of 2022, as diffusers wrote them, load as they stand and make the images that diffusers makes."""

import json

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    LDMPipeline,
    LDMSuperResolutionPipeline,
    LDMTextToImagePipeline,
    UNet2DModel,
    VQModel,
)
from diffusers import UNet2DConditionModel as StockUNet
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from loopback_hub import OWNER
from safetensors.torch import load_file, save_file
from tiny import SPECIAL, WORDS, randomise

import latentdiff
from latentdiff import (
    CheckpointError,
    DiffusionPipeline,
    SuperResolutionPipeline,
    TextToImagePipeline,
    UnconditionalPipeline,
)
from latentdiff.cli.main import main
from latentdiff.models.tokenizer import load_tokenizer

OLD_NAMES = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def ddim():
    return DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)


def autoencoder(cls, **options):
    return cls(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
        **options,
    )


def plain_unet(in_channels):
    unet = UNet2DModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=3,
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    randomise(unet)
    return unet


@pytest.fixture
def text_folder(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    config = LDMBertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        max_position_embeddings=77,
        d_model=16,
        encoder_layers=2,
        encoder_ffn_dim=64,
        encoder_attention_heads=2,
        head_dim=8,
    )
    unet = StockUNet(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    LDMTextToImagePipeline(
        vqvae=autoencoder(AutoencoderKL, latent_channels=4),
        bert=LDMBertModel(config).eval(),
        tokenizer=load_tokenizer(tmp_path / "vocab.txt", 77),
        unet=unet,
        scheduler=ddim(),
    ).save_pretrained(tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture
def plain_folder(tmp_path):
    torch.manual_seed(0)
    vqvae = autoencoder(VQModel, latent_channels=3, num_vq_embeddings=16, scaling_factor=1.0)
    LDMPipeline(vqvae=vqvae, unet=plain_unet(3), scheduler=ddim()).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def as_2022(path):
    """Attention under the names that diffusers had then."""
    tensors = load_file(path)
    for new, old in OLD_NAMES.items():
        tensors = {name.replace(new, old) if ".attentions." in name else name: t for name, t in tensors.items()}
    assert any(".query." in name for name in tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_text_to_image(text_folder):
    theirs = quiet(LDMTextToImagePipeline.from_pretrained(text_folder))
    ours = quiet(DiffusionPipeline.from_pretrained(text_folder))
    assert type(ours) is TextToImagePipeline and type(ours.text_encoder) is latentdiff.LDMTextEncoder
    assert type(ours.unet) is latentdiff.UNet2DConditionModel and type(ours.vae) is AutoencoderKL
    ids = theirs.tokenizer(["a red cat"], padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        states = theirs.bert(ids)[0]
        assert torch.allclose(ours.encode_prompt("a red cat"), states, atol=1e-5)
        sample = torch.randn(1, 4, 8, 8)
        expected = theirs.unet(sample, 7, encoder_hidden_states=states).sample
        assert torch.allclose(ours.unet(sample, 7, encoder_hidden_states=states).sample, expected, atol=1e-4)
        assert torch.allclose(ours.vae.decode(sample).sample, theirs.vqvae.decode(sample).sample, atol=1e-5)
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "latents": torch.randn(1, 4, 8, 8), "output_type": "np"}
    expected = theirs(["a red cat"], height=64, width=64, **options).images  # it takes f = 8 for granted
    found = ours(["a red cat"], height=16, width=16, **options).images
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 1e-4


def test_unconditional(plain_folder):
    theirs = quiet(LDMPipeline.from_pretrained(plain_folder))
    ours = quiet(DiffusionPipeline.from_pretrained(plain_folder))
    assert type(ours) is UnconditionalPipeline and type(ours.unet) is latentdiff.UNet2DConditionModel
    sample = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(ours.unet(sample, 7).sample, theirs.unet(sample, 7).sample, atol=1e-4)
        assert torch.allclose(ours.vae.decode(sample).sample, theirs.vqvae.decode(sample).sample, atol=1e-5)
    options = {"batch_size": 2, "num_inference_steps": 4, "output_type": "np"}
    expected = theirs(generator=torch.manual_seed(3), **options).images
    assert np.abs(ours(generator=torch.manual_seed(3), **options).images - expected).max() <= 1e-4


def test_attention_under_its_oldest_names(plain_folder):
    sample = torch.randn(1, 3, 8, 8)
    before = DiffusionPipeline.from_pretrained(plain_folder)
    as_2022(plain_folder / "unet" / WEIGHTS)
    as_2022(plain_folder / "vqvae" / WEIGHTS)
    after = DiffusionPipeline.from_pretrained(plain_folder)
    assert type(after.unet) is latentdiff.UNet2DConditionModel
    with torch.no_grad():
        # Equal weights at other addresses: a CPU's kernels may sum in another order there.
        assert torch.allclose(after.unet(sample, 7).sample, before.unet(sample, 7).sample, atol=1e-5)
        assert torch.allclose(after.vae.decode(sample).sample, before.vae.decode(sample).sample, atol=1e-5)


def test_vq_model_without_a_scale_has_the_papers(plain_folder):
    path = plain_folder / "vqvae" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "scaling_factor": 0.5}))
    assert DiffusionPipeline.from_pretrained(plain_folder).vae.config.scaling_factor == 0.5
    del config["scaling_factor"]
    path.write_text(json.dumps(config))
    assert DiffusionPipeline.from_pretrained(plain_folder).vae.config.scaling_factor == 1.0


def test_super_resolution(tmp_path):
    vqvae = autoencoder(VQModel, latent_channels=3, num_vq_embeddings=16, scaling_factor=1.0)
    folder = tmp_path / "large"
    LDMSuperResolutionPipeline(vqvae=vqvae, unet=plain_unet(6), scheduler=ddim()).save_pretrained(folder)
    theirs, ours = (
        quiet(LDMSuperResolutionPipeline.from_pretrained(folder)),
        quiet(DiffusionPipeline.from_pretrained(folder)),
    )
    assert type(ours) is SuperResolutionPipeline and type(ours.vae) is VQModel
    small = torch.rand(1, 3, 8, 12)
    options = {"num_inference_steps": 4, "output_type": "np"}
    expected = theirs(2 * small - 1, generator=torch.manual_seed(3), **options).images
    found = ours(small, generator=torch.manual_seed(3), **options).images
    assert found.shape == expected.shape == (1, 16, 24, 3) and np.abs(found - expected).max() <= 1e-4


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["text_folder", "plain_folder"])
def test_from_the_hub_and_into_todays_layout(hub, name, request, tmp_path):
    folder = request.getfixturevalue(name)
    hub.add(f"{OWNER}/old", folder)
    pipe = DiffusionPipeline.from_pretrained(f"{OWNER}/old")
    pipe.save_pretrained(tmp_path / "today")
    assert not {"bert", "vqvae"} & {path.name for path in (tmp_path / "today").iterdir()}
    assert not {"bert", "vqvae"} & json.loads((tmp_path / "today" / "model_index.json").read_text()).keys()
    again = DiffusionPipeline.from_pretrained(tmp_path / "today")
    for part, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            other = again.components[part].state_dict()
            assert all(torch.equal(tensor, other[key]) for key, tensor in component.state_dict().items())


def test_tensor_missing_from_the_text_encoder(text_folder):
    path = next((text_folder / "bert").glob("*.safetensors"))
    tensors = load_file(path)
    tensors.pop("model.layers.0.fc1.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"fc1\.weight"):
        DiffusionPipeline.from_pretrained(text_folder)


def test_half_precision(text_folder):
    pipe = DiffusionPipeline.from_pretrained(text_folder, dtype=torch.float16)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.float16}


def test_quiet(text_folder, caplog):
    """diffusers warns of every entry of the index that a class doesn't take."""
    DiffusionPipeline.from_pretrained(text_folder)
    assert not caplog.records


def test_parts_that_no_pipeline_here_has_are_left_out(hub, text_folder):
    """As in the folders of Stable Diffusion 1."""
    path = text_folder / "model_index.json"
    index = json.loads(path.read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]  # gone from transformers
    path.write_text(json.dumps({**index, "requires_safety_checker": True}))
    (text_folder / "feature_extractor").mkdir()
    (text_folder / "feature_extractor" / "preprocessor_config.json").write_text("{}")
    hub.add(f"{OWNER}/old", text_folder)
    for place in (text_folder, f"{OWNER}/old"):
        assert set(DiffusionPipeline.from_pretrained(place).components) == {
            "vae",
            "text_encoder",
            "tokenizer",
            "unet",
            "scheduler",
        }


def test_info(text_folder, plain_folder, capsys):
    """The command calls components as the pipelines do, and knows their sizes."""
    shown = {}
    for folder in (text_folder, plain_folder):
        assert main(["info", str(folder), "--json"]) == 0
        shown[folder] = json.loads(capsys.readouterr().out)
    facts = shown[text_folder]
    assert (facts["task"], facts["context_width"]) == ("text-to-image", 16)
    assert (facts["resolution"], facts["latent_shape"]) == ([16, 16], [4, 8, 8])
    encoder = facts["components"]["text_encoder"]
    assert (encoder["class"], encoder["hidden_size"], encoder["num_hidden_layers"]) == (
        "latentdiff.LDMTextEncoder",
        16,
        2,
    )
    facts = shown[plain_folder]
    assert (facts["task"], facts["resolution"], facts["latent_shape"]) == ("unconditional", [16, 16], [3, 8, 8])
    assert set(facts["components"]) == {"vae", "unet", "scheduler"}
    pipe = DiffusionPipeline.from_pretrained(plain_folder)
    assert facts["parameters"] == sum(p.numel() for part in (pipe.unet, pipe.vae) for p in part.parameters())
