"""Several processes, and processes that are killed: the same run in the end."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
import toy
from PIL import Image
from processes import Runs
from tiny_run import assert_same_run, log, weights

from latentdiff import DiffusionPipeline
from latentdiff.training.engine import checkpoint

pytestmark = pytest.mark.thorough

KILLS = 200


@pytest.fixture(scope="module")
def runs():
    found = Runs()
    yield found
    found.close()


def test_two_processes_have_the_losses_of_one(runs, tmp_path):
    """Losses of some 1 are sums of some 100 terms in another order; ten steps of AdamW amplify that little."""
    assert runs(tmp_path / "one", train_batch_size=8, **{"checkpoint.steps": 3})[0] == [0]
    assert runs(tmp_path / "two", 2, **{"checkpoint.steps": 3})[0] == [0, 0]
    for one, two in zip(log(tmp_path / "one"), log(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"resume_from_checkpoint": "latest", "max_train_steps": 9}])
def test_all_processes_of_a_run_that_may_not_begin_say_so(runs, tmp_path, options):
    assert runs(tmp_path / "run", 2)[0] == [0, 0]
    assert runs(tmp_path / "run", 2, **options)[0] == [1, 1]
    for rank in range(2):
        last = (tmp_path / f"run.{rank}.err").read_text().splitlines()[-1]
        assert "has made 10 steps already" in last if options else "holds an earlier run" in last
    assert runs(tmp_path / "run", 2, resume_from_checkpoint="latest", max_train_steps=12)[0] == [0, 0]


@pytest.fixture(params=tiny_run.SHARDS)
def shards(request):
    if request.param.startswith("ZeRO"):
        pytest.importorskip("deepspeed")
    return request.param


@pytest.mark.slow
def test_a_sharded_model_is_saved_whole_and_goes_on_as_one_that_is_not(runs, tmp_path, shards):
    """Its steps are those of plain processes but for rounding; its checkpoints and weights are plain tensors."""
    assert runs(tmp_path / "plain", 2)[0] == [0, 0]
    assert runs(tmp_path / "sharded", 2, shards=shards)[0] == [0, 0]
    assert runs(tmp_path / "again", 2, shards=shards, **{"checkpoint.steps": 1, "checkpoint.total_limit": 9})[0] == [
        0,
        0,
    ]
    shutil.copytree(tmp_path / "again" / "checkpoint-5", tmp_path / "resumed" / "checkpoint-5")
    shutil.copy(tmp_path / "again" / "log.jsonl", tmp_path / "resumed")
    assert runs(tmp_path / "resumed", 2, shards=shards, resume_from_checkpoint="latest")[0] == [0, 0]
    assert_same_run(tmp_path / "sharded", tmp_path / "resumed", ["checkpoint-8"])
    for one, two in zip(log(tmp_path / "plain"), log(tmp_path / "sharded"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    for start, name, options in (("sharded", "alone", {}), ("plain", "sharded later", {"shards": shards})):
        shutil.copytree(tmp_path / start / "checkpoint-8", tmp_path / name / "checkpoint-8")
        shutil.copy(tmp_path / start / "log.jsonl", tmp_path / name)
        processes = 2 if options else 1
        sizes = {"train_batch_size": 8 // processes}
        codes, _ = runs(tmp_path / name, processes, resume_from_checkpoint="latest", **sizes, **options)
        assert codes == [0] * processes
        assert log(tmp_path / name)[-1] == pytest.approx(log(tmp_path / "plain")[-1], rel=1e-5)
        for key, value in weights(tmp_path / "plain").items():
            assert torch.allclose(weights(tmp_path / name)[key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"spoilt": [4, 7]}, 1e-5),
        ({"train_batch_size": 2, "gradient_accumulation_steps": 2}, 1e-5),
        ({"mixed_precision": "bf16"}, 4e-3),  # DeepSpeed adds up gradients in bf16 then, whose numbers are 2^-8 apart
    ],
)
def test_shards_skip_accumulate_and_mix_precision_as_plain_processes_do(runs, tmp_path, shards, options, tolerance):
    for name, kind in (("plain", None), ("sharded", shards)):
        assert runs(tmp_path / name, 2, shards=kind, logging_steps=1, **options)[0] == [0, 0]
    plain, sharded = log(tmp_path / "plain"), log(tmp_path / "sharded")
    assert sum(line["skipped"] for line in plain) == len(options.get("spoilt", []))
    for one, two in zip(plain, sharded, strict=True):
        assert two == pytest.approx(one, rel=tolerance)


@pytest.mark.slow
def test_a_first_stage_with_a_discriminator_is_trained_and_looked_at_by_zero(runs, tmp_path):
    pytest.importorskip("deepspeed")
    options = {"call": "first_stage", "data": str(toy.write(tmp_path / "data"))}
    for name, kind in (("plain", None), ("sharded", "ZeRO 2")):
        assert runs(tmp_path / name, 2, shards=kind, **options)[0] == [0, 0]
    plain, sharded = log(tmp_path / "plain"), log(tmp_path / "sharded")
    assert plain[-1]["validation/psnr"] and plain[-2]["adversarial_weight"]
    for one, two in zip(plain, sharded, strict=True):
        assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.slow
def test_a_pipeline_that_was_trained_in_shards_loads(runs, tmp_path, shards):
    data, vae = toy.write(tmp_path / "data"), toy.write_vae(tmp_path / "vae")
    folders = {"data": str(data), "vae": str(vae)}
    for name, kind in (("plain", None), ("sharded", shards)):
        job = {"call": "pipeline", "task": "class-to-image", "shards": kind, "validation.steps": 0, "report_to": "none"}
        assert runs(tmp_path / name, 2, **folders, **job, **{"checkpoint.export_steps": [2]})[0] == [0, 0]
    sharded = None
    for place in ("steps/2/pipeline", "pipeline"):
        plain, before = DiffusionPipeline.from_pretrained(tmp_path / "plain" / place), sharded
        sharded = DiffusionPipeline.from_pretrained(tmp_path / "sharded" / place)
        for part in ("unet", "class_embedder"):
            theirs = getattr(plain, part).state_dict()
            for name, value in getattr(sharded, part).state_dict().items():  # steps of AdamW on sums in another order
                assert torch.allclose(value, theirs[name], rtol=1e-3, atol=1e-5), name
    assert not torch.equal(before.unet.conv_out.weight, sharded.unet.conv_out.weight)
    assert sharded("red", num_inference_steps=1, seed=0).images[0].size == (toy.SIDE, toy.SIDE)


@pytest.mark.slow
def test_a_sharded_pipeline_is_looked_at_and_trained_on_as_if_nobody_had(runs, tmp_path):
    """Held-out loss, samples and the best weights are those of plain processes."""
    data, vae = toy.write(tmp_path / "data"), toy.write_vae(tmp_path / "vae")
    held_out = toy.write(tmp_path / "held-out", range(1))
    folders = {"data": str(data), "vae": str(vae), "call": "pipeline", "task": "class-to-image", "report_to": "none"}
    looks = {"validation.steps": 2, "validation.data_dir": str(held_out), "validation.inference_steps": 2}
    for name, kind, options in (("plain", None, looks), ("sharded", "FSDP", looks), ("unseen", "FSDP", {})):
        assert runs(tmp_path / name, 2, shards=kind, **folders, **options)[0] == [0, 0]
    plain, sharded, unseen = (tmp_path / name for name in ("plain", "sharded", "unseen"))
    for one, two in zip(log(plain), log(sharded), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    seen = [line for line in log(sharded) if "validation/loss" not in line]
    assert seen == log(unseen) and len(log(sharded)) > len(seen)
    first, second = (
        DiffusionPipeline.from_pretrained(path / "best" / "pipeline").unet.state_dict() for path in (plain, sharded)
    )
    assert all(torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-5) for name in first)
    sheets = [np.asarray(Image.open(path / "validation" / "samples-4.png"), np.int16) for path in (plain, sharded)]
    assert np.abs(sheets[0] - sheets[1]).max() <= 2


LAUNCH = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_launcher_ends_all_processes_after_the_same_step(tmp_path, number):
    """A terminal sends Ctrl-C to all processes of the group, and the launcher passes on what it is sent."""
    launch = [sys.executable, "-m", *LAUNCH, "--mixed_precision", "no", str(Path(tiny_run.__file__))]

    def start(output, **options):
        options = {"max_train_steps": 300, "checkpoint.steps": 50, "dropout": 0.1, **options}
        argv = [*launch, str(output), json.dumps(options)]
        return subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True)

    assert start(tmp_path / "whole").wait() == 0
    stopped = start(tmp_path / "parts")
    while not checkpoint.existing(tmp_path / "parts"):
        time.sleep(0.01)
    time.sleep(0.2)
    if number == signal.SIGINT:
        os.killpg(stopped.pid, number)
    else:
        stopped.send_signal(number)
    errors = stopped.communicate()[1]
    assert stopped.returncode != 0
    step = checkpoint.step_of(checkpoint.latest(tmp_path / "parts"))
    assert step % 50 and step < 300
    assert errors.count(f"TrainingInterrupted: {number.name} after step {step}; go on from checkpoint-{step}") == 2
    assert start(tmp_path / "parts", resume_from_checkpoint="latest").wait() == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts", ["checkpoint-250", "checkpoint-300"])


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_kills_at_random_instants_change_nothing(runs, tmp_path, world_size):
    """Every step is saved, and half of the kills wait for a save to begin: those inside one leave an aside folder."""
    rng = random.Random(world_size)
    options = {"dropout": 0.1, "checkpoint.steps": 1, "max_train_steps": 12}
    runs(tmp_path / "whole", world_size, **options)
    codes, seconds = runs(tmp_path / "again", world_size, **options)
    assert codes == [0] * world_size
    last = [path.name for path in checkpoint.existing(tmp_path / "whole")]
    assert_same_run(tmp_path / "whole", tmp_path / "again", last)
    kills = inside = finished = 0
    while kills < KILLS or not finished:
        output = tmp_path / f"run-{finished}"
        after = rng.uniform(0, 1.05 * seconds) if kills < KILLS else None
        saving = rng.random() < 0.5
        resume = {"resume_from_checkpoint": "latest"} if checkpoint.existing(output) else {}
        codes, took = runs(output, world_size, after, saving, **resume, **options)
        assert all(code in (0, -9, 1) for code in codes)
        kills += -9 in codes
        inside += any(output.glob(".checkpoint-*"))
        assert {checkpoint.damage(path) for path in checkpoint.existing(output)} <= {None}
        if codes == [0] * world_size:
            assert_same_run(tmp_path / "whole", output, last)
            finished += 1
            seconds = seconds if resume else took  # the machine may have come to be busier, or less so
    print(f"{world_size} processes: {kills} kills, {inside} inside a save, {finished} runs finished")
    assert inside > KILLS / 20 and finished > KILLS / 20
