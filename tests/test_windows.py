"""Overlapped windows join without a seam, whatever the sizes, and never hold more than one window's work."""

import itertools
import math

import pytest
import torch

from latentdiff import InputError, Windows
from latentdiff.windows import _Axis

SIZES = [(16, 16), (17, 40), (40, 16), (64, 33), (5, 7)]


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("phase", [0.0, 0.3, 0.99])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_windows_of_the_identity_are_the_image(height, width, phase, wrap):
    image = torch.randn(2, 3, height, width)
    joined = Windows(16, 4, wrap).apply(lambda part: part, image, phase=phase)
    torch.testing.assert_close(joined, image, rtol=0, atol=1e-6)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("overlap", [0, 1, 5, 8])
def test_shares_sum_to_one_and_fall_towards_borders(overlap, wrap):
    for zoom in (1, 4):
        axis = _Axis.of(Windows(16, overlap), 61, 0.4, wrap=wrap)
        total = torch.zeros(61 * zoom)
        for i, share in enumerate(axis.shares(zoom)):
            places = (torch.arange(16 * zoom) + axis.starts[i] * zoom) % len(total)
            total.index_add_(0, places, share)
        torch.testing.assert_close(total, torch.ones_like(total))
    if overlap > 1:
        inner = axis.shares(1)[1]
        assert inner[0] < 0.5 * inner[overlap] and inner.argmax() >= overlap // 2


def test_neighbours_overlap_by_at_least_what_was_asked():
    for length in range(17, 100):
        for phase in (0.0, 0.5, 0.9):
            starts = _Axis.of(Windows(16, 6), length, phase, wrap=False).starts
            assert starts[0] == 0 and starts[-1] == length - 16
            assert max(b - a for a, b in itertools.pairwise(starts)) <= 10


def test_phase_moves_the_borders_at_a_window_more():
    axis = [_Axis.of(Windows(16, 4), 64, phase, wrap=False) for phase in (0.0, 0.25, 0.5)]
    inner = [set(a.starts[1:-1]) for a in axis]
    assert not inner[0] & inner[1] and not inner[1] & inner[2]
    assert all(len(a.starts) <= math.ceil((64 - 16) / 12) + 2 for a in axis)


def test_results_may_be_larger_or_smaller_than_the_inputs():
    image = torch.rand(1, 2, 24, 40)
    grown = Windows(16, 8).apply(lambda x: x.repeat_interleave(4, -1).repeat_interleave(4, -2), image, zoom_out=4)
    torch.testing.assert_close(grown, image.repeat_interleave(4, -1).repeat_interleave(4, -2), rtol=0, atol=1e-6)
    back = Windows(16, 8).apply(lambda x: torch.nn.functional.avg_pool2d(x, 4), grown, zoom_in=4)
    torch.testing.assert_close(back, image, rtol=0, atol=1e-6)


def test_every_call_sees_a_window_and_no_more():
    seen = set()

    def look(first, second):
        seen.add((tuple(first.shape), tuple(second.shape)))
        return first

    Windows(16, 4, wrap=True).apply(look, torch.zeros(1, 3, 50, 70), torch.zeros(1, 5, 50, 70))
    assert seen == {((1, 3, 16, 16), (1, 5, 16, 16))}


def test_wrapping_joins_the_edges():
    """A blur that knows no edges gives a panorama whose left and right edge are as alike as any neighbours."""
    torch.manual_seed(0)
    image = torch.randn(1, 1, 32, 64)

    def blur(part):
        return torch.nn.functional.avg_pool2d(part, 5, stride=1, padding=2, count_include_pad=False)

    def jump(result):
        return (result[..., 0] - result[..., -1]).abs().mean() / (result[..., 1:] - result[..., :-1]).abs().mean()

    assert jump(Windows(16, 8, wrap=True).apply(blur, image)) < 1.3
    assert jump(Windows(16, 8).apply(blur, image)) > 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0), "size is 0"),
        ((16, 9), "overlap is 9; it must be an integer from 0 to 8"),
        ((16, -1), "overlap is -1"),
        ((16.0, 4), "size is 16.0"),
    ],
)
def test_bad_windows(arguments, words):
    with pytest.raises(InputError, match=words):
        Windows(*arguments)


def test_windows_that_do_not_fit_the_model():
    with pytest.raises(InputError, match="size must be a multiple of 32, overlap of 8"):
        Windows(100, 8).divided(8, 4)
    assert Windows(64, 16, True).divided(8, 4) == Windows(8, 2, True)
