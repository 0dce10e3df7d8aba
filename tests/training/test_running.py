"""A run of days: it is asked for checkpoints, its time is up, and the best of what it found stays."""

import json
import os
import signal

import pytest
import tiny_run
import torch
from test_survival import fail_at, names, stop_at
from tiny_run import BASE, Denoise, assert_same_run, items, log, run

from latentdiff import ConfigError
from latentdiff.cli.main import main
from latentdiff.config import load_recipe
from latentdiff.errors import TimeLimitReached
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.session import open_session
from latentdiff.training.recipes import Recipe

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"), dropout=0.1)


def test_sigusr1_saves_and_the_run_goes_on(whole, tmp_path):
    before = signal.getsignal(signal.SIGUSR1)
    run(tmp_path, stop_at(5, signal.SIGUSR1), dropout=0.1, **{"checkpoint.total_limit": 9})
    assert names(tmp_path) == sorted([*names(whole), "checkpoint-6"])
    assert_same_run(whole, tmp_path)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_sigusr1_before_the_first_step_harms_nothing(tmp_path):
    """While images are encoded there is no state to save, and the signal would end the process."""
    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(tmp_path)})
    with open_session(recipe) as session:
        os.kill(os.getpid(), signal.SIGUSR1)
        train(Denoise(), items(), recipe, session)
    assert "net.safetensors" in names(tmp_path)


def test_a_run_whose_time_is_up_goes_on_bit_for_bit(whole, tmp_path):
    """Each part has time for one step; the same command starts the run, goes on with it, and ends."""
    options = {"dropout": 0.1, "resume_from_checkpoint": "auto", "max_hours": 1e-9}
    for step in range(1, 10):
        with pytest.raises(
            TimeLimitReached, match=f"max_hours 1e-09 are over after step {step}; go on from checkpoint-{step} by"
        ) as stop:
            run(tmp_path, **options)
        assert stop.value.exit_code == 75 and "net.safetensors" not in names(tmp_path)
    run(tmp_path, **options)  # its last step needs no more time than another
    assert_same_run(whole, tmp_path, ["checkpoint-10"])
    again = (tmp_path / "net.safetensors").read_bytes()
    run(tmp_path, **options)  # there is nothing left to do
    assert (tmp_path / "net.safetensors").read_bytes() == again


def test_auto_starts_anew_where_there_is_no_checkpoint_yet(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fail_at(2, KeyboardInterrupt), dropout=0.1, resume_from_checkpoint="auto")
    run(tmp_path, dropout=0.1, resume_from_checkpoint="auto")
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize(("hours", "fits"), [(0, False), (-1, False), ("1e-3", True), (None, True)])
def test_hours(hours, fits):
    values = {**BASE, "output_dir": "none", "max_hours": hours}
    if fits:
        assert load_recipe(Recipe, None, values).max_hours == (None if hours is None else float(hours))
        return
    with pytest.raises(ConfigError, match=rf"max_hours is {hours}; it must be above 0, or null"):
        load_recipe(Recipe, None, values)


class Curve(Denoise):
    """A task whose held-out loss is given, step by step."""

    losses = (9.0, 5.0, 7.0, 5.0, 3.0, 8.0, 4.0, 9.0, 9.0, 6.0)

    def validate(self, folder, step):
        return {"loss": self.losses[step - 1]}


def watched(output, **options):
    values = {**BASE, "validation.steps": 1, "validation.data_dir": "unused", "checkpoint.total_limit": 1}
    recipe = load_recipe(Recipe, None, {**values, "output_dir": str(output), **options})
    with open_session(recipe) as session:
        return train(Curve(dropout=0.1), items(), recipe, session)


def test_the_best_checkpoints_stay_beside_the_newest(tmp_path):
    """Of equal ones the earlier is the better; the same when the run goes on after its sixth step."""
    options = {"checkpoint.keep_best": 3, "checkpoint.steps": 3}
    watched(tmp_path / "whole", **options)
    kept = [checkpoint.step_of(path) for path in checkpoint.existing(tmp_path / "whole")]
    assert kept == [2, 5, 7, 10]
    assert all(checkpoint.damage(path) is None for path in checkpoint.existing(tmp_path / "whole"))
    watched(tmp_path / "parts", **options, max_train_steps=6)
    assert [checkpoint.step_of(path) for path in checkpoint.existing(tmp_path / "parts")] == [2, 4, 5, 6]
    watched(tmp_path / "parts", **options, resume_from_checkpoint="latest")
    assert [checkpoint.step_of(path) for path in checkpoint.existing(tmp_path / "parts")] == kept
    assert json.loads((tmp_path / "parts" / "checkpoint-10" / "state.json").read_text())["best"]["kept"] == {
        "5": 3.0,
        "7": 4.0,
        "2": 5.0,
    }


def test_what_is_not_measured_can_keep_no_checkpoints():
    values = {**BASE, "output_dir": "none", "checkpoint.keep_best": 2}
    for more in ({}, {"validation.steps": 5}):
        with pytest.raises(
            ConfigError, match=r"checkpoint\.keep_best is 2, but nothing is measured to choose by; give"
        ):
            load_recipe(Recipe, None, {**values, **more})
    load_recipe(Recipe, None, {**values, "validation.steps": 5, "validation.data_dir": "held-out"})


def test_weights_are_looked_at_where_a_schedule_free_optimiser_uses_them(tmp_path):
    """And training goes on as if nobody had looked."""
    pytest.importorskip("schedulefree")
    options = {"optimizer.name": "schedulefree:AdamWScheduleFree", "ema.decay": 0}
    seen = {}

    class Seen(Curve):
        def validate(self, folder, step):
            seen[step] = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
            return {}

    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(tmp_path / "seen"), **options, "validation.steps": 2})
    with open_session(recipe) as session:
        train(Seen(), items(), recipe, session)
    run(tmp_path / "unseen", **options)
    first, second = tiny_run.weights(tmp_path / "seen"), tiny_run.weights(tmp_path / "unseen")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(first[name], seen[10][name]) for name in first)
    assert log(tmp_path / "seen") == log(tmp_path / "unseen")


def test_the_command_ends_with_75_when_its_time_is_up(tmp_path, capsys, monkeypatch):
    from latentdiff.cli.commands import train as commands

    def late(recipe):
        raise TimeLimitReached("max_hours 1 are over after step 7; go on from checkpoint-7")

    monkeypatch.setattr(commands.TrainingStage, "trainer", lambda stage: late)
    flags = ["--output_dir", str(tmp_path / "run"), "--data.train_data_dir", str(tmp_path), "--max_hours", "1"]
    assert main(["train", "first-stage", *flags]) == 75
    assert capsys.readouterr().err == "latentdiff: max_hours 1 are over after step 7; go on from checkpoint-7\n"
