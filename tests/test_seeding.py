"""Draws that depend on what they are named by, and on nothing else."""

import torch

from latentdiff.seeding import SampleGenerators


def test_a_sample_is_drawn_alike_in_any_batch():
    def drawn(samples, seed=0):
        draws = SampleGenerators(seed, samples)
        return draws.normal_like(torch.empty(len(samples), 4, 3, 3)), draws.uniform(), draws.integers(1000)

    whole = drawn(range(5, 9))
    for row, sample in enumerate(range(5, 9)):
        for all_rows, alone in zip(whole, drawn([sample]), strict=True):
            assert torch.equal(all_rows[row : row + 1], alone)
    assert all(not torch.equal(one, other) for one, other in zip(whole, drawn(range(5, 9), seed=1), strict=True))
    assert len(set(whole[0].flatten().tolist())) > 140  # of 144 numbers, no row repeats another
