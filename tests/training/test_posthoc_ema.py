"""Power-function averages: what a combination of stored ones is, beside the same average followed directly."""

import shutil

import numpy as np
import pytest
import torch
import toy
from safetensors.torch import load_file, save_file
from torch import nn

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, InputError
from latentdiff.config import load_recipe
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.ema_profiles import Profile, combine, exponent, kept
from latentdiff.training.engine.ema_snapshots import Snapshots, write_snapshot
from latentdiff.training.posthoc_ema import reconstruct_ema
from latentdiff.training.recipes import DiffusionRecipe

PROFILES = [0.05, 0.1]
RECIPE = {"ema.profiles": PROFILES, "ema.snapshot_steps": 4, "max_train_steps": 24, "checkpoint.export_steps": [8]}


def test_exponents_have_their_widths():
    """The standard deviation of the weights themselves; the paper's examples are 16.97 and 6.94."""
    for sigma_rel, known in ((0.05, 16.97), (0.1, 6.94), (0.2, 1.83)):
        power, share = exponent(sigma_rel), (np.arange(100_000) + 0.5) / 100_000
        weights = (power + 1) * share**power
        mean = (weights * share).mean()
        assert power == pytest.approx(known, abs=0.03)
        assert np.sqrt((weights * (share - mean) ** 2).mean()) == pytest.approx(sigma_rel, rel=1e-3)


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 12**-0.5, 1.0])
def test_no_average_has_another_width(sigma_rel):
    with pytest.raises(ConfigError, match="sigma_rel is"):
        exponent(sigma_rel)
    exponent(12**-0.5 - 1e-6)


def test_an_average_has_the_weights_of_its_profile():
    """After n updates update i weighs (i / n)^(g + 1) - ((i - 1) / n)^(g + 1)."""
    parts = [kept(0.1, n) for n in range(1, 21)]
    weights = [(1 - part) * np.prod(parts[n:]) for n, part in enumerate(parts, start=1)]
    power = exponent(0.1) + 1
    expected = np.diff((np.arange(21) / 20) ** power)
    assert np.allclose(weights, expected)


def follow(profiles, steps, folder=None, every=50, dtype=torch.float32, seed=0):
    """Weights that wander, their averages, and snapshots of these."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.Linear(8, 8)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    ema = EMA(module, 0.999, profiles)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) / step**0.5 + 0.05)
        ema.update()
        if folder is not None and step % every == 0:
            write_snapshot(folder, step, ema.num_updates, ema.shadow, dtype)
    return ema


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (torch.float16, 3e-3)])
@pytest.mark.parametrize("sigma_rel", [0.06, 0.1, 0.15, 0.2])
def test_any_width_equals_one_that_was_followed(tmp_path, sigma_rel, dtype, bound):
    follow(PROFILES, 1000, tmp_path, dtype=dtype)
    direct = follow([sigma_rel], 1000).shadow
    snapshots = Snapshots.of(tmp_path)
    combination = snapshots.combination(sigma_rel)
    assert combination.error < 0.05 and combination.weights.sum() == pytest.approx(1, abs=1e-3)
    for name, average in snapshots.averages(combination):
        expected = direct[f"{name}@{sigma_rel}"]
        assert float((average - expected).norm() / expected.norm()) < bound


def test_an_earlier_end_equals_a_shorter_run(tmp_path):
    follow(PROFILES, 1000, tmp_path)
    direct = follow([0.12], 600).shadow
    snapshots = Snapshots.of(tmp_path, 600)
    for name, average in snapshots.averages(snapshots.combination(0.12)):
        expected = direct[f"{name}@0.12"]
        assert float((average - expected).norm() / expected.norm()) < 1e-3


def test_a_width_that_was_stored_is_itself(tmp_path):
    ema = follow(PROFILES, 200, tmp_path)
    snapshots = Snapshots.of(tmp_path)
    combination = snapshots.combination(0.1)
    assert combination.error < 1e-4
    for name, average in snapshots.averages(combination):
        torch.testing.assert_close(average, ema.shadow[f"{name}@0.1"], rtol=1e-4, atol=1e-4)


def test_a_narrow_width_is_far_from_wide_ones():
    assert combine([Profile(0.2, n) for n in (500, 1000)], Profile(0.02, 1000)).error > 0.5


def test_the_other_average_is_as_without_profiles():
    assert torch.equal(follow([], 30).shadow["weight"], follow(PROFILES, 30).shadow["weight"])


@pytest.fixture(scope="module")
def run(data, vae, tmp_path_factory):
    return toy.train("class-to-image", data, vae, tmp_path_factory.mktemp("posthoc"), **RECIPE)


@pytest.mark.thorough
def test_a_run_is_put_together_anew(run, tmp_path):
    made = reconstruct_ema(run, 0.15, tmp_path / "wide")
    pipe = DiffusionPipeline.from_pretrained(made.folder)
    assert (made.snapshots, made.updates) == (6, 24) and made.error < 0.1
    ended = DiffusionPipeline.from_pretrained(run / "pipeline")
    assert not torch.equal(pipe.unet.conv_in.weight, ended.unet.conv_in.weight)
    assert torch.equal(pipe.vae.quant_conv.weight, ended.vae.quant_conv.weight)
    last = load_file(run / "checkpoint-24" / "ema.safetensors")
    narrow = reconstruct_ema(run, 0.1, tmp_path / "narrow").folder
    weights = load_file(narrow / "unet" / "diffusion_pytorch_model.safetensors")
    torch.testing.assert_close(weights["conv_in.weight"], last["unet.conv_in.weight@0.1"], rtol=0, atol=2e-3)
    assert pipe("red", num_inference_steps=2, seed=0, output_type="np").images.shape == (1, 16, 16, 3)


@pytest.mark.thorough
def test_weights_of_an_earlier_step_guide_the_last(run):
    from latentdiff import AutoGuidance
    from latentdiff.hub.find import model_of_run

    weak = DiffusionPipeline.from_pretrained(model_of_run(str(run / "steps" / "8")))
    pipe = DiffusionPipeline.from_pretrained(run / "pipeline")
    assert not torch.equal(weak.unet.conv_in.weight, pipe.unet.conv_in.weight)
    guidance = [AutoGuidance(weak.unet, 2.0)]
    assert pipe("red", num_inference_steps=2, guidance=guidance, output_type="np").images.shape == (1, 16, 16, 3)


@pytest.mark.thorough
def test_what_is_removed_with_a_run(run, data, vae, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "ema" / "notes.txt").write_text("mine")
    toy.train("class-to-image", data, vae, tmp_path / "run", overwrite_output_dir=True, max_train_steps=2)
    assert [path.name for path in (tmp_path / "run" / "ema").iterdir()] == ["notes.txt"]
    assert {path.name for path in (tmp_path / "run" / "steps").rglob("*") if path.is_file()} == {"README.md"}


@pytest.mark.thorough
def test_what_cannot_be_combined_is_one_line(run, tmp_path):
    spoilt = tmp_path / "run"
    shutil.copytree(run, spoilt)
    tensors = load_file(spoilt / "ema" / "step-8.safetensors")
    name = next(iter(tensors))
    save_file({n: t for n, t in tensors.items() if n != name}, spoilt / "ema" / "step-8.safetensors", {"updates": "8"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    cases = [
        (run, 0.3, {}, ConfigError, "sigma_rel is 0.3; it must be above 0 and below 0.2887"),
        (run, 0.005, {}, ConfigError, "can't be combined to"),
        (run, 0.1, {"step": 7}, InputError, "step is 7, of which .* give one of 4, 8"),
        (run / "pipeline", 0.1, {}, InputError, "holds no snapshots"),
        (spoilt, 0.1, {}, CheckpointError, "step-8.safetensors has other profiles or parameters than step-4"),
    ]
    for place, sigma_rel, options, kind, message in cases:
        with pytest.raises(kind, match=message) as caught:
            reconstruct_ema(place, sigma_rel, tmp_path / "out", **options)
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="exists already"):
        reconstruct_ema(run, 0.1, tmp_path / "full")
    (spoilt / "ema" / "step-8.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="is damaged"):
        reconstruct_ema(spoilt, 0.1, tmp_path / "out")


BAD = {
    "width": ({"ema.profiles": [0.3]}, "give widths above 0 and below 0.2887"),
    "twice": ({"ema.profiles": [0.1, 0.1]}, "give each width once"),
    "no steps": ({"ema.snapshot_steps": None}, "profiles and snapshot_steps belong together"),
    "no profiles": ({"ema.profiles": []}, "profiles and snapshot_steps belong together"),
    "off": ({"ema.decay": 0}, "decay is 0, which turns EMA off"),
    "too few": ({"ema.snapshot_steps": 13}, "fewer than two snapshots, which can't be combined"),
    "late": ({"checkpoint.export_steps": [8, 25]}, r"export_steps has \[25\], after max_train_steps 24"),
    "none": ({"checkpoint.export_steps": [0]}, "steps count from 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_recipes_are_one_line(name):
    options, message = BAD[name]
    base = {"output_dir": "out", "data.train_data_dir": "images", "vae": "vae", "unet": toy.UNET, **RECIPE}
    load_recipe(DiffusionRecipe, None, {**base, "ema.snapshot_steps": 12})
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(DiffusionRecipe, None, {**base, **options})
    assert "\n" not in str(caught.value)
