"""Conditionings and caches join, repeat and slice along the batch."""

import pytest
import torch

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.nn.context import ContextCache, repeat_batch


def cache(batch):
    layer = torch.arange(batch * 24.0).reshape(batch, 2, 3, 4)
    return ContextCache((layer, layer + 1), (layer + 2, layer + 3))


def test_repeat_batch_repeats_the_whole():
    assert repeat_batch(torch.tensor([1, 2]), 4).tolist() == [1, 2, 1, 2]


@pytest.mark.parametrize("context", [torch.randn(2, 3, 4), cache(2)])
def test_cat_repeat_slice(context):
    one = Conditioning(context, torch.randn(2, 1, 8, 8))
    assert one.batch_size == 2
    both = Conditioning.cat([one, one])
    assert both.batch_size == 4 and both.concat.shape[0] == 4
    assert torch.equal(both[2:].concat, one.concat)
    twice = one.repeat(2)
    assert torch.equal(twice.concat[0], twice.concat[1]) and twice.batch_size == 4
    assert one.to(dtype=torch.float64).concat.dtype == torch.float64


def test_nothing_is_a_conditioning():
    assert Conditioning.cat([Conditioning(), Conditioning()]).batch_size is None


def test_cat_refuses_different_kinds():
    tensor = Conditioning(torch.zeros(1, 3, 4))
    for other in (Conditioning(), Conditioning(cache(1)), Conditioning(tensor.context, torch.zeros(1, 1, 8, 8))):
        with pytest.raises(InputError, match="different kinds"):
            Conditioning.cat([tensor, other])
    with pytest.raises(InputError, match="tokens"):
        Conditioning.cat([tensor, Conditioning(torch.zeros(1, 2, 4))])
