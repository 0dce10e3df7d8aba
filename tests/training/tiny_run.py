"""The smallest run that has all that a run can lose: weights, averages, moments, draws, dropout, an unfinished line."""

import json
import math
import os
import sys
import time
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from safetensors.torch import load_file, save_file
from torch import nn

from latentdiff.config import load_recipe
from latentdiff.io.files import atomic_file
from latentdiff.training.engine import session as sessions
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.session import open_session
from latentdiff.training.engine.task import Task
from latentdiff.training.recipes import Recipe

BASE = {
    "data.train_data_dir": "images",
    "train_batch_size": 4,
    "optimizer.learning_rate": 0.05,
    "optimizer.lr_scheduler": "cosine",
    "ema.decay": 0.9,
    "max_train_steps": 10,
    "checkpoint.steps": 4,
    "checkpoint.total_limit": 3,
    "logging_steps": 3,
    "report_to": "none",
}


class Denoise(Task):
    """Points from which noise is to be taken.

    Args:
        hook: Called with the step and the loss, at every forward pass; gives what is the loss instead.
        dropout: Whose draws are the process's own.
    """

    def __init__(self, hook=None, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Dropout(dropout), nn.Linear(32, 8))
        self.hook = hook

    def forward(self, batch, draws):
        noise = draws.normal_like(batch)
        loss = (self.net(batch + noise) - noise).square().mean()
        loss = self.hook(self.step, loss) if self.hook else loss
        return loss, {"twice": 2 * loss.detach()}

    def export(self, folder):
        with atomic_file(folder / "net.safetensors") as aside:
            save_file(self.net.state_dict(), aside)


def items():
    """So many that epochs end within a batch."""
    return list(torch.randn(13, 8, generator=torch.Generator().manual_seed(1)))


def run(output, hook=None, dropout=0.0, shards=None, scaler=None, spoilt=(), **options):
    """Train; in the steps `spoilt` a second process's loss isn't finite, and its gradient is or isn't."""
    if spoilt and os.environ.get("LOCAL_RANK") == "1":

        def hook(step, loss):
            return loss + (math.inf if step % 2 else 0 * loss / 0) if step in spoilt else loss

    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(output), **options})
    share_out(shards)
    with open_session(recipe) as session:
        accelerator = session.accelerator
        if scaler is not None:  # as accelerate does for fp16 on GPUs
            accelerator.scaler, accelerator.native_amp, accelerator.state._mixed_precision = scaler, True, "fp16"
        return train(Denoise(hook, dropout), items(), recipe, session)


MADE = sessions.make_accelerator


def share_out(shards):
    """Have runs of this process train in shards, if any."""
    sessions.make_accelerator = (lambda recipe: SHARDS[shards](MADE(recipe))) if shards else MADE


def fsdp(accelerator):
    """As if configured for FSDP, which accelerate reads on GPUs only; what it does then works on CPUs as well."""
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, cpu_ram_efficient_loading=False)
    accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator


def zero(accelerator, stage, offload="none", **config):
    """As if configured for DeepSpeed, with the same remark."""
    plugin = DeepSpeedPlugin(zero_stage=stage, offload_optimizer_device=offload)
    plugin.set_mixed_precision(accelerator.mixed_precision)
    plugin.deepspeed_config.update(config)
    plugin._set_selected(True)
    accelerator.state.deepspeed_plugins, accelerator.deepspeed_engine_wrapped = {"default": plugin}, None
    for state in (accelerator.state, PartialState()):
        state.distributed_type = DistributedType.DEEPSPEED
    return accelerator


SHARDS = {
    "FSDP": fsdp,
    "ZeRO 1": lambda accelerator: zero(accelerator, 1),
    "ZeRO 2": lambda accelerator: zero(accelerator, 2),
    "ZeRO 2, offloaded": lambda accelerator: zero(accelerator, 2, "cpu"),
}


def weights(output: Path):
    return load_file(output / "net.safetensors")


def log(output: Path):
    """The lines, without the one value that is a time."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    times = ("images_per_second", "data_wait")
    return [{name: value for name, value in line.items() if name not in times} for line in lines]


def assert_same_run(first: Path, second: Path, checkpoints=("checkpoint-4", "checkpoint-8", "checkpoint-10")):
    """Weights, log, and all that the checkpoints hold."""
    assert log(first) == log(second) and log(first)
    pairs = [(weights(first), weights(second))]
    for name in checkpoints:
        one, other = first / name, second / name
        pairs += [(load_file(one / f), load_file(other / f)) for f in ("model.safetensors", "ema.safetensors")]
        moments = [torch.load(path / "optimizer.pt", weights_only=True) for path in (one, other)]
        assert moments[0]["param_groups"] == moments[1]["param_groups"]
        for number, values in moments[0]["state"].items():
            pairs.append((values, moments[1]["state"][number]))
        assert (one / "state.json").read_text() == (other / "state.json").read_text()
    for one, other in pairs:
        assert one.keys() == other.keys() and one
        assert all(torch.equal(one[name], other[name]) for name in one)


if __name__ == "__main__":
    run(sys.argv[1], lambda step, loss: time.sleep(0.01) or loss, **json.loads(sys.argv[2]))
