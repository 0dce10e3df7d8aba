"""`latentdiff ema`: a run's weights averaged over another width."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from latentdiff import DiffusionPipeline
from latentdiff.training.engine.ema import EMA
from latentdiff.training.engine.ema_snapshots import write_snapshot


class Trained(nn.Module):
    def __init__(self, unet):
        super().__init__()
        self.unet = unet
        self.beside = nn.Linear(2, 2)  # as a discriminator is, which no model keeps


@pytest.fixture
def trained(unconditional_model, tmp_path):
    """A run whose network wandered for 60 steps; returns the average of width 0.15 that was followed all the while."""
    shutil.copytree(unconditional_model, tmp_path / "runs/x/pipeline")
    task = Trained(DiffusionPipeline.from_pretrained(unconditional_model).unet)
    ema, generator = EMA(task, 0.9, [0.05, 0.1, 0.15]), torch.Generator().manual_seed(0)
    for step in range(1, 61):
        with torch.no_grad():
            for parameter in task.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator) + 0.01)
        ema.update()
        if step % 6 == 0:
            stored = {name: tensor for name, tensor in ema.shadow.items() if not name.endswith("@0.15")}
            write_snapshot(tmp_path / "runs/x", step, step, stored, torch.float32)
    return {name.removesuffix("@0.15"): tensor for name, tensor in ema.shadow.items() if name.endswith("@0.15")}


def test_a_width_that_was_not_stored(run, trained, tmp_path):
    code, out, err = run("ema", "runs/x", "--sigma-rel", 0.15, "-o", "wide")
    assert (code, len(out)) == (0, 1) and not [line for line in err if "error" in line]
    assert out[0].startswith("wide: sigma_rel 0.15 at update 60, of 10 snapshots, whose combination differs")
    weights = load_file(tmp_path / "wide/unet/diffusion_pytorch_model.safetensors")
    for name, tensor in weights.items():
        expected = trained[f"unet.{name}"]
        assert float((tensor - expected).norm() / expected.norm()) < 5e-3
    run("ema", "runs/x", "--sigma-rel", 0.15, "-o", "early", "--step", 30, "--quiet")
    early = load_file(tmp_path / "early/unet/diffusion_pytorch_model.safetensors")
    assert not torch.equal(early["conv_in.weight"], weights["conv_in.weight"])


@pytest.mark.usefixtures("trained")
def test_what_is_wrong_is_one_line(fails):
    fails("sigma_rel is 0.5; it must be above 0 and below 0.2887", "ema", "runs/x", "--sigma-rel", 0.5, "-o", "out")
    fails("step is 7, of which runs/x has no snapshot", "ema", "runs/x", "--sigma-rel", 0.1, "-o", "out", "--step", 7)
    fails("runs/x exists already", "ema", "runs/x", "--sigma-rel", 0.1, "-o", "runs/x")
    fails("holds no snapshots of averages", "ema", "runs", "--sigma-rel", 0.1, "-o", "out")
