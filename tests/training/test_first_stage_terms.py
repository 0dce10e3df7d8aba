"""What steadies first stages: regularised discriminators, latents that may be scaled and turned, presets."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from first_stages import KL, VQ, draw, log, run

from latentdiff.config import load_recipe
from latentdiff.data.images import ImageFolder
from latentdiff.pipelines.codec import factor
from latentdiff.training.first_stage.adversarial import LECAM_DECAY, Adversarial, LeCAM, r1_penalty
from latentdiff.training.first_stage.autoencoder import load_first_stage, make_first_stage
from latentdiff.training.first_stage.discriminator import PatchDiscriminator, hinge_loss
from latentdiff.training.first_stage.equivariance import STILL, Equivariance, Move
from latentdiff.training.first_stage.options import AdversarialOptions, EquivarianceOptions
from latentdiff.training.first_stage.presets import PRESETS, expanded
from latentdiff.training.recipes import FirstStageRecipe

PAPER = Path(__file__).parents[2] / "recipes" / "paper"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("terms") / "drawn", 12)


def test_r1_is_the_squared_gradient_of_the_mean_logit():
    """Of a linear discriminator that is its weights' squared length."""
    weights = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    logits = (weights * images).sum(dim=(1, 2, 3))[:, None, None, None] + torch.tensor([1.0, -1.0])
    assert float(r1_penalty(logits, images)) == pytest.approx(float(weights.square().sum()), rel=1e-5)


def test_r1_counts_by_half_its_weight_and_teaches_the_discriminator():
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(channels=4, layers=2, norm="group").double()
    images, decoded = torch.rand(2, 4, 3, 16, 16, dtype=torch.float64)
    found = {}
    for weight in (0.0, 3.0):
        loss, values = Adversarial(discriminator, AdversarialOptions(r1_weight=weight)).discriminator_loss(
            images, decoded
        )
        found[weight] = loss.item()
    assert "lecam" not in values and found[3.0] == pytest.approx(found[0.0] + 1.5 * values["r1"].item())
    (slope,) = torch.autograd.grad(values["r1"], discriminator.main[0].weight)
    step = 1e-6 * slope / slope.norm()
    penalties = []
    for sign in (1, -2):
        discriminator.main[0].weight.data.add_(sign * step)
        real = images.clone().requires_grad_()
        penalties.append(float(r1_penalty(discriminator(real), real)))
    assert penalties[0] - penalties[1] == pytest.approx(2 * float((slope * step).sum()), rel=2e-3)


def test_lecam_holds_logits_near_the_others_average():
    lecam = LeCAM(micro_steps=1)
    real, fake = torch.tensor([2.0, -1.0]), torch.tensor([-3.0, 0.5])
    assert float(lecam(real, fake)) == 0  # there is no average yet
    lecam.after_step()
    # The average of one step is that step's: 0.5 and -1.25.
    expected = (3.25**2 + 0.25**2) / 2 + (3.5**2 + 0) / 2
    assert float(lecam(real, fake)) == pytest.approx(expected, rel=1e-5)
    lecam(real + 1, fake)
    lecam.after_step()
    average = (LECAM_DECAY * 0.5 + 1.5) / (LECAM_DECAY + 1)
    found = lecam(torch.tensor([-9.0]), torch.tensor([0.0]))
    assert float(found) == pytest.approx(average**2, rel=1e-4)


def test_lecam_forgets_a_step_that_was_skipped():
    lecam = LeCAM(micro_steps=2)
    for value in (float("nan"), float("nan"), 1.0, 3.0):  # after_step is not called after a skipped one
        lecam(torch.tensor([value]), torch.tensor([value]))
    lecam.after_step()
    assert lecam.averages.tolist() == pytest.approx([2 * (1 - LECAM_DECAY)] * 2) and lecam.updates == 1


def test_group_norm_looks_at_each_image_by_itself():
    torch.manual_seed(0)
    images = torch.rand(3, 3, 16, 16)
    found = {}
    for norm in ("group", "batch"):
        discriminator = PatchDiscriminator(channels=6, layers=2, norm=norm)
        found[norm] = torch.allclose(discriminator(images)[:1], discriminator(images[:1]), atol=1e-6)
        hinge_loss(discriminator(images), discriminator(-images)).backward()
        assert all(parameter.grad.isfinite().all() for parameter in discriminator.parameters())
    assert found == {"group": True, "batch": False}


def pooled(images):
    return F.avg_pool2d(images, 4)


@pytest.mark.parametrize("turns", range(4))
def test_latents_and_images_are_turned_alike(turns):
    images, move = torch.rand(2, 3, 32, 16), Move(None, turns, 4)
    torch.testing.assert_close(move.latents(pooled(images)), pooled(move.images(images)))
    assert torch.equal(move.images(images), torch.rot90(images, turns, (2, 3)))


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (2, 8)])
def test_latents_and_images_are_scaled_alike(size):
    """A ramp stays one, but at its ends; neither axis may be taken for the other."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images, move = torch.stack([rows, 3 * columns])[None], Move(size, 0, 4)
    latents, scaled = move.latents(pooled(images)), pooled(move.images(images))
    assert latents.shape == scaled.shape == (1, 2, *size)
    assert (latents - scaled)[..., 1:-1, 1:-1].abs().amax() < 1 if min(size) > 2 else latents.isfinite().all()
    assert latents[0, 1, 0].diff().mean() > 9 and latents[0, 0, :, 0].diff().mean() > 3  # over a latent pixel: 12, 4


def test_moves_are_as_often_and_as_small_as_the_recipe_says():
    def drawn(resolution=64, smallest=0, share=1.0, **options):
        moves = Equivariance(EquivarianceOptions(**options), resolution, 4, smallest)
        return [moves.draw(torch.Generator().manual_seed(seed), share) for seed in range(400)]

    plain = drawn()
    moved = [move for move in plain if move is not STILL]
    assert 160 < len(moved) < 240  # 200 +- 4 standard deviations
    assert {move.size[0] for move in moved} == {move.size[1] for move in moved} == set(range(4, 17))
    assert {move.turns for move in moved} == {0, 1, 2, 3} and plain == drawn()
    assert any(move.size[0] != move.size[1] for move in moved)
    assert min(min(move.size) for move in drawn(smallest=22, probability=1.0)) == 6  # 22 pixels are 5.5 latents
    assert {move.turns for move in drawn(turns=False)} == {0}
    assert {move.size for move in drawn(smallest_scale=1, probability=1)} == {(16, 16)}
    assert all(move is STILL for move in drawn(share=0.0)) and STILL not in drawn(probability=1.0)


@pytest.mark.thorough
@pytest.mark.parametrize("model", [KL, VQ], ids=["kl", "vq"])
def test_moved_latents_are_learned_and_logged_apart(images, tmp_path, model):
    options = {"loss.equivariance": {"probability": 0.5}, "max_train_steps": 8, "loss.adversarial.r1_weight": 1.0}
    options |= {"loss.adversarial.discriminator": {"layers": 1, "channels": 4, "norm": "group"}}
    options |= {"loss.codebook.restart": 2} if model is VQ else {}
    output = run(images, tmp_path, model=model, **options)
    counts = [len(log(output, name)) for name in ("reconstruction", "moved_reconstruction", "r1")]
    assert counts[0] + counts[1] == 8 and min(counts) > 0 and counts[2] == 8


@pytest.mark.slow
def test_equivariance_makes_turned_latents_decode_to_turned_images(tmp_path):
    data, move = draw(tmp_path / "drawn", 64), Move(None, 2, 2)
    batch = torch.stack([ImageFolder(data, 16)[number] for number in range(64)])
    errors = {}
    for name, options in {"with": {"loss.equivariance": {}}, "without": {}}.items():
        more = {"ema.decay": 0.9, "loss.reconstruction": "l2", "optimizer.learning_rate": 6e-3, "logging_steps": 200}
        vae = load_first_stage(str(run(data, tmp_path / name, max_train_steps=200, **more, **options) / "vae"))
        with torch.no_grad():
            decoded = vae.decode(move.latents(vae.encode(batch).latent_dist.mode())).sample
        errors[name] = float((decoded - move.images(batch)).square().mean())
    assert errors["with"] < 0.75 * errors["without"]


@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
@pytest.mark.parametrize("f", PRESETS)
def test_one_preset_gives_every_factor(f, kind):
    with torch.device("meta"):
        vae = make_first_stage({"_class_name": kind, "downsampling_factor": f, "base_channels": 8}, 3, 64)
    assert factor(vae) == f and type(vae).__name__ == kind and vae.config.block_out_channels[0] == 8


@pytest.mark.parametrize("name", ["kl-f4", "kl-f8", "kl-f16", "kl-f32", "vq-f2", "vq-f4", "vq-f16", "vq-f32"])
def test_presets_are_the_papers(name):
    theirs = load_recipe(FirstStageRecipe, PAPER / f"{name}.yaml").model
    model = {"downsampling_factor": int(name.partition("f")[2])}
    ours = expanded({**model, "_class_name": "VQModel"} if name.startswith("vq") else model)
    assert {key: ours[key] for key in theirs if key in ours} == {key: theirs[key] for key in theirs if key in ours}
    assert set(theirs) - set(ours) <= {"sample_size"} and ours["norm_num_groups"] == 32


def test_what_is_given_beside_a_factor_wins():
    found = expanded({"downsampling_factor": 8, "latent_channels": 16, "layers_per_block": 1})
    assert (found["latent_channels"], found["layers_per_block"], len(found["block_out_channels"])) == (16, 1, 4)
    assert expanded({"block_out_channels": [8]}) == {"block_out_channels": [8]}
