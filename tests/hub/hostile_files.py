"""Indices, weights, tokenizers and links that lead out of a model's folder, or aren't what belongs there."""

import json

import torch
from hostile import (
    DIFFUSERS,
    HUGE,
    TRANSFORMERS,
    adapter,
    both,
    config,
    copied,
    everything,
    fifo,
    gone,
    index,
    link,
    moved,
    rules,
    table,
    text,
    weights,
)

UNET, ENCODER = f"unet/{DIFFUSERS}", f"text_encoder/{TRANSFORMERS}"
TOKENIZER = "tokenizer/tokenizer.json"

ENDLESS = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": True}
PADDING = {
    "strategy": {"Fixed": HUGE},
    "direction": "Right",
    "pad_to_multiple_of": HUGE,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "a",
}
OF_FILE = index(tokenizer=["transformers", "PreTrainedTokenizerFast"])  # the rules are the file's, not the class's

INDEX = {
    "an index that is a list": lambda m, o: (m / "model_index.json").write_text("[]"),
    "a class that is a list": index(_class_name=["code", "Pipeline"]),
    "a component that is an object": index(vae={"library": "diffusers"}),
    "a component that is a text": index(vae="AutoencoderKL"),
    "a component of three words": index(vae=["diffusers", "AutoencoderKL", "x"]),
    "a component of another module": index(vae=["os", "system"]),
    "a component of a module of the folder": both(index(vae=["code", "Net"]), copied("code.py", "code.py")),
    "a component of a module in the component": both(index(vae=["vae", "Net"]), copied("code.py", "vae/vae.py")),
    "a component that is a path": index(**{"../outside/vae": ["diffusers", "AutoencoderKL"]}),
    "a component that reads other folders": index(vae=["diffusers", "MultiControlNetModel"]),
    "a component that is a pipeline": index(vae=["diffusers", "StableDiffusionPipeline"]),
    "a component that chooses its class": index(vae=["diffusers", "AutoModel"]),
    "an encoder that chooses its class": index(text_encoder=["transformers", "AutoModel"]),
    "an encoder with a backbone": index(text_encoder=["transformers", "DetrModel"]),
    "an encoder of a made-up class": index(text_encoder=["transformers", "EvilModel"]),
    "an encoder that reads more files": index(text_encoder=["transformers", "Qwen2_5OmniForConditionalGeneration"]),
    "a tokenizer that chooses its class": index(tokenizer=["transformers", "AutoTokenizer"]),
    "a tokenizer that runs programs": index(tokenizer=["transformers", "BertJapaneseTokenizer"]),
    "a tokenizer that reads pickles": index(tokenizer=["transformers", "TransfoXLTokenizer"]),
    "two first stages": both(
        index(vqvae=["diffusers", "AutoencoderKL"]), copied("vae/config.json", "vqvae/config.json")
    ),
    "a pipeline with code": copied("code.py", "pipeline.py"),
    "a pipeline with code of no name": copied("code.py", "None.py"),
    "code by the name of a library": copied("code.py", "vae/diffusers.py"),
    "code by the name of our library": copied("code.py", "unet/latentdiff.py"),
    "code by the name of a library of encoders": copied("code.py", "text_encoder/transformers.py"),
    "no first stage": index(vae=[None, None]),
}

WEIGHTS = {
    "shards at absolute paths": table("text_encoder", everything(lambda o, f: str(o / ENCODER))),
    "shards above the folder": table(
        "text_encoder", everything(lambda o, f: "../../outside/text_encoder/model.safetensors")
    ),
    "shards of the unet at absolute paths": table("unet", everything(lambda o, f: str(o / UNET))),
    "shards in another component": table("unet", everything(lambda o, f: f"../vae/{DIFFUSERS}")),
    "shards on a drive": table("unet", everything(lambda o, f: "C:evil.safetensors")),
    "shards that aren't there": table("unet", everything(lambda o, f: "gone.safetensors")),
    "shards that are pickles": both(
        table("unet", everything(lambda o, f: "evil.bin")), text("unet", "pickle", "evil.bin")
    ),
    "shards that are numbers": table("unet", everything(lambda o, f: 5)),
    "shards that are lists": table("unet", everything(lambda o, f: [f])),
    "a table that is a list": table("unet", ["a"]),
    "a table that is empty": table("unet", {}),
    "a table whose metadata is a list": table("text_encoder", everything(lambda o, f: f), metadata=[1]),
    "a table that lacks tensors": table(
        "unet", lambda s, o, f: dict.fromkeys(list(s)[1:], f.replace(".safetensors", "-00001-of-00001.safetensors"))
    ),
    "a table of tensors that aren't there": table(
        "unet", lambda s, o, f: dict.fromkeys([*s, "x"], f.replace(".safetensors", "-00001-of-00001.safetensors"))
    ),
    "a right table": table(
        "unet", lambda s, o, f: dict.fromkeys(s, f.replace(".safetensors", "-00001-of-00001.safetensors"))
    ),
    "shards without a table": moved(UNET, "unet/diffusion_pytorch_model-00001-of-00002.safetensors"),
    "a table and a file": both(
        copied(UNET, "unet/other.safetensors"),
        text("unet", '{"metadata": {}, "weight_map": {"a": "other.safetensors"}}', f"{DIFFUSERS}.index.json"),
    ),
    "weights under two names": copied(ENCODER, f"text_encoder/{DIFFUSERS}"),
    "a training checkpoint": copied(ENCODER, "text_encoder/shard-00001-model-00001-of-00001.safetensors"),
    "an adapter": adapter(),
    "an adapter of a model outside": adapter(config=False, base_model_name_or_path=lambda o: str(o / "text_encoder")),
    "an adapter of a model on the hub": adapter(config=False, base_model_name_or_path="owner/evil"),
    "an adapter with an endless expression": adapter(target_modules="(a+)+$"),
    "no weights": gone(UNET),
    "pickled weights": moved(UNET, "unet/diffusion_pytorch_model.bin"),
    "pickled weights beside the others": both(
        text("unet", "pickle", "diffusion_pytorch_model.bin"), text("text_encoder", "pickle", "pytorch_model.bin")
    ),
    "weights that are text": text("unet", "weights", DIFFUSERS),
    "weights of endless size": text("unet", "\x7f" * 8 + "{}", DIFFUSERS),
    "a layer more": weights(
        "text_encoder",
        lambda s: (
            s
            | {name.replace("layers.0", "layers.7"): tensor.clone() for name, tensor in s.items() if "layers.0" in name}
        ),
    ),
    "a head more": weights("text_encoder", lambda s: s | {"text_projection.weight": torch.zeros(16, 16)}),
    "positions more": weights("text_encoder", lambda s: s | {"embeddings.position_ids": torch.arange(16)[None]}),
    "a tensor more of the unet": weights("unet", lambda s: s | {"extra.weight": torch.zeros(3)}),
    "a tensor less of the text encoder": weights("text_encoder", lambda s: dict(list(s.items())[1:])),
    "a tensor of whole numbers": weights(
        "vae", lambda s: {n: t.to(torch.int32) if t.ndim == 1 else t for n, t in s.items()}
    ),
    "a tensor turned": weights(
        "unet", lambda s: {n: t.flip(0).T.contiguous() if t.ndim == 2 else t for n, t in s.items()}
    ),
    "under older names": weights(
        "text_encoder", lambda s: {f"text_model.{name}": tensor for name, tensor in s.items()}
    ),
}

LINKS = {
    "a linked configuration": link("vae/config.json"),
    "a linked secret": link("vae/config.json", "../../outside/secret.json"),
    "linked weights": link(UNET),
    "linked weights of the text encoder": link(ENCODER),
    "a linked component": link("vae"),
    "a linked component, by name": link("text_encoder", "../outside/text_encoder"),
    "a linked tokenizer": link(TOKENIZER),
    "a linked scheduler": link("scheduler/scheduler_config.json"),
    "a linked index": link("model_index.json"),
    "a linked card": link("README.md", "../outside/secret.json"),
    "a link in a circle": link("vae/config.json", "config.json"),
    "a link to nothing": link("vae/config.json", "nothing.json"),
    "a link to endless zeros": link("vae/config.json", "/dev/zero"),
    "endless weights": link(UNET, "/dev/zero"),
    "a linked folder of templates": link("tokenizer/additional_chat_templates", "../../outside"),
    "a linked template": both(
        text("tokenizer", "x", "chat_template.jinja"),
        lambda m, o: (m / "tokenizer" / "additional_chat_templates").mkdir(),
        link("tokenizer/additional_chat_templates/a.jinja", "../../../outside/secret.json"),
    ),
    "a pipe of a tokenizer": fifo(TOKENIZER),
    "two pipes": both(gone("vae/config.json"), fifo(UNET)),
    "a pipe": fifo("vae/config.json"),
    "weights that are a pipe": fifo(UNET),
    "a pipe of an index": fifo("model_index.json"),
    "a folder in the place of a file": both(gone("vae/config.json"), text("vae/config.json", "{}", "config.json")),
    "a link within the folder": both(moved(UNET, "shared/unet.safetensors"), link(UNET, "../shared/unet.safetensors")),
}

TOKENIZERS = {
    "vocabulary of a path": config("tokenizer", vocab=lambda o: str(o / "tokenizer" / "vocab.json")),
    "vocabulary of a path, without its own": both(
        gone(TOKENIZER),
        config(
            "tokenizer",
            vocab=lambda o: str(o / "tokenizer" / "vocab.json"),
            merges=lambda o: str(o / "tokenizer" / "merges.txt"),
        ),
    ),
    "vocabulary of files elsewhere": config(
        "tokenizer",
        vocab_file=lambda o: str(o / "tokenizer" / "vocab.json"),
        merges_file=lambda o: str(o / "tokenizer" / "merges.txt"),
        tokenizer_file=lambda o: str(o / TOKENIZER),
    ),
    "rules by another name": config("tokenizer", fast_tokenizer_files=["../../outside/tokenizer/tokenizer.4.0.json"]),
    "a tokenizer's arguments": config("tokenizer", init_inputs=[lambda o: 1 and "/etc/passwd"][:0] or ["/etc/passwd"]),
    "a tokenizer of a GGUF file": config("tokenizer", gguf_file="evil.gguf", name_or_path="owner/evil"),
    "a tokenizer's name": config("tokenizer", name_or_path="openai/clip-vit-large-patch14"),
    "a tokenizer with code": config("tokenizer", auto_map={"AutoTokenizer": ["code.Net", None]}),
    "an object for a tokenizer": config("tokenizer", tokenizer_object={"a": 1}),
    "the special tokens' file elsewhere": config("tokenizer", special_tokens_map_file=lambda o: str(o / "secret.json")),
    "special tokens that are files": text(
        "tokenizer",
        lambda o: json.dumps({"tokenizer_file": str(o / TOKENIZER), "vocab_file": str(o / "tokenizer" / "vocab.json")}),
        "special_tokens_map.json",
    ),
    "special tokens that are a list": text("tokenizer", "[1]", "special_tokens_map.json"),
    "special tokens that are numbers": text("tokenizer", '{"unk_token": 5}', "special_tokens_map.json"),
    "nothing for words that are unknown": config("tokenizer", unk_token=""),
    "nothing that fills up": config("tokenizer", "pad_token"),
    "added tokens of endless numbers": config("tokenizer", added_tokens_decoder={str(HUGE): {"content": "x"}}),
    "added tokens of no numbers": config("tokenizer", added_tokens_decoder={"x": {"content": "x"}}),
    "added tokens in a list": config("tokenizer", added_tokens_decoder=[1]),
    "added tokens that are a list": text("tokenizer", "[1]", "added_tokens.json"),
    "added tokens without end": text("tokenizer", f'{{"x": {HUGE}}}', "added_tokens.json"),
    "added tokens that are no numbers": text("tokenizer", '{"x": "y"}', "added_tokens.json"),
    "a tokenizer that is a list": text("tokenizer", "[]"),
    "rules that are a list": text("tokenizer", "[]", "tokenizer.json"),
    "rules of nothing": text("tokenizer", "{}", "tokenizer.json"),
    "rules without a vocabulary": text("tokenizer", '{"model": {"type": "BPE"}}', "tokenizer.json"),
    "a vocabulary of texts": text(
        "tokenizer", '{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}', "tokenizer.json"
    ),
    "a vocabulary of negative numbers": text(
        "tokenizer", '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', "tokenizer.json"
    ),
    "an endless expression of a tokenizer with rules of its own": rules(pre_tokenizer=ENDLESS),
    "an endless expression": both(OF_FILE, rules(pre_tokenizer=ENDLESS)),
    "an endless expression, deeply hidden": both(
        OF_FILE, rules(pre_tokenizer={"type": "Sequence", "pretokenizers": [ENDLESS, ENDLESS]})
    ),
    "a normalizer with an endless expression": both(
        OF_FILE, rules(normalizer={"type": "Replace", "pattern": {"Regex": r"(\w+\s?)*$"}, "content": ""})
    ),
    "endless padding": both(OF_FILE, rules(padding=PADDING)),
    "endless truncation": both(OF_FILE, rules(truncation={"max_length": HUGE, "stride": HUGE, "strategy": "x"})),
    "rules by an unknown name": both(OF_FILE, rules(pre_tokenizer={"type": "Evil"})),
    "rules that are texts": both(OF_FILE, rules(pre_tokenizer="Evil", normalizer=5)),
    "rules of the file": OF_FILE,
    "no vocabulary": gone(TOKENIZER),
    "half a vocabulary": both(gone(TOKENIZER), copied("tokenizer/vocab.json", "tokenizer/vocab.json")),
    "a template of chats": text("tokenizer", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "chat_template.jinja"),
}
