"""Adapters from anywhere: what their files say can't keep peft busy for ever, and they load whole or not at all."""

import json
import shutil

import pytest
import torch
from hostile import make
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from watch import outcome

from latentdiff import CheckpointError, DiffusionPipeline, InputError, UnsafeCheckpointError

pytestmark = pytest.mark.thorough

FILE = "pytorch_lora_weights.safetensors"
HUGE = 10**12
ENDLESS = "(" * 30 + "a+" + ")+" * 30 + "$"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and the folder of an adapter of its UNet and its text encoder."""
    model, _ = make(tmp_path_factory.mktemp("adapters"))
    pipe = DiffusionPipeline.from_pretrained(model)
    layers, told = {}, {}
    for part, targets in (("unet", ["to_q", "to_v"]), ("text_encoder", ["q_proj"])):
        network = getattr(pipe, part)
        network.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False))
        layers[part] = get_peft_model_state_dict(network)
        config = network.peft_config["default"].to_dict()
        told[part] = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    pipe.save_lora_weights(
        model.parent / "adapter",
        unet_lora_layers=layers["unet"],
        text_encoder_lora_layers=layers["text_encoder"],
        unet_lora_adapter_metadata=told["unet"],
        text_encoder_lora_adapter_metadata=told["text_encoder"],
    )
    return model, model.parent / "adapter"


@pytest.fixture(scope="module")
def loaded(place):
    return DiffusionPipeline.from_pretrained(place[0])


@pytest.fixture
def pipe(loaded):
    """The pipeline without adapters."""
    yield loaded
    loaded.unload_lora_weights()


def told(path):
    """What an adapter's file says of it."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["lora_adapter_metadata"])


def rewritten(folder, tensors=lambda state: state, text=None, **entries):
    """The adapter with other tensors or another configuration."""
    path = folder / FILE
    values = text if text is not None else json.dumps(told(path) | entries)
    state = {name: tensor.contiguous() for name, tensor in tensors(load_file(path)).items()}
    save_file(state, path, metadata={"format": "pt", "lora_adapter_metadata": values})


def entries(**changes):
    """Entries of the UNet's configuration."""
    return lambda folder: rewritten(folder, **{f"unet.{name}": value for name, value in changes.items()})


def named(change):
    """Other names of the tensors."""
    return lambda folder: rewritten(folder, lambda state: {change(name): t for name, t in state.items()}, text="")


def unequal_ranks(state):
    """The first layer has a rank of its own, by which its name becomes an expression."""
    first = min(name for name in state if name.startswith("unet.") and "lora_A" in name)
    second = first.replace("lora_A", "lora_B")
    evil = first.replace("down_blocks", "(d+)+own_blocks")
    wide = {evil: torch.cat([state[first]] * 2), evil.replace("lora_A", "lora_B"): torch.cat([state[second]] * 2, 1)}
    return {name: tensor for name, tensor in state.items() if name not in (first, second)} | wide


def twin(path):
    shutil.copy(path, path.with_stem("twin"))


BAD = {
    "an endless expression": entries(target_modules=ENDLESS),
    "an expression": entries(target_modules=".*"),
    "an expression in a list": entries(target_modules=["to_q", "(to_)+v"]),
    "an expression of what is left out": entries(exclude_modules=ENDLESS),
    "ranks by expressions": entries(rank_pattern={ENDLESS: 2}),
    "scales by expressions": entries(alpha_pattern={ENDLESS: 2}),
    "an expression of layers": entries(layers_pattern=ENDLESS, layers_to_transform=[0]),
    "modules that are kept, by an expression": entries(modules_to_save=[ENDLESS]),
    "parameters by an expression": entries(target_parameters=[ENDLESS]),
    "a very long name": entries(target_modules=["a" * 100_000]),
    "names that are numbers": entries(target_modules=[1, 2]),
    "names in an object": entries(target_modules={"a": 1}),
    "a list of patterns": entries(rank_pattern=["to_q"]),
    "tensors named by expressions": lambda folder: rewritten(folder, unequal_ranks, text=""),
    "a rank without end": entries(r=HUGE),
    "a rank of text": entries(r="2"),
    "a rank that is broken": entries(r=2.5),
    "a rank below one": entries(r=0),
    "ranks without end": entries(rank_pattern={"to_q": HUGE}),
    "another rank than the tensors'": entries(r=1),
    "a scale of text": entries(lora_alpha="4"),
    "a scale of nothing": lambda folder: rewritten(folder, text='{"unet.r": 2, "unet.lora_alpha": NaN}'),
    "an infinite scale": lambda folder: rewritten(folder, text='{"unet.r": 2, "unet.lora_alpha": 1e999}'),
    "code of Megatron": entries(megatron_config={"a": 1}, megatron_core="code"),
    "an initialisation that changes the model": entries(init_lora_weights="pissa"),
    "an initialisation of an unknown kind": entries(init_lora_weights="owner/evil"),
    "quantised weights": entries(loftq_config={"loftq_bits": 4}),
    "another kind of adapter": entries(peft_type="PREFIX_TUNING"),
    "biases of the model": entries(bias="all"),
    "layers twice": entries(layer_replication=[[0, 10**9]]),
    "trainable tokens": entries(trainable_token_indices=list(range(100))),
    "an unknown entry": entries(evil="owner/evil"),
    "a configuration that is a list": lambda folder: rewritten(folder, text="[1]"),
    "a configuration that is no JSON": lambda folder: rewritten(folder, text="{"),
    "a configuration in which a name stands twice": lambda folder: rewritten(folder, text='{"unet.r": 2, "unet.r": 3}'),
    "tensors of unknown layers": named(lambda name: name.replace("to_q", "to_x")),
    "a tensor less": lambda folder: rewritten(folder, lambda state: dict(sorted(state.items())[1:])),
    "half a layer": lambda folder: rewritten(folder, lambda state: dict(sorted(state.items())[1:]), text=""),
    "scales of DoRA": lambda folder: rewritten(folder, lambda s: s | {"unet.mid_block.dora_scale": torch.ones(2)}),
    "values that aren't finite": lambda folder: rewritten(folder, lambda s: {n: t / 0 for n, t in s.items()}),
    "tensors without a shape": lambda folder: rewritten(folder, lambda s: {n: t.sum() for n, t in s.items()}),
    "very many tensors": lambda folder: rewritten(
        folder, lambda s: s | {f"unet.x{number}.lora_A.weight": torch.zeros(1) for number in range(20_000)}
    ),
    "no tensors": lambda folder: rewritten(folder, lambda state: {}),
    "a file that is text": lambda folder: (folder / FILE).write_text("adapter"),
    "a link out of the folder": lambda folder: ((folder / FILE).unlink(), (folder / FILE).symlink_to("/etc/hostname")),
    "two files": lambda folder: [shutil.move(folder / FILE, folder / "a.safetensors"), twin(folder / "a.safetensors")],
    "a pickle": lambda folder: (folder / FILE).rename(folder / "pytorch_lora_weights.bin"),
    "nothing": lambda folder: (folder / FILE).unlink(),
}
GOOD = {
    "as it is": lambda folder: None,
    "without a configuration": lambda folder: rewritten(folder, text=""),
    "of a model on the hub": entries(base_model_name_or_path="owner/evil", revision="main"),
    "from a newer peft": entries(peft_version="9.9", something_new=None, something_else=False),
    "more layers than tensors": entries(target_modules=["to_q", "to_k", "to_v"]),  # the tensors decide
    "fewer layers than tensors": entries(target_modules=["to_q"]),
    "layers by their full names": entries(
        target_modules=["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "to_q", "to_v"]
    ),
    "under another name": lambda folder: (folder / FILE).rename(folder / "apples.safetensors"),
}


def adapters(pipe):
    """The tensors of all adapters in the pipeline."""
    return {
        f"{part}.{name}": tensor.clone()
        for part in ("unet", "text_encoder")
        for name, tensor in getattr(pipe, part).state_dict().items()
        if "lora" in name
    }


@pytest.mark.parametrize("name", BAD)
def test_an_adapter_is_refused_in_one_line_and_leaves_nothing(name, place, pipe, tmp_path):
    folder = shutil.copytree(place[1], tmp_path / "adapter")
    BAD[name](folder)
    weights = {part: dict(getattr(pipe, part).state_dict()) for part in ("unet", "text_encoder", "vae")}
    line = outcome(lambda: pipe.load_lora_weights(folder), folder)
    assert isinstance(line, str) and "\n" not in line and str(folder) in line and "is no adapter for this" in line
    assert not adapters(pipe)
    for part, state in weights.items():
        after = getattr(pipe, part).state_dict()
        assert after.keys() == state.keys() and all(torch.equal(tensor, after[key]) for key, tensor in state.items())


@pytest.mark.parametrize("name", GOOD)
def test_an_adapter_loads_whole(name, place, pipe, tmp_path):
    folder = shutil.copytree(place[1], tmp_path / "adapter")
    GOOD[name](folder)
    assert outcome(lambda: pipe.load_lora_weights(folder, adapter_name="apples"), folder) is None
    stored = load_file(place[1] / FILE)
    found = adapters(pipe)
    assert len(found) == len(stored) and all(
        any(torch.equal(tensor, other) for other in found.values()) for tensor in stored.values()
    )


def test_a_refused_adapter_leaves_the_others(place, pipe, tmp_path):
    pipe.load_lora_weights(place[1])
    before = adapters(pipe)
    folder = shutil.copytree(place[1], tmp_path / "adapter")
    BAD["tensors of unknown layers"](folder)
    with pytest.raises(CheckpointError):
        pipe.load_lora_weights(folder)
    after = adapters(pipe)
    assert before and after.keys() == before.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    with pytest.raises(InputError, match="has an adapter 'default_0' already"):
        pipe.load_lora_weights(place[1], adapter_name="default_0")


def test_tensors_that_are_given_are_checked_too(place, pipe):
    state = load_file(place[1] / FILE)
    with pytest.raises(CheckpointError, match="no plain name of a layer"):
        pipe.load_lora_weights({name.replace("to_q", "(t+)+"): tensor for name, tensor in state.items()})


def test_pickles_and_names_that_lead_out_are_refused(place, pipe, tmp_path):
    folder = shutil.copytree(place[1], tmp_path / "adapter")
    BAD["a pickle"](folder)
    with pytest.raises(UnsafeCheckpointError, match="pickled"):
        pipe.load_lora_weights(folder)
    for options in ({"weight_name": "../x.safetensors"}, {"subfolder": "/etc"}):
        with pytest.raises(InputError, match="inside the adapter's folder"):
            pipe.load_lora_weights(folder, **options)
    with pytest.raises(InputError, match="takes no wieght_name"):
        pipe.load_lora_weights(folder, wieght_name="x")


def test_a_missing_folder_is_not_looked_up_on_the_hub(hub, pipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/lora", "runs/x/lora", "./lora", "~/lora", tmp_path / "lora"):
        with pytest.raises(CheckpointError, match=f"no such folder {name}"):
            pipe.load_lora_weights(name)
    assert not hub.requests


def test_an_adapter_on_the_hub(hub, place, pipe):
    hub.add("tester/lora", place[1])
    pipe.load_lora_weights("tester/lora")
    assert adapters(pipe)
    with pytest.raises(CheckpointError, match="no file nothing"):
        pipe.load_lora_weights("tester/lora", weight_name="nothing.safetensors")
