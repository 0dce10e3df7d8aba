"""Folders of diffusers' own UNets load key for key and give the same output; others are refused by name."""

import inspect

import pytest
import torch
from diffusers import UNet2DConditionModel as StockConditionModel
from diffusers import UNet2DModel as StockModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

from latentdiff.errors import ConfigError
from latentdiff.models import stock_config
from latentdiff.models.stock_config import translate_stock_config
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.unet import UNet2DConditionModel

CROSS = {
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
CONDITIONAL = {
    "sd1": {**CROSS, "attention_head_dim": 4},
    "sd2": {**CROSS, "attention_head_dim": [2, 4, 4], "use_linear_projection": True, "upcast_attention": True},
    "depths": {**CROSS, "attention_head_dim": 4, "transformer_layers_per_block": [1, 2, 3]},
    "uneven_heads": {**CROSS, "attention_head_dim": [8, 2, 16], "in_channels": 9, "sample_size": 8},
}
PLAIN = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 16,
}
SCALE_SHIFT = {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32}
UNCONDITIONAL = {
    "ldm": PLAIN,
    "one_head": {**PLAIN, "attention_head_dim": None},
    "no_mid_attention": {**PLAIN, "add_attention": False},
    "resnet_resampling": {
        **PLAIN,
        **SCALE_SHIFT,
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "upsample_type": "resnet",
    },
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONDITIONAL)
@torch.no_grad()
def test_stock_conditional_folder(name, tmp_path):
    torch.manual_seed(0)
    stock = StockConditionModel(**CONDITIONAL[name]).eval()
    stock.save_pretrained(tmp_path)
    ours, info = UNet2DConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    sample, context = torch.randn(2, stock.config.in_channels, 8, 8), torch.randn(2, 5, 24)
    timestep = torch.tensor([3, 731])
    expected = stock(sample, timestep, context).sample
    torch.testing.assert_close(ours(sample, timestep, context).sample, expected, rtol=0, atol=1e-5)
    ours.save_pretrained(tmp_path / "again")
    again = UNet2DConditionModel.from_pretrained(tmp_path / "again")
    assert torch.equal(again(sample, timestep, context).sample, ours(sample, timestep, context).sample)


@pytest.mark.parametrize("name", UNCONDITIONAL)
@torch.no_grad()
def test_stock_unconditional_folder(name, tmp_path):
    torch.manual_seed(0)
    stock = StockModel(**UNCONDITIONAL[name]).eval()
    stock.save_pretrained(tmp_path)
    ours, info = UNet2DConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    sample = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours(sample, 500).sample, stock(sample, 500).sample, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("addition_embed_type", "text_time", "addition_embed_type='text_time' .*SDXL"),
        ("class_embed_type", "timestep", "class_embed_type='timestep'"),
        ("dual_cross_attention", True, "dual_cross_attention=True"),
        ("mid_block_type", "UNetMidBlock2DSimpleCrossAttn", "mid_block_type='UNetMidBlock2DSimpleCrossAttn'"),
        ("mid_block_type", None, "mid_block_type=None"),
        ("act_fn", "gelu", "act_fn='gelu'"),
        ("only_cross_attention", [True, False, False], "only_cross_attention="),
        ("layers_per_block", [1, 2, 2], "layers_per_block="),
        ("cross_attention_dim", [8, 16, 24], "cross_attention_dim="),
        ("time_embedding_dim", 7, "time_embedding_dim=7"),
        ("down_block_types", ["KDownBlock2D"] * 3, "down_block_types='KDownBlock2D'"),
        ("down_block_types", ["AttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"], "mirror image"),
        ("transformer_layers_per_block", [1, [1, 2], 1], "transformer_layers_per_block="),
        ("_class_name", "UNet3DConditionModel", "UNet class 'UNet3DConditionModel'"),
    ],
)
def test_refused_by_name(option, value, message):
    with pytest.raises(ConfigError, match=message):
        translate_stock_config({"_class_name": "UNet2DConditionModel", **CONDITIONAL["sd1"], option: value})


def test_missing_middle_norm_is_refused():
    with pytest.raises(ConfigError, match="attn_norm_num_groups"):
        translate_stock_config({"_class_name": "UNet2DModel", **PLAIN, "resnet_time_scale_shift": "scale_shift"})


def test_mixed_resampling_is_refused():
    with pytest.raises(ConfigError, match="downsample_type"):
        translate_stock_config({"_class_name": "UNet2DModel", **PLAIN, "upsample_type": "resnet"})


@pytest.mark.parametrize("stock", [StockConditionModel, StockModel])
def test_every_stock_option_is_considered(stock):
    known = {
        *stock_config.COPIED,
        *stock_config.TRANSLATED,
        *stock_config.REQUIRED_VALUES,
        *stock_config.WITHOUT_EFFECT,
    }
    assert set(inspect.signature(stock.__init__).parameters) - {"self"} <= known


@torch.no_grad()
def test_ldm_bert():
    torch.manual_seed(0)
    config = LDMBertConfig(vocab_size=50, encoder_layers=2, d_model=32, encoder_ffn_dim=128, max_position_embeddings=9)
    stock = LDMBertModel(config).eval()
    ours = LDMTextEncoder.from_config(config.to_dict()).eval()
    report = ours.load_state_dict(stock.state_dict(), strict=False)
    assert report.missing_keys == [] and set(report.unexpected_keys) == {"to_logits.weight", "to_logits.bias"}
    ids = torch.randint(0, 50, (2, 9))
    expected = stock.model(ids, return_dict=False, output_attentions=False, output_hidden_states=False)[0]
    torch.testing.assert_close(ours(ids).last_hidden_state, expected, rtol=0, atol=1e-5)
