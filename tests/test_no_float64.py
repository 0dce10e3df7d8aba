"""Solvers and losses on a device without float64; the tasks' pipelines are in `pipelines/test_tasks.py`."""

from pathlib import Path

import pytest
import tiny
import torch
import toy
from no_float64 import DEVICE, NoFloat64
from torch.utils.data import default_collate

from latentdiff.registry import SCHEDULERS
from latentdiff.seeding import SampleGenerators
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.engine.task import to_device

pytestmark = pytest.mark.thorough


def test_float64_is_noticed():
    with NoFloat64(), pytest.raises(TypeError, match="float64"):
        torch.ones(1, dtype=torch.float64).to(DEVICE)


@pytest.mark.parametrize("scheduler", SCHEDULERS.names())
def test_solvers(scheduler, tmp_path):
    pipe = tiny.unconditional(tmp_path).to(DEVICE)
    pipe.set_scheduler(scheduler)
    with NoFloat64():
        latents = pipe(2, num_inference_steps=5, output_type="latent", seed=0).images
    assert latents.device == DEVICE


@pytest.mark.parametrize("task", toy.TASKS)
def test_training(task, tmp_path):
    def run(network, items, recipe, accelerator, held_out=None):
        network.to(DEVICE)
        network.pipeline.to(DEVICE)
        batch = default_collate([items.visit(number, number) for number in range(4)])
        with NoFloat64():
            loss, _ = network(to_device(batch, DEVICE), SampleGenerators(0, range(4)))
            loss.backward()
        assert loss.device == DEVICE
        return Path(recipe.output_dir)

    torch.manual_seed(0)
    data, vae = toy.write(tmp_path / "data"), toy.write_vae(tmp_path / "vae")
    train_diffusion(toy.recipe(task, data, vae, tmp_path / "run"), run=run)
