"""Adapters as diffusers' scripts write them for Stable Diffusion, of the text encoder too."""

import copy

import numpy as np
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from tiny import text_to_image, write_clip_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel

from latentdiff import TextToImagePipeline

TARGETS = {"unet": ["to_q", "to_v"], "text_encoder": ["q_proj", "v_proj"]}


def test_an_adapter_of_unet_and_text_encoder(tmp_path):
    tokenizer = write_clip_tokenizer(tmp_path)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
    )
    plain = text_to_image(tmp_path)
    parts = {"vae": plain.vae, "unet": plain.unet, "scheduler": plain.scheduler, "tokenizer": tokenizer}
    pipe = TextToImagePipeline(text_encoder=CLIPTextModel(config).eval(), **parts)
    pipe.set_progress_bar_config(disable=True)

    def image():
        return pipe("a cat", num_inference_steps=2, seed=0, output_type="np").images

    before, kept, layers = image(), {name: copy.deepcopy(getattr(pipe, name)) for name in TARGETS}, {}
    for name, targets in TARGETS.items():
        part = getattr(pipe, name)
        part.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False))
        layers[name] = convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
    full = image()
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "both", unet_lora_layers=layers["unet"], text_encoder_lora_layers=layers["text_encoder"]
    )
    pipe.register_modules(**kept)
    assert np.array_equal(image(), before) and np.abs(full - before).max() > 1e-3
    pipe.load_lora_weights(tmp_path / "both", adapter_name="both")
    assert np.allclose(image(), full, atol=1e-5)
    pipe.set_adapters(["both"], [0.0])
    assert np.allclose(image(), before, atol=1e-5)
