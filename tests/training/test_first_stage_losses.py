"""The first stage's losses: the original's numbers, and gradients that reach whom they should and nobody else."""

import pytest
import torch
import torch.nn.functional as F
import toy
from diffusers.configuration_utils import FrozenDict
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from golden_weights import GOLDEN, state_dict
from safetensors.torch import load_file
from torch import nn

from latentdiff import PerceptualDistance
from latentdiff.config import load_recipe
from latentdiff.models.autoencoder_vq import VQModel
from latentdiff.seeding import SampleGenerators
from latentdiff.training.engine.ema import EMA
from latentdiff.training.first_stage.adversarial import Adversarial, adaptive_weight, gradient_norms
from latentdiff.training.first_stage.autoencoder import make_first_stage
from latentdiff.training.first_stage.bottlenecks import VQBottleneck, count_codes, perplexity
from latentdiff.training.first_stage.discriminator import NORMS, PatchDiscriminator, hinge_loss, vanilla_loss
from latentdiff.training.first_stage.task import FirstStageTask
from latentdiff.training.recipes import FirstStageRecipe

TINY = toy.VAE
SMALL_DISCRIMINATOR = {"channels": 4, "layers": 2}


def recipe(**options):
    return load_recipe(
        FirstStageRecipe, None, {"data.train_data_dir": "-", "output_dir": "-", "data.resolution": 16, **options}
    )


def draws(images, seed=0):
    return SampleGenerators(seed, range(len(images)))


@pytest.fixture(scope="module")
def io():
    return load_file(GOLDEN / "aux_losses" / "io.safetensors")


def weights(prefix):
    state = state_dict("aux_losses")
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


class Recorded(nn.Module):
    """The recorded ends of an autoencoder: its posterior or codes, and the features before its last layer."""

    def __init__(self, io, **config):
        super().__init__()
        self.io, self.config = io, FrozenDict(out_channels=3, **config)
        self.decoder, self.quantize = nn.Module(), Codes(io)
        self.decoder.conv_out = nn.Conv2d(5, 3, 3, padding=1, bias=False)
        self.decoder.conv_out.weight.data.copy_(io["ae.last_layer"])

    def encode(self, images):
        output = AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(self.io["ae.moments"]))
        output["latents"] = torch.zeros(2, 3, 5, 5)
        return output

    def decode(self, latents, **kwargs):
        return DecoderOutput(sample=self.decoder.conv_out(self.io["ae.features"]))


class Codes(nn.Module):
    def __init__(self, io):
        super().__init__()
        self.io = io

    def forward(self, latents):
        return latents, self.io["vq.codebook_loss"], (None, None, self.io["ppl.indices"])


class RecordedLPIPS:
    title = "lpips"

    def __init__(self, io):
        self.io = io

    def __call__(self, decoded, images):
        return self.io["ae.lpips"]


def recorded_task(io, options, **config):
    options = {
        "data.resolution": 32,
        "loss.adversarial.discriminator": {"channels": 8},
        "loss.lpips": {"vgg16": "-"},
        **options,
    }
    task = FirstStageTask(Recorded(io, **config), recipe(**{"loss.perceptual_weight": 1}, **options), RecordedLPIPS(io))
    task.adversarial.discriminator.load_state_dict(weights("kl_disc."))
    return task


@pytest.mark.parametrize("step", [99, 100])
def test_kl_loss_and_gradient_are_the_originals(io, step):
    """It sums over an image what we mean; before disc_start neither side counts."""
    task = recorded_task(io, {"loss.adversarial.start_step": 100, "loss.kl_weight": 1e-3})
    elements, theirs = 3 * 32 * 32, io[f"kl.gen.{step}"].tolist()
    task.step = step
    loss, values = task(io["ae.inputs"], draws(io["ae.inputs"]))
    generator = loss - values.get("discriminator", 0)
    assert elements * generator.item() == pytest.approx(theirs[0], rel=1e-5)
    assert float(values["kl"]) == pytest.approx(theirs[1], rel=1e-5)
    distance = float(values["reconstruction"] + values["lpips"])
    assert distance == pytest.approx(theirs[3], rel=1e-5) and elements * distance == pytest.approx(theirs[2], rel=1e-5)
    loss.backward()
    slope = elements * task.vae.decoder.conv_out.weight.grad
    torch.testing.assert_close(slope, io[f"kl.gen_grad.{step}"], rtol=1e-4, atol=1e-3)
    if step == 100:
        assert elements * float(values["adversarial_weight"]) == pytest.approx(theirs[4], rel=1e-4)
        assert float(values["generator"]) == pytest.approx(theirs[6], rel=1e-5)
        found = [float(values[name]) for name in ("discriminator", "logits_real", "logits_fake")]
        assert found == pytest.approx(io["kl.disc.100"].tolist(), rel=1e-5)
    else:
        assert not any(p.grad.any() for p in task.adversarial.discriminator.parameters())


@pytest.mark.parametrize("step", [4, 5])
def test_vq_loss_and_gradient_are_the_originals(io, step):
    task = recorded_task(io, {"loss.adversarial.start_step": 5, "loss.adversarial.weight": 0.75}, num_vq_embeddings=32)
    theirs = io[f"vq.gen.{step}"].tolist()
    task.step = step
    loss, values = task(io["ae.inputs"], draws(io["ae.inputs"]))
    assert (loss - values.get("discriminator", 0)).item() == pytest.approx(theirs[0], rel=1e-5)
    found = [float(values[name]) for name in ("codebook", "lpips", "perplexity")] + [32 * float(values["codes_used"])]
    assert found == pytest.approx([theirs[1], theirs[4], *theirs[8:]], rel=1e-5)
    loss.backward()
    slope = task.vae.decoder.conv_out.weight.grad
    torch.testing.assert_close(slope, io[f"vq.gen_grad.{step}"], rtol=1e-4, atol=1e-6)
    if step == 5:
        assert float(values["adversarial_weight"]) == pytest.approx(theirs[5], rel=1e-4)
        found = [float(values[name]) for name in ("discriminator", "logits_real", "logits_fake")]
        assert found == pytest.approx(io["vq.disc.5"].tolist(), rel=1e-5)


def test_losses_of_given_logits_are_the_originals(io):
    for loss, name in ((hinge_loss, "hinge_d"), (vanilla_loss, "vanilla_d")):
        torch.testing.assert_close(loss(io["logits_real"], io["logits_fake"]), io[name], rtol=1e-6, atol=0)
    counts = count_codes(io["ppl.indices"], 32)
    assert int(counts.sum()) == 50 and int((counts > 0).sum()) == int(io["ppl.usage"])
    torch.testing.assert_close(perplexity(counts), io["ppl.perplexity"])


@pytest.mark.parametrize(("norm", "prefix"), [("batch", "disc."), ("act", "disc_actnorm.")])
def test_discriminator_is_the_originals(io, norm, prefix):
    """A training batch moves its batch norms' statistics, and the first one sets its activation norms."""
    discriminator = PatchDiscriminator(channels=8, norm=norm)
    discriminator.load_state_dict(weights(prefix))
    modes = [("eval", False), ("train", True), ("eval_after", False)]
    with torch.no_grad():
        for name, mode in modes[norm == "act" :]:  # whose original can't evaluate before
            found = discriminator.train(mode)(io[f"{prefix}x"])
            torch.testing.assert_close(found, io[f"{prefix}{name}"], rtol=1e-4, atol=1e-5)
    for name, value in discriminator.state_dict().items():
        if f"{prefix}after.{name}" in io:
            torch.testing.assert_close(value, io[f"{prefix}after.{name}"], rtol=1e-4, atol=1e-5)
    assert sum(isinstance(module, NORMS[norm]) for module in discriminator.main) == 3


def test_adaptive_weight_is_its_formula(io):
    layer = io["adaptive.last_layer"].clone().requires_grad_()
    distance, generator = ((io[f"adaptive.{name}"] * layer).sum() for name in ("nll_grad", "g_grad"))
    found = adaptive_weight(*gradient_norms(distance, generator, layer))
    assert 0.5 * float(found) == pytest.approx(float(io["adaptive.weight"]), rel=1e-6) and not found.requires_grad
    assert float(adaptive_weight(*gradient_norms(distance, generator, layer), 3.0)) == 3
    # 119 / 1e-4 would be more.
    assert float(adaptive_weight(*gradient_norms(distance, 0 * generator, layer))) == 1e4


def test_adaptive_weight_in_mixed_precision():
    """bf16 has eight bits, and rounds each of the gradient's many terms by itself."""
    found = {}
    for enabled in (False, True):
        torch.manual_seed(0)
        task = FirstStageTask(
            make_first_stage(TINY, 3, 16), recipe(**{"loss.adversarial.discriminator": SMALL_DISCRIMINATOR})
        )
        images = torch.rand(4, 3, 16, 16) * 2 - 1
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss, values = task(images, draws(images))
        loss.backward()
        assert loss.dtype == torch.float32 and task.vae.decoder.conv_out.weight.grad.isfinite().all()
        found[enabled] = values["adversarial_weight"].item()
    assert found[True] != found[False] and found[True] == pytest.approx(found[False], rel=2**-5)


def test_adversarial_share_rises():
    options = {"loss.adversarial.discriminator": SMALL_DISCRIMINATOR, "loss.adversarial.start_step": 10}
    sharp, soft = (recipe(**options, **{"loss.adversarial.warmup_steps": warmup}) for warmup in (0, 4))
    found = [
        [Adversarial(PatchDiscriminator(), r.loss.adversarial).strength(step) for step in (9, 10, 12, 14, 50)]
        for r in (sharp, soft)
    ]
    assert found == [[0, 1, 1, 1, 1], [0, 0.2, 0.6, 1, 1]]


@pytest.fixture
def tiny():
    """A task in float64, and a batch for it."""
    torch.manual_seed(0)
    options = {
        "loss.adversarial.discriminator": SMALL_DISCRIMINATOR,
        "loss.adversarial.adaptive_weight": False,
        "loss.adversarial.weight": 0.3,
    }
    options |= {"loss.perceptual_weight": 0.7, "loss.lpips": {"vgg16": "-"}}
    perceptual = PerceptualDistance().double().requires_grad_(False)
    task = FirstStageTask(make_first_stage(TINY, 3, 16), recipe(**options), perceptual).double()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return task, images


def sides(task, images):
    """The distance in features alone and the autoencoder's adversarial loss."""
    decoded = task.vae.decode(task.vae.encode(images).latent_dist.mode()).sample
    return {
        "perceptual": task.reconstruction.perceptual(decoded, images).mean(),
        "adversarial": task.adversarial.generator_loss(decoded),
    }


@pytest.mark.thorough
@pytest.mark.parametrize("side", ["perceptual", "adversarial"])
@pytest.mark.parametrize("part", ["decoder", "encoder"])
def test_gradients_that_reach_the_autoencoder_by_finite_differences(tiny, side, part):
    task, images = tiny
    parameters = list(getattr(task.vae, part).parameters())
    slopes = torch.autograd.grad(sides(task, images)[side], parameters)
    rng = torch.Generator().manual_seed(2)
    directions = [
        slope / slope.norm() + torch.randn(slope.shape, generator=rng, dtype=slope.dtype) / 100 for slope in slopes
    ]
    expected = sum(float((slope * direction).sum()) for slope, direction in zip(slopes, directions, strict=True))
    assert expected > 1e-4 and all(slope.any() for slope in slopes[-2:])
    step, found = 1e-8, []  # small beside the distance to the next kink of a ReLU, large beside rounding
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
            found.append(float(sides(task, images)[side]))
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(expected, rel=1e-4)


def test_one_backward_pass_gives_each_side_its_own_gradients(tiny):
    """As two passes with two optimisers would: the generator's loss, and the discriminator's of constant images."""
    task, images = tiny
    loss, values = task(images, draws(images, 3))
    loss.backward()
    found = {name: p.grad.clone() for name, p in task.named_parameters()}
    task.zero_grad()
    decoded, penalty, _ = task.bottleneck(task.vae, images, draws(images, 3))
    distance, _ = task.reconstruction(decoded, images)
    (distance + penalty + 0.3 * -task.adversarial.discriminator(decoded).mean()).backward()
    for name, parameter in task.vae.named_parameters():
        torch.testing.assert_close(found[f"vae.{name}"], parameter.grad, rtol=1e-9, atol=1e-15)
    task.zero_grad()
    discriminator = task.adversarial.discriminator
    hinge_loss(discriminator(images), discriminator(decoded.detach())).backward()
    for name, parameter in discriminator.named_parameters():
        torch.testing.assert_close(found[f"adversarial.discriminator.{name}"], parameter.grad, rtol=1e-9, atol=1e-15)
    assert values["discriminator"] > 0


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_any_number_of_channels(channels, kind):
    vae = make_first_stage({**TINY, "_class_name": kind}, channels, 16)
    task = FirstStageTask(
        vae, recipe(**{"loss.adversarial.discriminator": SMALL_DISCRIMINATOR, "data.random_flip": True})
    )
    images = torch.rand(2, channels, 16, 16) * 2 - 1
    loss, _ = task(images, draws(images))
    loss.backward()
    assert torch.isfinite(loss) and vae.config.in_channels == vae.config.out_channels == channels
    assert vae.encoder.conv_in.weight.grad.any()


def test_codebook_losses_weigh_the_term_they_say():
    """With the straight-through estimate, only the codebook loss reaches the codes, and of it one term."""
    slopes = {}
    for kind in ("legacy", "corrected"):
        torch.manual_seed(0)
        vae = make_first_stage({**TINY, "_class_name": "VQModel", "num_vq_embeddings": 8}, 3, 16)
        task = FirstStageTask(
            vae, recipe(**{"loss.codebook.loss": kind, "loss.codebook.beta": 0.5, "loss.codebook.weight": 3})
        )
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        task(images, draws(images))[0].backward()
        slopes[kind] = vae.quantize.embedding.weight.grad
    assert slopes["legacy"].any()
    torch.testing.assert_close(slopes["legacy"], 0.5 * slopes["corrected"])


def test_codes_that_nothing_chooses_move_to_latents():
    torch.manual_seed(0)
    vae = VQModel(**TINY, num_vq_embeddings=64)
    task = FirstStageTask(vae, recipe(**{"loss.codebook.restart": 3}))
    ema = EMA(task, 0.9)
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = vae.quantize.embedding.weight.detach().clone()
    chosen = vae.encode_to_indices(images).unique()
    assert len(chosen) < 32
    for task.step in range(3):
        assert torch.equal(vae.quantize.embedding.weight, before)
        _, values = task(images, draws(images))
        task.after_step(ema, torch.Generator().manual_seed(task.step))
    after, averaged = vae.quantize.embedding.weight.detach(), ema.shadow["vae.quantize.embedding.weight"]
    dead = torch.ones(64, dtype=torch.bool).index_fill_(0, chosen, False)
    assert torch.equal(after[~dead], before[~dead]) and torch.equal(averaged, after)
    latents = vae.encode(images).latents.detach().movedim(1, -1).flatten(0, -2)
    assert ((after[dead][:, None] - latents).abs().amax(2).amin(1) < 1e-5).all()
    assert not task.bottleneck.counts.any()
    _, restarted = task(images, draws(images))
    assert restarted["codes_used"] > 2 * values["codes_used"] and restarted["perplexity"] > 2 * values["perplexity"]
    assert isinstance(task.bottleneck, VQBottleneck)


@pytest.mark.parametrize("kind", ["AutoencoderKL", "VQModel"])
def test_training_the_decoder_alone_leaves_the_latents(kind):
    vae = make_first_stage({**TINY, "_class_name": kind}, 3, 16)
    task = FirstStageTask(vae, recipe(trainable="decoder", **{"loss.adversarial.discriminator": SMALL_DISCRIMINATOR}))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    task(images, draws(images))[0].backward()
    trained = {name for name, p in vae.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained and all(name.startswith(("decoder.", "post_quant_conv.")) for name in trained)
    assert {name for name, p in vae.named_parameters() if p.requires_grad} >= trained


def test_flips_are_drawn_from_the_samples():
    torch.manual_seed(0)
    vae = make_first_stage(TINY, 3, 16)
    seen = []
    vae.encode = lambda images, encode=vae.encode: seen.append(images) or encode(images)
    task = FirstStageTask(vae, recipe(**{"data.random_flip": True}))
    images = torch.rand(8, 3, 16, 16)
    for seed in (0, 0, 1):
        task(images, draws(images, seed))
    flipped = [[not torch.equal(a, b) for a, b in zip(images, batch, strict=True)] for batch in seen]
    assert flipped[0] == flipped[1] != flipped[2] and 0 < sum(flipped[0]) < 8
    assert all(
        torch.equal(F.pad(a, (0, 0)), b.flip(-1)) for a, b, f in zip(images, seen[0], flipped[0], strict=True) if f
    )
