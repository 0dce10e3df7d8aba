"""Configurations of networks and schedulers that name something outside of their folder, or ask for endless memory."""

import json

from hostile import HUGE, TRANSFORMERS, both, config, copied, text

NESTED = "[" * 500 + "]" * 500
DEEP = '{"a":' * 20000 + "1" + "}" * 20000

TEXT_ENCODER = {
    "weights at an absolute path": config(
        "text_encoder", transformers_weights=lambda o: str(o / "text_encoder" / TRANSFORMERS)
    ),
    "weights above the folder": config(
        "text_encoder", transformers_weights="../../outside/text_encoder/model.safetensors"
    ),
    "weights of a table outside": both(
        config("text_encoder", transformers_weights="e.safetensors.index.json"),
        text(
            "text_encoder",
            lambda o: json.dumps({"metadata": {}, "weight_map": {"a": str(o / "text_encoder" / TRANSFORMERS)}}),
            "e.safetensors.index.json",
        ),
    ),
    "other weights of the folder": both(
        config("text_encoder", transformers_weights="other.safetensors"),
        copied(f"text_encoder/{TRANSFORMERS}", "text_encoder/other.safetensors"),
    ),
    "weights at an address": config("text_encoder", transformers_weights="https://example.org/model.safetensors"),
    "another configuration": both(
        config("text_encoder", configuration_files=["config.1.0.0.json"]),
        copied("secret.json", "text_encoder/config.1.0.0.json"),
    ),
    "another configuration outside": config("text_encoder", configuration_files=["../../outside/config.1.0.0.json"]),
    "code by auto_map": config("text_encoder", auto_map={"AutoModel": "owner/evil--code.Net"}),
    "code of the folder by auto_map": both(
        config("text_encoder", auto_map={"AutoModel": "code.Net"}),
        copied("code.py", "text_encoder/code.py"),
    ),
    "a kernel of the hub": config("text_encoder", attn_implementation="kernels-community/flash-attn"),
    "a kernel of the hub, hidden": config("text_encoder", _attn_implementation="owner/evil@main:forward"),
    "a kernel of the hub, deeply hidden": config("text_encoder", _attn_implementation_internal="owner/evil"),
    "a kernel of the hub for a part": config(
        "text_encoder", attn_implementation={"": "eager", "text_config": "owner/evil"}
    ),
    "a kernel of the hub in a part": config("text_encoder", text_config={"attn_implementation": "owner/evil"}),
    "flash attention": config("text_encoder", attn_implementation="flash_attention_2"),
    "experts of the hub": config("text_encoder", experts_implementation="owner/evil"),
    "fusion": config("text_encoder", fusion_config={"patch_embeddings": True}),
    "kernels": config("text_encoder", use_kernels=True, kernel_config={"RMSNorm": "owner/evil:RMSNorm"}),
    "a backbone": config("text_encoder", backbone="microsoft/resnet-50", use_pretrained_backbone=True),
    "bitsandbytes": config("text_encoder", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "gptq": config("text_encoder", quantization_config={"quant_method": "gptq", "bits": 4, "tokenizer": "owner/evil"}),
    "packed in an unknown way": config("text_encoder", quantization_config={"quant_method": "owner/evil"}),
    "packed in a part": config("text_encoder", text_config={"quantization_config": {"quant_method": "fp8"}}),
    "compressed": config("text_encoder", compression_config={"format": "dense"}),
    "a GGUF file": config("text_encoder", gguf_file=lambda o: str(o / "x.gguf")),
    "a name of the hub": config("text_encoder", _name_or_path="openai/clip-vit-large-patch14"),
    "a name that is a path": config("text_encoder", name_or_path=lambda o: str(o / "text_encoder")),
    "a base model": config("text_encoder", base_model_name_or_path="owner/evil"),
    "a data type that is none": config("text_encoder", dtype="load"),
    "a data type that is an object": config("text_encoder", torch_dtype={"a": 1}),
    "an attribute map": config("text_encoder", attribute_map={"hidden_size": "vocab_size"}),
    "a method's name": config("text_encoder", to_dict="x", to_json_string=1),
    "a class's name": config("text_encoder", __class__="x", __dict__={}),
    "another kind of model": config("text_encoder", model_type="bert", architectures=["BertModel"]),
    "a decoder": config("text_encoder", is_encoder_decoder=True, is_decoder=True, add_cross_attention=True),
    "half of the layers": config("text_encoder", num_hidden_layers=1),
    "more layers than weights": config("text_encoder", num_hidden_layers=3),
    "layers without end": config("text_encoder", num_hidden_layers=HUGE),
    "very many layers": config("text_encoder", num_hidden_layers=10**6),
    "words without end": config("text_encoder", vocab_size=HUGE),
    "very many words": config("text_encoder", vocab_size=10**6),
    "widths without end": config("text_encoder", hidden_size=2 * HUGE, intermediate_size=HUGE),
    "positions without end": config("text_encoder", max_position_embeddings=HUGE),
    "labels without end": config("text_encoder", num_labels=HUGE),
    "very many labels": config("text_encoder", num_labels=10**9),
    "no heads": config("text_encoder", num_attention_heads=0),
    "fewer heads than none": config("text_encoder", num_attention_heads=-1),
    "a text as a size": config("text_encoder", hidden_size="16"),
    "a list as a size": config("text_encoder", hidden_size=[16]),
    "nothing as a size": config("text_encoder", hidden_size=None),
    "an object as a size": config("text_encoder", hidden_size={"a": 1}),
    "an unknown activation": config("text_encoder", hidden_act="os.system"),
    "labels that are a list": config("text_encoder", id2label=["a"], label2id=3),
    "a configuration that is a list": text("text_encoder", "[1, 2]"),
    "a configuration that is a text": text("text_encoder", '"config"'),
    "a configuration that is null": text("text_encoder", "null"),
    "a configuration that is empty": text("text_encoder", ""),
    "a configuration without entries": text("text_encoder", "{}"),
    "a configuration that is deep": text("text_encoder", DEEP),
    "a configuration that is rather deep": text("text_encoder", f'{{"a": {NESTED}}}'),
    "a name that stands twice": text(
        "text_encoder", '{"model_type": "clip_text_model", "hidden_size": 16, "hidden_size": 32}'
    ),
    "NaN": text("text_encoder", '{"layer_norm_eps": NaN}'),
    "infinity": text("text_encoder", '{"layer_norm_eps": 1e999}'),
    "a number of many digits": text("text_encoder", f'{{"hidden_size": {"9" * 5000}}}'),
}

NETWORKS = {
    "a first stage that is packed": config("vae", quantization_config={"quant_method": "bitsandbytes"}),
    "a first stage with code": config("vae", auto_map={"AutoModel": "owner/evil--code.Net"}),
    "a first stage of another class": config("vae", _class_name="AutoencoderTiny"),
    "a first stage of no class": config("vae", _class_name=["code", "Net"]),
    "a first stage with a name that is a path": config("vae", _name_or_path=lambda o: str(o / "vae")),
    "a first stage with unknown blocks": config("vae", down_block_types=["os.system"] * 2),
    "a first stage with a text as blocks": config("vae", block_out_channels="816"),
    "a first stage with blocks without end": config("vae", block_out_channels=[HUGE, HUGE]),
    "a first stage with layers without end": config("vae", layers_per_block=HUGE),
    "a first stage with very many layers": config("vae", layers_per_block=10**6),
    "a first stage with channels without end": config("vae", latent_channels=HUGE),
    "a first stage with no channels": config("vae", latent_channels=0),
    "a first stage with no groups": config("vae", norm_num_groups=0),
    "a first stage without a part": config("vae", use_quant_conv=False),
    "a first stage with defaults of nothing": config("vae", _use_default_values=5),
    "a first stage with defaults in the place of its entries": config(
        "vae", _use_default_values=["block_out_channels"]
    ),
    "a first stage with an infinite scale": config("vae", scaling_factor=float("inf")),
    "a first stage with unknown entries": config("vae", dtype="float32", device="cuda", evil=1),
    "a UNet that is packed": config("unet", quantization_config={"quant_method": "torchao", "quant_type": "int8"}),
    "a UNet of a wrong size": config("unet", block_out_channels=[16, 16]),
    "a UNet without attention": config("unet", attention_levels=[False, False], mid_attention=False),
    "a UNet with layers without end": config("unet", layers_per_block=HUGE),
    "a UNet with very many layers": config("unet", layers_per_block=10**6),
    "a UNet with heads without end": config("unet", num_attention_heads=HUGE),
    "a UNet with a context without end": config("unet", cross_attention_dim=HUGE),
    "a UNet with very many channels": config("unet", in_channels=10**6, block_out_channels=[10**5, 10**5]),
    "a UNet whose blocks are an object": config("unet", block_out_channels={"0": 8}),
    "a UNet whose configuration is a list": text("unet", "[]"),
    "a scheduler of endless steps": config("scheduler", num_train_timesteps=HUGE),
    "a scheduler of no steps": config("scheduler", num_train_timesteps=0),
    "a scheduler of a text of steps": config("scheduler", num_train_timesteps="1000"),
    "a scheduler with a text as beta": config("scheduler", beta_start="0.1"),
    "a scheduler with NaN": text("scheduler", '{"_class_name": "DDIMScheduler", "beta_start": NaN}'),
    "a scheduler with betas from a file": config("scheduler", trained_betas=lambda o: str(o / "betas.npy")),
    "a scheduler with an unknown schedule": config("scheduler", beta_schedule="os.system"),
    "a scheduler of another class": config("scheduler", _class_name="EulerDiscreteScheduler"),
    "a scheduler that is a list": text("scheduler", "[1]"),
    "a scheduler that is text": text("scheduler", '"DDIM"'),
    "a scheduler with code": config("scheduler", auto_map={"AutoModel": "code.Net"}),
}
