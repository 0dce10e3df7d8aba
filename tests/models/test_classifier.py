"""The noisy-latent classifier: the original's logits, files, sizes, refusals."""

import pytest
import torch
from golden_weights import GOLDEN, state_dict
from safetensors.torch import load_file

from latentdiff import CheckpointError, ConfigError, InputError, NoisyLatentClassifier
from latentdiff.conversion import load_original
from latentdiff.conversion.convert import convert_original, save_original
from latentdiff.conversion.to_diffusers import save_diffusers

POOLS = ("attention", "adaptive")
SMALL = {
    "sample_size": 8,
    "num_classes": 3,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "attention_levels": (False, True),
    "num_head_channels": 16,
    "norm_num_groups": 8,
}
VARIANTS = {
    "attention": {},
    "adaptive": {"pool": "adaptive"},
    "resampling": {"resnet_resampling": True, "resnet_time_scale_shift": "scale_shift"},
}


def original(pool):
    """The configuration and state dict as the original code has them."""
    params = {"image_size": 8, "in_channels": 3, "model_channels": 32, "out_channels": 10, "num_res_blocks": 1}
    params |= {"attention_resolutions": [2], "channel_mult": [1, 1], "num_head_channels": 32, "pool": pool}
    node = {"target": "ldm.modules.diffusionmodules.openaimodel.EncoderUNetModel", "params": params}
    weights = state_dict("aux_classifier")
    state = {key.removeprefix(f"{pool}."): value for key, value in weights.items() if key.startswith(f"{pool}.")}
    return node, state


def make(**options):
    """A classifier with random weights everywhere."""
    torch.manual_seed(0)
    model = NoisyLatentClassifier(**{**SMALL, **options}).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("pool", POOLS)
@torch.no_grad()
def test_logits_are_the_originals(pool):
    node, state = original(pool)
    model = load_original(state, node).components["classifier"]
    io = load_file(GOLDEN / "aux_classifier" / "io.safetensors")
    logits = model(io[f"{pool}.x"], io[f"{pool}.t"])
    torch.testing.assert_close(logits, io[f"{pool}.logits"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_an_original_converts_to_a_folder_that_loads(tmp_path):
    node, state = original("attention")
    torch.save({"state_dict": state}, tmp_path / "classifier.ckpt")
    convert_original(tmp_path / "classifier.ckpt", tmp_path / "out", node, dtype=torch.float32)
    model = NoisyLatentClassifier.from_pretrained(tmp_path / "out")
    io = load_file(GOLDEN / "aux_classifier" / "io.safetensors")
    torch.testing.assert_close(model(io["attention.x"], io["attention.t"]), io["attention.logits"], rtol=0, atol=1e-5)
    for save in (save_original, lambda components, out: save_diffusers(None, components, out)):
        with pytest.raises(ConfigError):
            save({"classifier": model}, tmp_path / "back")
        assert not (tmp_path / "back").exists()


def test_a_missing_tensor_is_named():
    node, state = original("attention")
    del state["out.2.positional_embedding"]
    with pytest.raises(CheckpointError, match=r"classifier does not fit its config: 1 missing \(out\.2\.pos"):
        load_original(state, node)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_batch_equals_single_latents_and_a_saved_model_the_one_in_memory(variant, tmp_path):
    model = make(**VARIANTS[variant], class_names=["cat", "dog", "star"])
    latents, timesteps = torch.randn(3, 4, 8, 8), torch.tensor([3, 500, 999])
    logits = model(latents, timesteps)
    for i in range(3):
        torch.testing.assert_close(model(latents[i : i + 1], timesteps[i])[0], logits[i], rtol=0, atol=1e-5)
    assert logits.std(dim=0).min() > 1e-3, "the logits don't depend on the input"
    model.save_pretrained(tmp_path)
    loaded = NoisyLatentClassifier.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())
    torch.testing.assert_close(loaded(latents, timesteps), logits, rtol=0, atol=1e-5)  # alignment changes the last bit
    assert loaded.label_ids(["star", 0]).tolist() == [2, 0]


def test_gradients_reach_the_latents_and_every_weight():
    model = make()
    latents = torch.randn(2, 4, 8, 8, requires_grad=True)
    model(latents, torch.tensor([10, 900])).square().sum().backward()
    assert latents.grad.abs().min() > 0
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_only_the_mean_takes_other_sizes():
    assert make(pool="adaptive")(torch.randn(1, 4, 16, 10), 5).shape == (1, 3)
    with pytest.raises(InputError, match="trained for 8x8"):
        make()(torch.randn(1, 4, 16, 8), 5)
    with pytest.raises(InputError, match="multiples of 2"):
        make(pool="adaptive")(torch.randn(1, 4, 9, 8), 5)


@pytest.mark.parametrize(
    "options",
    [
        {"sample_size": 7},
        {"pool": "maximum"},
        {"class_names": ["cat"]},
        {"num_classes": 0},
        {"num_head_channels": None},
    ],
)
def test_configurations_that_cannot_be_are_refused(options):
    with pytest.raises(ConfigError):
        NoisyLatentClassifier(**{**SMALL, **options})


@pytest.mark.parametrize("labels", [3, -1, True, 1.0, [], ["ct"], torch.zeros(2, 2), torch.tensor([7])])
def test_labels_that_are_none_are_refused(labels):
    with pytest.raises(InputError):
        make(class_names=["cat", "dog", "star"]).label_ids(labels)
