"""Phases of a first stage's run: what each trains, what counts in it, and that runs without any are as before."""

import copy
from itertools import pairwise

import pytest
import torch
from first_stages import ADVERSARIAL, KL, VQ, draw, log, run

from latentdiff import ConfigError
from latentdiff.config import load_recipe
from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.ema import EMA
from latentdiff.training.first_stage.adversarial import adaptive_weight, gradient_norms
from latentdiff.training.first_stage.autoencoder import load_first_stage, make_first_stage
from latentdiff.training.first_stage.discriminator import hinge_loss
from latentdiff.training.first_stage.task import FirstStageTask
from latentdiff.training.recipes import FirstStageRecipe

DISCRIMINATOR = {"loss.adversarial.discriminator": {"channels": 4, "layers": 2}}
PHASES = [
    {"name": "reconstruct", "weights": {"adversarial": 0, "discriminator": 0}},
    {"name": "judge", "start_step": 2, "trainable": "discriminator"},
    {"name": "sharpen", "start_step": 4, "trainable": "decoder"},
]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("phases") / "drawn", 12)


@pytest.fixture
def batch():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def recipe(**options):
    values = {"data.train_data_dir": "-", "output_dir": "-", "data.resolution": 16, "max_train_steps": 6}
    return load_recipe(FirstStageRecipe, None, {**values, **options})


def make(cls=FirstStageTask, model=KL, **options):
    torch.manual_seed(0)
    return cls(make_first_stage(model, 3, 16), recipe(**options))


def trained(task, batch, steps=6):
    """The task's weights before the first step and after each, by AdamW with weight decay."""
    optimizer, ema = torch.optim.AdamW(task.parameters(), lr=1e-2), EMA(task, 0.9)
    found = [copy.deepcopy(task.state_dict())]
    for task.step in range(steps):
        task(batch, SampleGenerators(task.step, range(len(batch))))[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.after_step(ema, torch.Generator().manual_seed(task.step))
        found.append(copy.deepcopy(task.state_dict()))
    return found


class AsBefore(FirstStageTask):
    """The loss as it was before there were phases."""

    def forward(self, batch, draws):
        decoded, penalty, _ = self.bottleneck(self.vae, batch, draws)
        loss = self.reconstruction.distance(decoded, batch)
        if self.adversarial is not None:
            options, discriminator = self.recipe.loss.adversarial, self.adversarial.discriminator
            since = self.step - options.start_step
            if since < 0:
                adversarial = torch.stack([0 * parameter.sum() for parameter in discriminator.parameters()]).sum()
            else:
                strength = min(1.0, (since + 1) / (options.warmup_steps + 1))
                generator = self.adversarial.generator_loss(decoded)
                weight = batch.new_tensor(options.weight)
                if options.adaptive_weight:
                    norms = gradient_norms(loss, generator, self.vae.decoder.conv_out.weight)
                    weight = weight * adaptive_weight(*norms, self.adversarial.limit)
                real, fake = discriminator(batch), discriminator(decoded.detach())
                adversarial = strength * weight * generator + hinge_loss(real, fake)
            loss = loss + adversarial
        return loss + penalty if self.recipe.trainable == "all" else loss, {}


@pytest.mark.parametrize(
    "options",
    [
        {"model": KL},
        {"model": KL, **DISCRIMINATOR, "loss.adversarial.start_step": 2, "loss.adversarial.warmup_steps": 2},
        {"model": KL, **DISCRIMINATOR, "loss.adversarial.adaptive_weight": False, "trainable": "decoder"},
        {"model": VQ, **DISCRIMINATOR, "loss.codebook.restart": 2, "loss.adversarial.start_step": 9},
    ],
    ids=["plain", "later discriminator", "decoder", "vq"],
)
def test_recipes_without_phases_give_the_bits_that_they_gave(options, batch):
    now, before = (trained(make(cls, **options), batch)[-1] for cls in (FirstStageTask, AsBefore))
    assert now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)


def moved(before, after):
    """The parts whose weights differ."""
    names = [name for name, value in before.items() if not torch.equal(value, after[name]) and "running" not in name]
    return {name.split(".")[1] for name in names if "num_batches" not in name}


@pytest.mark.parametrize("model", [KL, VQ], ids=["kl", "vq"])
def test_each_phase_trains_what_it_says_and_the_rest_rests(model, batch):
    """Weight decay and momentum would move whatever has a gradient of 0."""
    states = trained(make(model=model, phases=PHASES, **DISCRIMINATOR), batch)
    parts = [moved(before, after) for before, after in pairwise(states)]
    codes = {"quantize"} if model is VQ else set()
    assert parts[:2] == [{"encoder", "decoder", "quant_conv", "post_quant_conv"} | codes] * 2
    assert parts[2:4] == [{"discriminator"}] * 2
    assert parts[4:] == [{"decoder", "post_quant_conv", "discriminator"}] * 2


def test_a_discriminator_may_learn_before_its_gradient_counts(batch):
    alone = [{"name": "judge", "weights": {"adversarial": 0}}]
    with_it, without = make(phases=alone, **DISCRIMINATOR), make()
    for task in (with_it, without):
        task(batch, SampleGenerators(0, range(4)))[0].backward()
    for name, parameter in without.vae.named_parameters():
        assert torch.equal(parameter.grad, with_it.vae.get_parameter(name).grad)
    assert all(parameter.grad is not None for parameter in with_it.adversarial.parameters())


def test_a_resting_part_keeps_no_gradient(batch):
    task = make(phases=PHASES, **DISCRIMINATOR)
    for step, resting in ((0, task.adversarial), (2, task.vae), (4, task.vae.encoder)):
        task.step = step
        task.zero_grad()
        task(batch, SampleGenerators(0, range(4)))[0].backward()
        assert all(parameter.grad is None for parameter in resting.parameters())


@pytest.mark.parametrize(("term", "factor"), [("reconstruction", 3.0), ("kl", 0.0), ("kl", 1000.0)])
def test_weights_are_factors_of_the_terms(term, factor, batch):
    values = {}
    for weights in ({}, {term: factor}):
        task = make(phases=[{"name": "only", "weights": weights}], **{"loss.kl_weight": 1e-2})
        loss, found = task(batch, SampleGenerators(0, range(4)))
        values[bool(weights)] = loss.item()
    kl, pixels = 1e-2 * float(found["kl"]) / (3 * 16 * 16), float(found["reconstruction"])
    assert values[False] == pytest.approx(pixels + kl, rel=1e-5)
    assert values[True] == pytest.approx({"kl": pixels + factor * kl, "reconstruction": factor * pixels + kl}[term])


def test_the_warm_up_begins_with_the_phase_that_counts(batch):
    task = make(phases=PHASES, **DISCRIMINATOR, **{"loss.adversarial.warmup_steps": 1, "loss.adversarial.weight": 1.0})
    seen = {}
    for task.step in range(6):
        _, values = task(batch, SampleGenerators(0, range(4)))
        ratio = values["gradient_generator"] / values["gradient_reconstruction"] if "generator" in values else 0
        seen[task.step] = float(ratio * values["adversarial_weight"]) if ratio else 0.0
    # The gradient of the adversarial loss against that of the reconstruction, as it is logged.
    assert [seen[step] for step in range(4)] == [0] * 4
    assert seen[4] == pytest.approx(0.5, rel=0.05) and seen[5] == pytest.approx(1, rel=0.05)


def test_shares_follow_the_number_of_steps():
    phases = [{"name": "a"}, {"name": "b", "start_share": 0.5}]
    for steps, start in ((6, 3), (100, 50)):
        assert [phase.start for phase in make(phases=phases, max_train_steps=steps).phases] == [0, start]


def test_a_rehearsal_makes_the_step_at_which_most_is_trained():
    assert make(phases=PHASES, **DISCRIMINATOR).busiest_step(6) == 1
    assert make(**DISCRIMINATOR, **{"loss.adversarial.start_step": 3}).busiest_step(6) == 5


@pytest.mark.thorough
@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_goes_on_in_any_phase_bit_by_bit(images, tmp_path, step):
    options = {
        "phases": PHASES,
        "max_train_steps": 6,
        "checkpoint.steps": 1,
        "checkpoint.total_limit": 9,
        "loss.adversarial.lecam_weight": 0.1,
        "loss.adversarial.r1_weight": 0.1,
        **ADVERSARIAL,
    }
    output = run(images, tmp_path, **options)
    names = (
        "vae/diffusion_pytorch_model.safetensors",
        "checkpoint-6/model.safetensors",
        "checkpoint-6/ema.safetensors",
    )
    once = [(output / name).read_bytes() for name in names]
    run(images, tmp_path, resume_from_checkpoint=f"checkpoint-{step}", **options)
    assert [(output / name).read_bytes() for name in names] == once


@pytest.mark.thorough
def test_the_last_phase_leaves_the_latents_of_the_first(images, tmp_path):
    """Without averages, which would still follow."""
    options = {"phases": PHASES, "max_train_steps": 6, "ema.decay": 0, **ADVERSARIAL}
    plain = run(images, tmp_path / "plain", max_train_steps=2, **{"ema.decay": 0})
    whole = run(images, tmp_path / "whole", **options)
    first, last = (load_first_stage(str(output / "vae")).state_dict() for output in (plain, whole))
    kept = {name.split(".")[0] for name in first if torch.equal(first[name], last[name])}
    assert all(torch.equal(first[name], last[name]) for name in first if name.startswith(("encoder", "quant_conv")))
    assert "decoder" in {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])} and kept
    assert log(whole, "gradient_generator") and log(whole, "gradient_reconstruction")


def phase(name="late", **options):
    return {"name": name, **options}


BAD = {
    "after the end": ([phase("a"), phase(start_step=6)], {}, r"'late', which starts at step 6, but the run ends"),
    "long after": ([phase("a"), phase(start_step=600)], {}, r"'late', which starts at step 600, but the run ends"),
    "same start": ([phase("a"), phase(start_step=0)], {}, r"phases overlap: 'late' starts at step 0, but 'a'"),
    "before": (
        [phase("a"), phase("b", start_step=4), phase(start_share=0.5)],
        {},
        r"phases overlap: 'late' starts at step 3, but 'b', which stands before it, at step 4",
    ),
    "no first": ([phase(start_step=1)], {}, "phases begins with 'late' at step 1; let the first one start at step 0"),
    "twice": ([phase("a"), phase("b", start_step=1), phase("a", start_step=2)], {}, "phases has 'a' twice"),
    "both starts": ([phase(start_step=0, start_share=0.0)], {}, r"phases.start_step is 0, and start_share is given"),
    "nameless": ([{"start_step": 0}], {}, "phases.name is missing"),
    "no discriminator": ([phase(trainable="discriminator")], {}, "loss.adversarial is missing; give it"),
    "idle": (
        [phase(trainable="discriminator", weights={"discriminator": 0})],
        DISCRIMINATOR,
        "train the discriminator alone, whose weight is 0",
    ),
    "weight of no discriminator": (
        [phase(weights={"adversarial": 0})],
        {},
        "gives 'late' a weight of adversarial, but the loss has none",
    ),
    "weight of no features": ([phase(weights={"perceptual": 1})], {}, "weight of perceptual, but the loss has none"),
    "weight of no moves": ([phase(weights={"equivariance": 1})], {}, "weight of equivariance, but the loss has none"),
    "weight of the other kind": ([phase(weights={"codebook": 1})], {}, "weight of codebook, but training this first"),
    "unknown term": ([phase(weights={"gan": 1})], {}, r"phases.weights has 'gan', which is no term of the loss"),
    "negative": ([phase(weights={"kl": -1})], {}, r"phases.weights.kl is -1; it must be at least 0"),
    "part": ([phase(trainable="encoder")], {}, "phases.trainable is 'encoder'; it must be 'all' or 'decoder' or"),
    "misspelled": ([phase(start=3)], {}, r"unknown option 'phases.start'; did you mean 'phases.start_"),
    "no list": ({"name": "a"}, {}, "it must be a list of mappings of name"),
    "two starts of the discriminator": (
        [phase()],
        {**DISCRIMINATOR, "loss.adversarial.start_step": 3},
        "start_step is given, but phases say",
    ),
    "more than the run trains": ([phase(trainable="all")], {"trainable": "decoder"}, "leave one of them out"),
    "distillation": (
        [phase()],
        {"distill_decoder": True, "model": {"pretrained_model_name_or_path": "a"}},
        "phases is given, but distill_decoder does not use it",
    ),
    "moves of a decoder": (None, {"loss.equivariance": {}, "trainable": "decoder"}, "leaves the latents alone"),
    "no move": (
        None,
        {"loss.equivariance": {"smallest_scale": 1, "turns": False}},
        r"smallest_scale is 1 and turns is false",
    ),
    "no room to scale": (
        None,
        {"loss.equivariance": {"turns": False}, "loss.adversarial.discriminator": {"layers": 2}, "data.resolution": 12},
        "only scales, but images of 12 pixels can't be smaller",
    ),
    "report of nothing": (None, {"report": {}}, "report is given, but no image is held out"),
    "report's features": (
        None,
        {"report": {"features": "inceptoin"}, "validation.share": 0.3, "validation.steps": 2},
        "inceptoin",
    ),
    "factor": (None, {"model": {"downsampling_factor": 3}}, "downsampling_factor 3; it must be 1, 2, 4, 8, 16, 32"),
    "base": (None, {"model": {"base_channels": 3, "downsampling_factor": 2}}, "base_channels 3; it must be a multiple"),
    "base alone": (None, {"model": {"base_channels": 64}}, "base_channels, but no downsampling_factor"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_before_the_first_step(images, tmp_path, name):
    phases, options, match = BAD[name]
    given = {"phases": phases} if phases is not None else {}
    with pytest.raises(ConfigError, match=match) as caught:
        run(images, tmp_path / "run", **{"max_train_steps": 6, **given, **options})
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_phase_at_the_last_step_is_taken():
    assert make(phases=[phase("a"), phase(start_step=5)]).phases[-1].start == 5
