"""Files that people take for a model: the error says in one line what they are and what to try."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from twins import zoo_plan

from latentdiff.cli.main import main
from latentdiff.conversion import load_original
from latentdiff.conversion.foreign import FOREIGN_KINDS, refuse_foreign
from latentdiff.conversion.zoo import zoo_names
from latentdiff.errors import CheckpointError

# Names as they stand in published files.
FILES = {
    "a LoRA": [
        ["lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight"],
        ["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"],
        ["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"],
        ["unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight"],
        ["lora_unet_mid_block_attentions_0_proj_in.hada_w1_a"],
    ],
    "a ControlNet": [
        ["control_model.input_blocks.0.0.weight", "model.diffusion_model.input_blocks.0.0.weight"],
        ["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
    ],
    "the depth-guided model": [["depth_model.model.pretrained.model.norm.weight", "model_ema.decay"]],
    "the x4 upscaler": [["low_scale_model.betas", "model.diffusion_model.label_emb.weight"]],
    "Stable unCLIP": [["noise_augmentor.data_mean", "embedder.model.visual.proj"]],
    "InstructPix2Pix": [
        [
            "model.diffusion_model.input_blocks.0.0.weight",
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        ]
    ],
    "a model that is conditioned on an image by CLIP": [
        ["cond_stage_model.transformer.vision_model.post_layernorm.weight"],
        ["cc_projection.weight", "cond_stage_model.model.visual.proj"],
    ],
    "a model with embeddings of numbers": [["model.diffusion_model.label_emb.0.0.weight"]],
    "a motion module or a video model": [
        ["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"],
        ["model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight"],
    ],
    "GLIGEN": [["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.fuser.linear.weight"]],
    "an adapter of images": [["ip_adapter.1.to_k_ip.weight"], ["image_proj.proj.weight"], ["body.0.block1.weight"]],
    "a textual inversion": [["string_to_param.*"], ["emb_params"], ["<cat-toy>"]],
    "Stable Diffusion XL": [["conditioner.embedders.1.model.ln_final.weight", "model.diffusion_model.out.2.weight"]],
    "a diffusion transformer": [
        ["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"],
        ["double_blocks.0.img_attn.qkv.weight"],
        ["model.diffusion_model.single_blocks.0.linear1.weight"],
    ],
    "a VQGAN transformer": [["transformer.tok_emb.weight", "first_stage_model.encoder.conv_in.weight"]],
    "a first stage with a Gumbel quantiser": [["quantize.embed.weight", "encoder.conv_in.weight"]],
    "a component in diffusers' layout": [
        ["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
        ["encoder.conv_in.weight", "encoder.down_blocks.0.resnets.0.conv1.weight"],
    ],
    "a CLIP model alone": [["text_model.final_layer_norm.weight"], ["visual.proj"]],
    "a UNet alone": [["time_embed.0.weight", "input_blocks.0.0.weight", "output_blocks.0.0.in_layers.0.weight"]],
    "an image upscaler": [["params_ema.conv_first.weight"], ["conv_first.weight", "body.0.rdb1.conv1.weight"]],
    "a GAN": [["g_ema.convs.0.conv.weight", "d.final_conv.0.weight"], ["synthesis.b4.const"], ["netG.model.1.weight"]],
}
CASES = [(what, names) for what, files in FILES.items() for names in files]


@pytest.mark.parametrize(("what", "names"), CASES)
@pytest.mark.parametrize("config", [None, "sd-1"])
def test_each_is_called_by_its_name(what, names, config):
    with pytest.raises(CheckpointError) as caught:
        load_original({name: torch.ones(2, 8) for name in names}, config)
    assert str(caught.value).startswith(f"the state dict is {what}")
    assert "; " in str(caught.value) and "\n" not in str(caught.value)


def test_all_kinds_are_tested():
    assert all(any(kind.what.startswith(what) for what in FILES) for kind in FOREIGN_KINDS)
    assert len(FILES) == len(FOREIGN_KINDS)


@pytest.mark.thorough
@pytest.mark.parametrize("name", zoo_names())
def test_no_model_of_the_zoo_is_taken_for_one(name):
    plan = zoo_plan(name)
    shapes = {key: shape for part in plan.parts.values() for key, shape in part.map.original_shapes.items()}
    more = ["loss.discriminator.main.0.weight", "model_ema.decay", "cond_stage_model.transformer.to_logits.weight"]
    refuse_foreign("it", shapes | dict.fromkeys(more, (2, 2)))
    alone = [kind for kind in FOREIGN_KINDS if kind.channels is None]
    assert not [key for key in [*shapes, *more] for kind in alone if re.search(kind.names, key)]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"g": {"style.1.weight": torch.ones(2)}, "g_ema": {"style.1.weight": torch.ones(2)}, "step": 3}, "a GAN"),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 768)}}, "a textual inversion"),
        ({"params_ema": {"conv_first.weight": torch.ones(2)}}, "an image upscaler"),
        ({"<cat-toy>": torch.ones(768)}, "a textual inversion"),
    ],
)
def test_pickles_of_several_state_dicts(tmp_path, capsys, content, what):
    path = tmp_path / "file.pt"
    torch.save(content, path)
    for command in (["info", str(path)], ["convert", str(path), str(tmp_path / "out")]):
        assert main(command) == 2
        assert f"{path} is {what}" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.pt"]


def test_lora_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "style.safetensors"
    save_file({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(4, 4)}, path)
    assert main(["info", str(path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert json.dumps(str(path))[1:-1] in err and "load_lora_adapter" in err
