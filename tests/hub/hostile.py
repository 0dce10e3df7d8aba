"""Changes of a good model's folder that make it reach out of itself, or lie about what it is."""

import json
import os
import shutil

import torch
from safetensors.torch import load_file, save_file
from tiny import _parts, write_clip_tokenizer
from transformers import CLIPTextConfig, CLIPTextModel

from latentdiff import TextToImagePipeline

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"
HUGE = 10**12
WEIGHTS = {"unet": DIFFUSERS, "vae": DIFFUSERS, "text_encoder": TRANSFORMERS}
CONFIGS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
}


def make(top):
    """A model, and beside it what it must not read: another model, whose weights are 7, and code that leaves a mark."""
    torch.manual_seed(0)
    tokenizer = write_clip_tokenizer(top)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    TextToImagePipeline(text_encoder=CLIPTextModel(config), tokenizer=tokenizer, **_parts(16)).save_pretrained(
        top / "model"
    )
    outside = shutil.copytree(top / "model", top / "outside")
    for name, file in WEIGHTS.items():
        state = {key: torch.full_like(tensor, 7) for key, tensor in load_file(outside / name / file).items()}
        save_file(state, outside / name / file, metadata={"format": "pt"})
    rules = json.loads((outside / "tokenizer" / "tokenizer.json").read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (outside / "tokenizer" / "tokenizer.json").write_text(json.dumps(rules))
    (outside / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    (outside / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    mark = f"open({str(top / 'mark')!r}, 'w').close()\n"
    (outside / "code.py").write_text(f"{mark}class Net: pass\n")
    (outside / "secret.json").write_text(json.dumps({"secret": "1234"}))
    return top / "model", outside


def edit(path, *removed, **entries):
    """Change entries of an object, and remove some."""
    values = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in removed}))


def config(component, *removed, **entries):
    """A change of a component's configuration; functions are called with the folder outside."""

    def change(model, outside):
        called = {name: value(outside) if callable(value) else value for name, value in entries.items()}
        edit(model / component / CONFIGS[component], *removed, **called)

    return change


def text(component, content, file=None):
    """Another text in the place of a component's configuration, or of another file."""

    def change(model, outside):
        path = model / component / (file or CONFIGS[component])
        path.parent.mkdir(exist_ok=True)
        path.write_text(content(outside) if callable(content) else content)

    return change


def index(*removed, **entries):
    return lambda model, outside: edit(model / "model_index.json", *removed, **entries)


def rules(**entries):
    """A change of the tokenizer's rules."""
    return lambda model, outside: edit(model / "tokenizer" / "tokenizer.json", **entries)


def weights(component, change):
    """Other tensors in the place of a component's."""

    def apply(model, outside):
        path = model / component / WEIGHTS[component]
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return apply


def both(*changes):
    """Several changes, one after the other."""

    def apply(model, outside):
        for change in changes:
            change(model, outside)

    return apply


def link(path, target=None):
    """A link in the place of a file or folder of the model: to another path, or to the same one outside."""

    def change(model, outside):
        place = model / path
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        place.symlink_to(outside / path if target is None else target)

    return change


def table(component, shards, **more):
    """A table of shards in the place of a component's weights; the weights are kept beside it under another name."""

    def change(model, outside):
        path = model / component / WEIGHTS[component]
        state = load_file(path)
        path.rename(path.with_name(path.name.replace(".safetensors", "-00001-of-00001.safetensors")))
        found = shards(state, outside, path.name) if callable(shards) else shards
        values = {"metadata": {}, "weight_map": found} | more
        (model / component / f"{path.name}.index.json").write_text(json.dumps(values))

    return change


def everything(place):
    """A table of shards that has all tensors in one place."""
    return lambda state, outside, file: {key: place(outside, file) for key in state}


def fifo(path):
    """A pipe in the place of a file, from which nobody would ever read anything."""

    def change(model, outside):
        (model / path).unlink()
        os.mkfifo(model / path)

    return change


def copied(source, target):
    """A file from outside at some place in the folder."""

    def change(model, outside):
        (model / target).parent.mkdir(exist_ok=True)
        shutil.copy(outside / source, model / target)

    return change


def moved(source, target):
    """Another name for a file of the folder."""

    def change(model, outside):
        (model / target).parent.mkdir(exist_ok=True)
        (model / source).rename(model / target)

    return change


def gone(path):
    """A file less."""
    return lambda model, outside: (model / path).unlink()


def adapter(config=True, **entries):
    """An adapter's configuration in the folder of the text encoder, with or without that of the model itself."""

    def change(model, outside):
        folder = model / "text_encoder"
        named = {name: value(outside) if callable(value) else value for name, value in entries.items()}
        settings = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], **named}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
        if not config:
            (folder / "config.json").unlink()

    return change
