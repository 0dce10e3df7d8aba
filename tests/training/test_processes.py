"""Several processes, and processes that are killed: the same run in the end."""

import random
import shutil

import pytest
import torch
from processes import Runs
from tiny_run import assert_same_run, log, weights

from latentdiff.training import checkpoint

KILLS = 200


@pytest.fixture(scope="module")
def runs():
    found = Runs()
    yield found
    found.close()


def test_two_processes_have_the_losses_of_one(runs, tmp_path):
    """Losses of some 1 are sums of some 100 terms in another order; ten steps of AdamW amplify that little."""
    assert runs(tmp_path / "one", train_batch_size=8, checkpointing_steps=3)[0] == [0]
    assert runs(tmp_path / "two", 2, checkpointing_steps=3)[0] == [0, 0]
    for one, two in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)


def test_a_sharded_model_is_saved_whole_and_goes_on_as_one_that_is_not(runs, tmp_path):
    """FSDP's steps are those of plain processes but for rounding; its checkpoints and weights are plain tensors."""
    assert runs(tmp_path / "plain", 2)[0] == [0, 0]
    assert runs(tmp_path / "sharded", 2, fsdp=True)[0] == [0, 0]
    assert runs(tmp_path / "again", 2, fsdp=True, checkpointing_steps=1, checkpoints_total_limit=9)[0] == [0, 0]
    shutil.copytree(tmp_path / "again" / "checkpoint-5", tmp_path / "resumed" / "checkpoint-5")
    shutil.copy(tmp_path / "again" / "log.jsonl", tmp_path / "resumed")
    assert runs(tmp_path / "resumed", 2, fsdp=True, resume_from_checkpoint="latest")[0] == [0, 0]
    assert_same_run(tmp_path / "sharded", tmp_path / "resumed", ["checkpoint-8"])
    for one, two in zip(log(tmp_path / "plain"), log(tmp_path / "sharded"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    shutil.copytree(tmp_path / "sharded" / "checkpoint-8", tmp_path / "alone" / "checkpoint-8")
    shutil.copy(tmp_path / "sharded" / "log.jsonl", tmp_path / "alone")
    assert runs(tmp_path / "alone", train_batch_size=8, resume_from_checkpoint="latest")[0] == [0]
    assert log(tmp_path / "alone")[-1] == pytest.approx(log(tmp_path / "plain")[-1], rel=1e-5)
    for name, value in weights(tmp_path / "plain").items():
        assert torch.allclose(weights(tmp_path / "alone")[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_kills_at_random_instants_change_nothing(runs, tmp_path, world_size):
    """Every step is saved, so that many kills fall inside a save: they leave an aside folder."""
    rng = random.Random(world_size)
    options = {"dropout": 0.1, "checkpointing_steps": 1, "max_train_steps": 12}
    runs(tmp_path / "whole", world_size, **options)
    codes, seconds = runs(tmp_path / "again", world_size, **options)
    assert codes == [0] * world_size
    last = [path.name for path in checkpoint.existing(tmp_path / "whole")]
    assert_same_run(tmp_path / "whole", tmp_path / "again", last)
    kills = inside = finished = 0
    while kills < KILLS or not finished:
        output = tmp_path / f"run-{finished}"
        after = rng.uniform(0, 1.05 * seconds) if kills < KILLS else None
        codes, _ = runs(output, world_size, after, resume_from_checkpoint="latest", **options)
        assert all(code in (0, -9, 1) for code in codes)
        kills += -9 in codes
        inside += any(output.glob(".checkpoint-*"))
        assert {checkpoint.damage(path) for path in checkpoint.existing(output)} <= {None}
        if codes == [0] * world_size:
            assert_same_run(tmp_path / "whole", output, last)
            finished += 1
    print(f"{world_size} processes: {kills} kills, {inside} inside a save, {finished} runs finished")
    assert inside > KILLS / 20 and finished > KILLS / 20
