"""Worker processes that start afresh, as on macOS, Windows and newer Pythons, are sent their data set pickled."""

import pickle
from pathlib import Path

import pytest
import torch
import toy

from latentdiff.training.diffusion.task import train_diffusion


@pytest.mark.parametrize("task", toy.TASKS)
def test_a_pickled_data_set_has_the_same_samples(task, data, vae, tmp_path):
    seen = []

    def run(network, items, recipe, accelerator, held_out=None):
        content = pickle.dumps(items)
        again = pickle.loads(content)
        for index, number in ((0, 0), (7, 31)):
            first, second = items.visit(index, number), again.visit(index, number)
            assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        seen.append(len(content))
        return Path(recipe.output_dir)

    train_diffusion(toy.recipe(task, data, vae, tmp_path), run=run)
    (cached,) = tmp_path.glob("latents/moments.npy")
    assert seen and seen[0] < cached.stat().st_size, "the latents are in it, not their place"
