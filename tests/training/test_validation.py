"""Looking at a run while it trains: values, pictures, and training that goes on as if nobody had looked."""

import errno
import json
import shutil

import pytest
import tiny_run
import torch
import toy
from processes import Runs
from safetensors.torch import load_file, save_file
from torch import nn

from latentdiff import ConfigError
from latentdiff.config import load_recipe
from latentdiff.errors import LatentDiffWarning
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.session import open_session
from latentdiff.training.engine.task import Task
from latentdiff.training.recipes import Recipe

pytestmark = pytest.mark.thorough

BASE = {
    "data.train_data_dir": "unused",
    "train_batch_size": 2,
    "optimizer.learning_rate": 0.1,
    "ema.decay": 0.5,
    "max_train_steps": 4,
}


class Line(Task):
    """A line through points (x, 3 x), with dropout before it that validation must not see."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dropout, self.linear, self.frozen = nn.Dropout(0.5), nn.Linear(1, 1), nn.Dropout(0.5).eval()

    def forward(self, batch, draws):
        assert self.dropout.training == torch.is_grad_enabled() and not self.frozen.training
        return (self.linear(batch) - 3 * batch).square().mean(), {}

    def validate(self, folder, step):
        assert not self.dropout.training and not torch.is_grad_enabled()
        (folder / f"{step}.txt").write_text(str(step))
        return {"slope": float(self.linear.weight)}

    def export(self, folder):
        save_file({"slope": self.linear.weight.detach().clone()}, folder / "line.safetensors")


def run(output, **options):
    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(output), **options})
    with open_session(recipe) as session:
        train(Line(), [torch.tensor([float(x)]) for x in range(1, 5)], recipe, session)
    return load_file(output / "line.safetensors")["slope"]


def test_validation_sees_the_averaged_weights_and_changes_nothing(tmp_path):
    slope = run(tmp_path / "with", **{"validation.steps": 2})
    lines = [json.loads(line) for line in (tmp_path / "with" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4] and [line["images"] for line in lines] == [4, 8]
    assert lines[-1]["validation/slope"] == pytest.approx(float(slope), rel=1e-5)  # what is exported is the average
    assert sorted(path.name for path in (tmp_path / "with" / "validation").iterdir()) == ["2.txt", "4.txt"]
    unwatched = run(tmp_path / "without")
    assert torch.equal(slope, unwatched) and not (tmp_path / "without" / "validation").exists()
    live = run(tmp_path / "live", **{"ema.decay": 0})
    assert not torch.equal(slope, live)


def test_steps_are_checked():
    with pytest.raises(ConfigError, match=r"validation\.steps is -1; it must be at least 0; 0 is never"):
        load_recipe(Recipe, None, {**BASE, "output_dir": "none", "validation.steps": -1})


def test_held_out_loss_and_the_best_weights(tmp_path):
    """The loss on held-out data falls, then rises: the best weights are those of the lowest, also after a resume."""
    held_out = [torch.tensor([0.5]), torch.tensor([0.49])]
    values = {
        **BASE,
        "optimizer.learning_rate": 0.4,
        "max_train_steps": 12,
        "validation.steps": 1,
        "checkpoint.steps": 6,
    }

    def go(output, **options):
        recipe = load_recipe(Recipe, None, {**values, "output_dir": str(output), **options})
        with open_session(recipe) as session:
            train(Line(), [torch.ones(1)], recipe, session, held_out)
        lines = map(json.loads, (output / "log.jsonl").read_text().splitlines())
        return [line for line in lines if "validation/loss" in line]

    lines = go(tmp_path / "whole")
    lowest = min(lines, key=lambda line: line["validation/loss"])
    assert 1 < lowest["step"] < 6, "or the test shows nothing"
    best = load_file(tmp_path / "whole" / "best" / "line.safetensors")["slope"]
    assert float(best) == pytest.approx(lowest["validation/slope"], rel=1e-5)
    go(tmp_path / "parts", max_train_steps=6)
    shutil.copytree(tmp_path / "parts", tmp_path / "older")
    assert go(tmp_path / "parts", resume_from_checkpoint="latest")[-1] == lines[-1]
    assert torch.equal(load_file(tmp_path / "parts" / "best" / "line.safetensors")["slope"], best)
    folder = tmp_path / "older" / "checkpoint-6"  # of a version that left the best to the log
    state, manifest = (json.loads((folder / name).read_text()) for name in ("state.json", "manifest.json"))
    del state["best"]
    (folder / "state.json").write_text(json.dumps(state))
    manifest["files"]["state.json"] = checkpoint._fingerprint(folder / "state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert go(tmp_path / "older", resume_from_checkpoint="latest")[-1]["validation/best_step"] == lowest["step"]
    assert torch.equal(load_file(tmp_path / "older" / "best" / "line.safetensors")["slope"], best)


def test_validation_is_turned_off_by_its_steps(tmp_path):
    data, vae = toy.write(tmp_path / "images"), toy.write_vae(tmp_path / "vae")
    options = {"validation.steps": 0, "validation.data_dir": "nowhere", "validation.samples": 2, "max_train_steps": 1}
    with pytest.warns(LatentDiffWarning) as caught:
        output = toy.train("unconditional", data, vae, tmp_path / "out", **options)
    said = [str(warning.message) for warning in caught if "goes unused" in str(warning.message)]
    assert said == [f"{name} goes unused, as validation.steps is 0" for name in sorted(options)[1:3]]
    assert not (output / "validation").exists()


def test_a_full_disk_ends_no_run(tmp_path, monkeypatch):
    """Only the best weights of that step are lost."""

    def full(self, folder):
        if folder.name == "best":
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, folder)

    plain = Line.export
    monkeypatch.setattr(Line, "export", full)
    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(tmp_path), "validation.steps": 4})
    line = "what validation found at step 4 failed .No space left"
    with open_session(recipe) as session, pytest.warns(LatentDiffWarning, match=line):
        train(Line(), [torch.ones(1)], recipe, session, [torch.ones(1)])
    assert (tmp_path / "line.safetensors").is_file() and not list((tmp_path / "best").iterdir())


@pytest.mark.slow
def test_two_processes_look_once(tmp_path):
    """The main process does, and the others wait; the losses are those of a run without."""
    runs = Runs()
    try:
        assert runs(tmp_path / "with", 2, **{"validation.steps": 2}, report_to="tensorboard")[0] == [0, 0]
        assert runs(tmp_path / "without", 2)[0] == [0, 0]
    finally:
        runs.close()
    assert tiny_run.log(tmp_path / "with")[-1] == tiny_run.log(tmp_path / "without")[-1]
    assert (tmp_path / "with" / "validation").is_dir() and len(list((tmp_path / "with" / "logs").rglob("events*"))) >= 1
