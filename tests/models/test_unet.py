"""What every UNet must do: exact speed-ups, batches, gradients, dtypes, files, and clear refusals."""

import functools

import pytest
import torch

from latentdiff.errors import ConfigError, InputError
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.nn.context import PreparedTimestep

SMALL = {"block_out_channels": (32, 64), "layers_per_block": 1, "in_channels": 3, "out_channels": 3}
FAMILIES = {
    "cross": {"attention_levels": (False, True), "cross_attention_dim": 24, "num_attention_heads": 4},
    "linear_depth": {
        "attention_levels": (True, True),
        "cross_attention_dim": 24,
        "num_head_channels": 16,
        "use_linear_projection": True,
        "transformer_layers_per_block": (1, 2),
    },
    "middle_only": {"attention_levels": (False, False), "cross_attention_dim": 24, "num_head_channels": 32},
    "plain": {"attention_levels": (False, True), "num_head_channels": 32},
    "churches": {
        "attention_levels": (True, True),
        "num_attention_heads": 8,
        "resnet_time_scale_shift": "scale_shift",
        "resnet_resampling": True,
    },
    "no_attention": {"attention_levels": (False, False), "mid_block_attention": False},
}
WITH_CONTEXT = ("cross", "linear_depth", "middle_only")


def make(family, **options):
    """A network with random weights everywhere: those that start at zero would hide errors."""
    torch.manual_seed(0)
    model = UNet2DConditionModel(**SMALL, **FAMILIES[family], **options).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def inputs(model, batch=3, tokens=5):
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(batch, 3, 8, 8, generator=generator)
    width = model.config.cross_attention_dim
    return sample, None if width is None else torch.randn(batch, tokens, width, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_batch_equals_single_images(family):
    model = make(family)
    sample, context = inputs(model)
    timestep = torch.tensor([1, 400, 999])
    whole = model(sample, timestep, context).sample
    for i in range(3):
        part = slice(i, i + 1)
        single = model(sample[part], timestep[part], None if context is None else context[part]).sample
        torch.testing.assert_close(whole[part], single, rtol=0, atol=1e-5)


@pytest.mark.parametrize("timestep", [7, 7.0, torch.tensor(7), torch.tensor([7]), torch.tensor([7, 7, 7])])
@torch.no_grad()
def test_timestep_forms(timestep):
    model = make("plain")
    sample, _ = inputs(model)
    expected = model(sample, torch.tensor([7, 7, 7])).sample
    torch.testing.assert_close(model(sample, timestep, return_dict=False)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", WITH_CONTEXT)
@torch.no_grad()
def test_cached_context_is_bit_identical(family):
    model = make(family)
    sample, context = inputs(model)
    cache = model.prepare_context(context)
    assert torch.equal(model(sample, 9, cache).sample, model(sample, 9, context).sample)
    assert cache[1:3].keys[0].data_ptr() == cache.keys[0][1:].data_ptr()
    part = model(sample[1:3], 9, cache[1:3]).sample
    torch.testing.assert_close(part, model(sample, 9, context).sample[1:3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("family", WITH_CONTEXT)
@torch.no_grad()
def test_shared_prefix_equals_repeated_sample(family, cached):
    model = make(family)
    sample, context = inputs(model)
    double = torch.cat([context.flip(0), context])
    timestep = torch.tensor([1, 400, 999])
    expected = model(sample.repeat(2, 1, 1, 1), timestep.repeat(2), double).sample
    shared = model(sample, timestep, model.prepare_context(double) if cached else double).sample
    torch.testing.assert_close(shared, expected, rtol=0, atol=1e-5)


def test_one_context_token_needs_no_softmax():
    model = make("cross")
    sample, context = inputs(model, tokens=1)
    with torch.no_grad():
        short = model(sample, 9, context).sample
    full = model(sample, 9, context).sample
    torch.testing.assert_close(short, full.detach(), rtol=0, atol=1e-5)
    full.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_equal_gradients(family):
    model = make(family, dropout=0.1).train()
    sample, context = inputs(model)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.zero_grad()
        torch.manual_seed(2)
        model(sample, 9, context).sample.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(plain, again) for plain, again in zip(*gradients, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_bfloat16_is_close(family):
    model = make(family)
    sample, context = inputs(model)
    expected = model(sample, 9, context).sample
    half = model.to(torch.bfloat16)(sample.bfloat16(), 9, None if context is None else context.bfloat16()).sample
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_save_and_load(family, tmp_path):
    model = make(family)
    model.save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    saved, loaded = model.state_dict(), again.state_dict()
    assert saved.keys() == loaded.keys() and all(torch.equal(loaded[name], saved[name]) for name in saved)
    arguments = inputs(model)
    # Equal weights, but mapped from a file at other addresses, for which a CPU's kernels may sum in another order.
    found, expected = again(arguments[0], 9, arguments[1]).sample, model(arguments[0], 9, arguments[1]).sample
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("family", FAMILIES)
def test_forward_reads_no_values(family):
    """Meta tensors have none, so whatever runs on them waits for no device and can be captured as a graph."""
    model = make(family).to("meta")
    sample, context = (None if tensor is None else tensor.to("meta") for tensor in inputs(model))
    timestep = torch.zeros(3, device="meta", dtype=torch.long)
    contexts = [context] if context is None else [context, model.prepare_context(context)]
    prepared = model.prepare_timesteps(timestep)[0]
    for given in contexts:
        for time in (timestep, timestep[0], prepared):
            assert model(sample, time, given).sample.shape == sample.shape
        features = model(sample, prepared, given, cache_branch=1).features
        reused = model(sample, prepared, given, cache_branch=1, cached_features=features)
        assert reused.sample.shape == sample.shape


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_prepared_timesteps_differ_by_rounding_alone(family):
    model = make(family)
    sample, context = inputs(model)
    timesteps = torch.tensor([999, 500, 1])
    prepared = model.prepare_timesteps(timesteps)
    assert len(prepared) == 3
    for timestep, once in zip(timesteps, prepared, strict=True):
        torch.testing.assert_close(model(sample, once, context).sample, model(sample, timestep, context).sample)
    assert (model(sample, prepared[0], context).sample - model(sample, prepared[2], context).sample).abs().max() > 1e-3


def test_what_replaces_the_forward_is_given_timesteps_as_they_are():
    model, timesteps = make("plain"), torch.tensor([999, 1])
    plain = model.forward
    model.forward = functools.partial(plain)
    assert [int(timestep) for timestep in model.prepare_timesteps(timesteps)] == [999, 1]
    model.forward = plain  # as accelerate leaves it when its hooks are removed
    assert all(isinstance(prepared, PreparedTimestep) for prepared in model.prepare_timesteps(timesteps))


BRANCHES = range(4)  # of a network of two levels with one layer each: conv_in, layer, halving, layer


@pytest.mark.thorough
@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_features_take_the_place_of_what_lies_deeper(family, branch):
    model = make(family)
    sample, context = inputs(model)
    double = None if context is None else torch.cat([context.flip(0), context])
    full = model(sample, 9, double, cache_branch=branch)
    assert torch.equal(full.sample, model(sample, 9, double).sample)
    again, features = model(sample, 9, double, False, cache_branch=branch, cached_features=full.features)
    assert torch.equal(again, full.sample) and features is full.features
    other = model(sample.flip(0), 300, double, cache_branch=branch, cached_features=full.features).sample
    assert (other - model(sample.flip(0), 300, double).sample).abs().max() > 1e-4


@pytest.mark.parametrize("branch", BRANCHES)
@torch.no_grad()
def test_features_save_the_deeper_layers(branch):
    model, called = make("cross"), []
    for block in (*model.down_blocks, model.mid_block, *model.up_blocks):
        block.register_forward_hook(lambda block, *_: called.append("mid") if block is model.mid_block else None)
        for layer in (*block.resnets, *getattr(block, "downsamplers", ())):
            layer.register_forward_hook(lambda *_: called.append("layer"))
    sample, context = inputs(model)
    features = model(sample, 9, context, cache_branch=branch).features
    assert (called.count("layer"), called.count("mid")) == (3 + 2 + 4, 1)  # down, mid, up
    called.clear()
    model(sample, 9, context, cache_branch=branch, cached_features=features)
    assert (called.count("layer"), called.count("mid")) == (branch + branch + 1, 0)


@pytest.mark.thorough
def test_the_way_with_features_and_the_way_without_are_exported():
    """Neither looks at values, so `torch.export` follows both."""

    class Positional(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, sample, timestep, context, features):
            return self.model(sample, timestep, context, False, cache_branch=1, cached_features=features)

    model = make("cross")
    sample, context = inputs(model)
    timestep = torch.tensor(9)
    with torch.no_grad():
        expected = model(sample, timestep, context, False, cache_branch=1)
        for features in (None, expected[1]):
            given = (sample, timestep, context, features)
            found = torch.export.export(Positional(model), given).module()(*given)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
        plain = torch.export.export(model, (sample, timestep, context)).module()(sample, timestep, context)
        torch.testing.assert_close(plain.sample, expected[0], rtol=0, atol=1e-5)


def test_bad_features():
    model = make("plain")
    sample, _ = inputs(model)
    features = model(sample, 9, cache_branch=1).features
    for branch in (-1, 4, True, 0.5):
        with pytest.raises(InputError, match=f"cache_branch is {branch}; this network has the branches 0 to 3"):
            model(sample, 9, cache_branch=branch)
    with pytest.raises(InputError, match="give both"):
        model(sample, 9, cached_features=features)
    with pytest.raises(InputError, match="have batch 2; this call takes those of 3"):
        model(sample, 9, cache_branch=1, cached_features=features[:2])


def test_new_network_predicts_zero():
    model = UNet2DConditionModel(**SMALL, **FAMILIES["cross"])
    sample, context = inputs(model)
    assert not model(sample, 9, context).sample.any()


@pytest.mark.parametrize(
    ("family", "sample", "timestep", "context", "message"),
    [
        ("plain", (2, 4, 8, 8), 1, None, r"takes \(B, 3, H, W\)"),
        ("plain", (3, 8, 8), 1, None, r"takes \(B, 3, H, W\)"),
        ("plain", (2, 3, 8, 7), 1, None, "multiples of 2"),
        ("plain", (2, 3, 8, 8), torch.zeros(3), None, "timestep has shape"),
        ("plain", (2, 3, 8, 8), 1, (2, 5, 24), "takes no context"),
        ("cross", (2, 3, 8, 8), 1, None, "missing"),
        ("cross", (2, 3, 8, 8), 1, (2, 5, 23), r"takes \(B, M, 24\)"),
        ("cross", (2, 3, 8, 8), 1, (2, 24), r"takes \(B, M, 24\)"),
        ("cross", (2, 3, 8, 8), 1, (3, 5, 24), "multiple of the sample's 2"),
        ("cross", (2, 3, 8, 8), 1, (1, 5, 24), "multiple of the sample's 2"),
    ],
)
def test_bad_inputs(family, sample, timestep, context, message):
    with pytest.raises(InputError, match=message):
        make(family)(torch.zeros(sample), timestep, None if context is None else torch.zeros(context))


def test_cache_of_another_network_is_refused():
    context = torch.zeros(1, 5, 24)
    with pytest.raises(InputError, match="prepare_context"):
        make("middle_only")(torch.zeros(1, 3, 8, 8), 1, make("cross").prepare_context(context))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_head_channels": None}, "neither"),
        ({"num_attention_heads": 4}, "both"),
        ({"num_head_channels": 24}, "num_head_channels 24 does not divide a level's 64"),
        ({"num_head_channels": None, "num_attention_heads": 7}, "7 attention heads does not divide"),
        ({"num_head_channels": None, "num_attention_heads": (1, 2, 3)}, "3 entries"),
        ({"attention_levels": (True,)}, "attention_levels has 1 entries"),
        ({"block_out_channels": (32, 48)}, "norm_num_groups 32"),
        ({"block_out_channels": ()}, "empty"),
        ({"dropout": 1.0}, "dropout"),
        ({"resnet_time_scale_shift": "ada"}, "scale_shift"),
        ({"layers_per_block": 0}, "layers_per_block"),
        (
            {"attention_levels": (False, False), "mid_block_attention": False, "cross_attention_dim": 8},
            "no level attends",
        ),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ConfigError, match=message):
        UNet2DConditionModel(**{**SMALL, **FAMILIES["plain"], **options})
