"""Weights of 8 bits: levels and scales worked out by hand, and layers that compute with them."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latentdiff.nn import int8
from latentdiff.nn.int8 import Int8Conv2d, Int8Linear, has_int8, quantize_layer, quantize_network, quantized


def test_levels_worked_out_by_hand():
    weight = torch.tensor([[1.27, -0.64, 0.0049, 0.0051], [0.0, 0.0, 0.0, 0.0], [-254.0, 1.0, 3.0, 253.0]])
    levels, scale = quantized(weight, torch.float32)
    assert levels.tolist() == [[127, -64, 0, 1], [0, 0, 0, 0], [-127, 0, 2, 126]]  # halves go to the even level
    torch.testing.assert_close(scale, torch.tensor([[0.01], [1.0], [2.0]]))
    assert levels.dtype == torch.int8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_weight_is_further_off_than_half_a_step(dtype):
    """By the scale as it is kept: were it rounded after the levels, a channel would be off by up to half a level more
    the larger its levels are."""
    weight = torch.randn(64, 3, 5) * torch.logspace(-3, 2, 64)[:, None, None]
    levels, scale = quantized(weight, dtype)
    assert scale.shape == (64, 1, 1) and scale.dtype == dtype
    off = (levels.float() * scale.float() - weight).abs() / scale.float()
    assert (off[levels.abs() < 127] <= 0.5 + 1e-4).all()
    assert off.max() <= 1  # of the largest weight of a channel whose scale is rounded down
    assert levels.abs().amax(dim=(1, 2)).min() >= 126


def test_a_channel_that_is_not_finite_stays_so():
    levels, scale = quantized(torch.tensor([[1.0, float("nan")], [1.0, -1.0]]), torch.float32)
    found = levels * scale
    assert found[0].isnan().all() and found[1].tolist() == [1.0, -1.0]


LAYERS = {
    "linear": (nn.Linear(6, 4), (2, 3, 6), Int8Linear),
    "linear without bias": (nn.Linear(6, 4, bias=False), (2, 6), Int8Linear),
    "convolution": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8), Int8Conv2d),
    "convolution of groups": (nn.Conv2d(4, 6, 1, groups=2), (2, 4, 5, 5), Int8Conv2d),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_with_the_nearest_levels(name):
    layer, shape, kind = copy.deepcopy(LAYERS[name])
    x = torch.randn(shape)
    levels, scale = quantized(layer.weight, torch.float32)
    plain = copy.deepcopy(layer)
    plain.weight = nn.Parameter(levels * scale)
    quantize_layer(layer, torch.float32)
    assert type(layer) is kind and layer.levels.dtype == torch.int8 and "weight" not in layer.state_dict()
    for made in (layer, copy.deepcopy(layer)):
        assert torch.equal(made(x), plain(x))
        with torch.no_grad():
            assert torch.equal(made(x), plain(x))
    assert 0 < (plain(x) - LAYERS[name][0](x)).abs().max() < 0.05


def test_gradients_reach_what_a_layer_is_given():
    layer = nn.Linear(3, 2)
    quantize_layer(layer, torch.float32)
    x = torch.randn(1, 3, requires_grad=True)
    layer(x).sum().backward()
    assert torch.equal(x.grad, layer.weight.sum(dim=0, keepdim=True))


def test_layers_that_share_memory_do_not_share_weights():
    layers = [nn.Linear(4, 3), nn.Conv2d(4, 5, 3), nn.Linear(4, 1), nn.Linear(4, 3).bfloat16()]
    for layer in layers:
        quantize_layer(layer, layer.bias.dtype)
    inputs = [torch.randn(2, 4, *[5] * (layer.levels.ndim - 2)).to(layer.bias.dtype) for layer in layers]
    expected = [layer(x).detach() for layer, x in zip(layers, inputs, strict=True)]

    def work(seed):
        with torch.inference_mode() if seed % 2 else torch.no_grad():
            for number in torch.randint(4, (50,), generator=torch.Generator().manual_seed(seed)).tolist():
                assert torch.equal(layers[number](inputs[number]), expected[number])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(16)))


class OwnLinear(nn.Linear):
    """A layer that does something else with its weight."""

    def forward(self, x):
        return F.linear(x, self.weight.abs())


def test_a_network_keeps_what_it_is_told_to_keep():
    network = nn.ModuleDict(
        {
            "first": nn.Conv2d(3, 4, 3),
            "body": nn.Sequential(
                nn.Linear(4, 4), nn.GroupNorm(2, 4), OwnLinear(4, 4), nn.ModuleList([nn.Linear(4, 4)])
            ),
        }
    )
    assert not has_int8(network)
    quantize_network(network, torch.bfloat16, frozenset({"first"}))
    kinds = [type(module) for module in network["body"].modules()]
    assert kinds == [nn.Sequential, Int8Linear, nn.GroupNorm, OwnLinear, nn.ModuleList, Int8Linear]
    assert type(network["first"]) is nn.Conv2d and has_int8(network)
    dtypes = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert {name for name, dtype in dtypes.items() if dtype != torch.bfloat16} == {"body.0.levels", "body.3.0.levels"}


@pytest.mark.parametrize("block", [1, 19, 20, 41, 10**6])
def test_the_size_of_blocks_changes_nothing(monkeypatch, block):
    weight = torch.randn(7, 4, 5)
    expected = quantized(weight, torch.float32)
    monkeypatch.setattr(int8, "BLOCK", block)
    assert all(torch.equal(*pair) for pair in zip(quantized(weight, torch.float32), expected, strict=True))
