"""Trackers get the recipe, what the log gets, and the pictures."""

import errno
import json

import numpy as np
import pytest
import torch
import toy
from accelerate import Accelerator
from accelerate.tracking import TensorBoardTracker
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from latentdiff import ConfigError
from latentdiff.errors import LatentDiffWarning
from latentdiff.training.engine import trackers

pytestmark = pytest.mark.thorough

VALIDATION = {"validation.steps": 4, "validation.inference_steps": 1, "validation.samples": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three steps, then a run resumed after the second for two more, with a picture at the end."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("run")
    data, vae = toy.write(root / "images"), toy.write_vae(root / "vae")
    toy.train("unconditional", data, vae, root / "out", **VALIDATION, max_train_steps=3, logging_steps=1)
    options = {"resume_from_checkpoint": "latest", "logging_steps": 1}
    return toy.train("unconditional", data, vae, root / "out", **VALIDATION, **options)


@pytest.fixture(scope="module")
def events(run):
    accumulator = EventAccumulator(str(run / "logs" / "latentdiff"), size_guidance={"images": 0})
    return accumulator.Reload()


def test_tensorboard_has_every_value_of_the_log(run, events):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "lr", "images_per_second"):
        logged = {line["step"]: line[name] for line in lines if name in line}
        assert list(logged) == [1, 2, 3, 4]
        assert len(events.Scalars(name)) == 4
        assert {event.step: event.value for event in events.Scalars(name)} == pytest.approx(logged, rel=1e-5)


def test_tensorboard_has_the_pictures(run, events):
    (event,) = events.Images("samples")
    assert event.step == 4
    sheet = np.asarray(Image.open(run / "validation" / "samples-4.png"))
    assert (event.height, event.width) == sheet.shape[:2]


def test_the_recipe_is_there(run):
    (first, second) = sorted((run / "logs" / "latentdiff").glob("*/hparams.yml"))
    assert "conditioning.type: unconditional" in first.read_text() and "max_train_steps: 4" in second.read_text()


def test_a_tracker_that_fails_is_given_up(tmp_path, monkeypatch):
    def full(self, values, step=None, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(TensorBoardTracker, "log", full)
    data, vae = toy.write(tmp_path / "images"), toy.write_vae(tmp_path / "vae")
    with pytest.warns(LatentDiffWarning, match=r"tensorboard failed \(.*No space left.*\); the run goes on") as caught:
        output = toy.train("unconditional", data, vae, tmp_path / "out", logging_steps=1)
    assert sum("tensorboard failed" in str(warning.message) for warning in caught) == 1
    assert len((output / "log.jsonl").read_text().splitlines()) == 4 and (output / "pipeline").is_dir()


def test_a_tracker_that_cannot_start_is_given_up(tmp_path):
    data, vae = toy.write(tmp_path / "images"), toy.write_vae(tmp_path / "vae")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").write_text("a file")
    with pytest.warns(LatentDiffWarning, match=r"tensorboard failed \(.*\); the run goes on"):
        output = toy.train("unconditional", data, vae, tmp_path / "out")
    assert (output / "pipeline").is_dir()


def test_without_trackers_no_picture_is_opened(tmp_path):
    (tmp_path / "samples-1.png").write_bytes(b"of a full disk")
    trackers.track_pictures(Accelerator(), tmp_path.glob("*-1.png"), 1)


def test_none_is_none_and_auto_is_what_is_installed(tmp_path, monkeypatch):
    def options(name):
        return trackers.tracker_options(name, str(tmp_path / "out"))

    assert options("none") == {} and options("auto")["log_with"] == "tensorboard"
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    with pytest.warns(LatentDiffWarning, match="tensorboard is not installed, so the run has log.jsonl alone"):
        assert options("auto") == {}
    with pytest.raises(ConfigError, match="report_to is 'tensorboard', whose package is not installed; install it, or"):
        options("tensorboard")
    with pytest.raises(ConfigError, match="report_to is 'tensorbord'; did you mean 'tensorboard'"):
        options("tensorbord")
