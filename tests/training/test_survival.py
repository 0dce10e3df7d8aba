"""What may happen to a run, and that nothing is lost by it."""

import errno
import inspect
import json
import os
import resource
import shutil
import signal
import threading
import time
import warnings
from contextlib import contextmanager

import pytest
import torch
import toy
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from forked import Forked, wait_for
from leftovers import leave_behind
from PIL import Image
from tiny_run import BASE, Denoise, assert_same_run, items, log, run, weights, zero

from latentdiff import CheckpointError, ConfigError, InputError, LatentDiffError
from latentdiff.cli.main import main
from latentdiff.config import load_recipe
from latentdiff.errors import LatentDiffWarning, TrainingInterrupted
from latentdiff.io.staging import ASIDE, OLD
from latentdiff.training.diffusion.task import DiffusionTask
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine import log as log_module
from latentdiff.training.engine.failures import Interrupts
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.packaged import UNFIT
from latentdiff.training.engine.session import open_session
from latentdiff.training.engine.validation import Validation
from latentdiff.training.recipes import Recipe

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    return run(tmp_path_factory.mktemp("whole"), dropout=0.1)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def stop_at(step, number):
    """A hook that sends this process a signal."""

    def hook(at, loss):
        if at == step:
            os.kill(os.getpid(), number)
        return loss

    return hook


@pytest.mark.parametrize(("step", "number"), [(0, signal.SIGTERM), (3, signal.SIGINT), (6, signal.SIGTERM)])
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(whole, tmp_path, step, number):
    """Stops lie within an epoch and within a line of the log."""
    before = signal.getsignal(number)
    with pytest.raises(
        TrainingInterrupted, match=f"{number.name} after step {step + 1}; go on from checkpoint-"
    ) as stop:
        run(tmp_path, stop_at(step, number), dropout=0.1)
    assert stop.value.number == number and signal.getsignal(number) == before
    assert f"checkpoint-{step + 1}" in names(tmp_path) and "net.safetensors" not in names(tmp_path)
    run(tmp_path, dropout=0.1, resume_from_checkpoint="latest")
    assert_same_run(whole, tmp_path, ["checkpoint-8", "checkpoint-10"])


def interrupted_twice():
    with Interrupts() as found:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        print(int(found.number))
        time.sleep(1.1)
        os.kill(os.getpid(), signal.SIGINT)
        print("alive")


def test_a_second_ctrl_c_kills_but_one_that_is_passed_on_does_not():
    done = Forked(interrupted_twice).ended()
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "2\n")


def test_a_signal_to_all_processes_leaves_the_workers_to_the_run(tmp_path):
    """As a scheduler ends a job."""
    options = {"max_train_steps": 10**6, "checkpoint.steps": 50, "data.num_workers": 1}
    stopped = Forked(lambda: run(tmp_path, **options))
    wait_for(lambda: checkpoint.existing(tmp_path), stopped)
    time.sleep(0.2)
    os.killpg(stopped.pid, signal.SIGTERM)
    errors = stopped.ended().stderr
    step = checkpoint.step_of(checkpoint.latest(tmp_path))
    assert f"TrainingInterrupted: SIGTERM after step {step}; go on from checkpoint-{step}" in errors


def test_a_checkpoint_goes_by_its_name_and_may_be_older_than_an_option(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "checkpoint-8"
    state, manifest = (json.loads((folder / name).read_text()) for name in ("state.json", "manifest.json"))
    del state["recipe"]["optimizer.scale_lr"]
    (folder / "state.json").write_text(json.dumps(state))
    manifest["files"]["state.json"] = checkpoint._fingerprint(folder / "state.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    run(tmp_path, dropout=0.1, resume_from_checkpoint="checkpoint-8")
    assert all(torch.equal(value, weights(tmp_path)[name]) for name, value in weights(whole).items())
    with pytest.raises(ConfigError, match=r"optimizer\.scale_lr is True, was False"):
        run(tmp_path, resume_from_checkpoint="checkpoint-8", **{"optimizer.scale_lr": True})


def test_a_lost_process_is_made_up_for(whole, tmp_path):
    """After a kill: lines of steps that are not in a checkpoint, half a line, and what was being written."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fail_at(6, KeyboardInterrupt), dropout=0.1)
    assert log(tmp_path)[-1]["step"] == 6
    with open(tmp_path / "log.jsonl", "a") as file:
        file.write('{"step": 9, "lo')
    shutil.copytree(tmp_path / "checkpoint-4", leave_behind(tmp_path / "checkpoint-8", ASIDE), dirs_exist_ok=True)
    (leave_behind(tmp_path / "log.jsonl", ASIDE) / "log.jsonl").write_text("")
    (tmp_path / "checkpoint-4").rename(leave_behind(tmp_path / "checkpoint-4", OLD) / "checkpoint-4")
    run(tmp_path, dropout=0.1, resume_from_checkpoint="latest")
    assert names(tmp_path) == names(whole)
    assert_same_run(whole, tmp_path)


def fail_at(step, error):
    def hook(at, loss):
        if at == step:
            raise error
        return loss

    return hook


def test_a_start_anew_does_not_mix_with_another_run(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fail_at(3, KeyboardInterrupt), seed=1, dropout=0.1)
    earlier = (tmp_path / "log.jsonl").read_bytes()
    with pytest.warns(LatentDiffWarning, match=r"has lines of an earlier run; they are kept in log\.jsonl\.1"):
        run(tmp_path, dropout=0.1)  # there was no checkpoint yet
    assert_same_run(whole, tmp_path)
    assert (tmp_path / "log.jsonl.1").read_bytes() == earlier and len(earlier.splitlines()) == 1


@pytest.mark.parametrize(("size", "micro_steps"), [(4, 2), (1, 8)])
def test_a_batch_may_be_split(tmp_path, size, micro_steps):
    """Losses of some 1 are sums of some 100 terms in another order; ten steps of AdamW amplify that little."""
    run(tmp_path / "one", train_batch_size=8)
    split = {"train_batch_size": size, "gradient_accumulation_steps": micro_steps}
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "split", stop_at(3, signal.SIGTERM), **split)
    run(tmp_path / "split", train_batch_size=8, resume_from_checkpoint="latest")
    for one, other in zip(log(tmp_path / "one"), log(tmp_path / "split"), strict=True):
        assert other == pytest.approx(one, rel=1e-5)


DAMAGE = {
    "model.safetensors is not": lambda folder: flip(folder / "model.safetensors"),
    "optimizer.pt is not": lambda folder: os.truncate(folder / "optimizer.pt", 100),
    "ema.safetensors is missing": lambda folder: (folder / "ema.safetensors").unlink(),
    "manifest.json is missing": lambda folder: (folder / "manifest.json").unlink(),
    "manifest.json is not": lambda folder: (folder / "manifest.json").write_text("[]"),
}


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("reason", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(whole, tmp_path, reason):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoint-10")
    DAMAGE[reason](tmp_path / "checkpoint-8")
    with pytest.raises(CheckpointError, match=f"checkpoint-8 is damaged .{reason}"):
        run(tmp_path, dropout=0.1, resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    with pytest.warns(LatentDiffWarning, match=rf"checkpoint-8 is damaged \({reason}.*\): going on from checkpoint-4"):
        run(tmp_path, dropout=0.1, resume_from_checkpoint="latest")
    assert_same_run(whole, tmp_path)
    for path in checkpoint.existing(tmp_path):
        DAMAGE[reason](path)
    with pytest.raises(CheckpointError, match=r"no checkpoint .* is whole: .*checkpoint-4 is damaged"):
        run(tmp_path, dropout=0.1, resume_from_checkpoint="latest")


def test_going_on_from_an_earlier_checkpoint_prunes_no_new_one(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    options = {"resume_from_checkpoint": str(tmp_path / "checkpoint-4"), "checkpoint.total_limit": 1}
    run(tmp_path, dropout=0.1, max_train_steps=6, **{"checkpoint.steps": 1}, **options)
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["checkpoint-6", "checkpoint-8", "checkpoint-10"]


def not_finite(steps, value=float("nan")):
    return lambda at, loss: loss * value if at in steps else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_is_skipped(tmp_path, value):
    hook = not_finite([2, 3, 5], value)
    with pytest.warns(LatentDiffWarning, match="the last 2 steps were skipped"):
        run(tmp_path, hook, max_train_steps=4, **{"checkpoint.steps": 1})
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["checkpoint-1", "checkpoint-2"]
    before = weights(tmp_path)
    run(tmp_path, hook, max_train_steps=2, resume_from_checkpoint="latest")
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path).items())
    run(tmp_path, hook, resume_from_checkpoint="latest")
    assert [line["skipped"] for line in log(tmp_path)] == [1, 2, 0]
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in log(tmp_path))


def test_the_scale_of_fp16_falls_with_skipped_steps_and_is_kept(tmp_path):
    """A scale by which gradients overflow is halved until they don't, and doubled after some steps that went well."""

    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0**22, growth_interval=2)

    run(tmp_path / "whole", scaler=scaler())
    skipped = [line["skipped"] for line in log(tmp_path / "whole")]
    assert skipped[0] == 3 and sum(skipped) < 8
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "parts", stop_at(7, signal.SIGTERM), scaler=scaler())
    assert json.loads((tmp_path / "parts" / "checkpoint-8" / "state.json").read_text())["scaler"]["scale"] < 2.0**22
    run(tmp_path / "parts", scaler=scaler(), resume_from_checkpoint="latest")
    assert_same_run(tmp_path / "whole", tmp_path / "parts", ["checkpoint-8", "checkpoint-10"])


def test_a_run_that_stays_not_finite_ends_with_its_last_good_checkpoint(tmp_path):
    with pytest.raises(LatentDiffError, match=r"in 3 steps in a row, up to step 8; go on from checkpoint-4 by"):
        run(
            tmp_path, not_finite(range(5, 99)), max_skipped_steps=3, max_train_steps=20, **{"checkpoint.total_limit": 1}
        )
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["checkpoint-4"]
    with pytest.warns(LatentDiffWarning, match="but optimizer.learning_rate is 0.01, was 0.05"):
        run(tmp_path, **{"optimizer.learning_rate": 0.01}, resume_from_checkpoint="latest")


def test_a_run_without_one_step_ends_in_an_error(tmp_path):
    with pytest.raises(LatentDiffError, match="no step had a finite loss and gradient, so nothing was learned"):
        run(tmp_path, lambda at, loss: loss * float("nan"))
    assert not (tmp_path / "net.safetensors").exists()


def test_weights_that_are_not_finite_are_kept_nowhere(tmp_path):
    options = {
        "optimizer.learning_rate": 1e38,
        "optimizer.lr_scheduler": "constant",
        "optimizer.name": "SGD",
        "optimizer.max_grad_norm": 1e38,
    }
    with pytest.raises(LatentDiffError, match="not finite; there is no checkpoint yet"):
        run(tmp_path, lambda at, loss: loss * 1e3, **{"checkpoint.steps": 1}, max_train_steps=1, **options)
    assert names(tmp_path) in ([], ["log.jsonl"])


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), None]
)
def test_too_little_memory_names_the_levers(tmp_path, error):
    hook = fail_at(5, error) if error else lambda at, loss: torch.empty(2**50)
    with pytest.raises(LatentDiffError) as caught:
        run(tmp_path, hook)
    for lever in (
        "train_batch_size (it is 4)",
        "gradient_accumulation_steps",
        "mixed_precision",
        "resolution (it is 256)",
    ):
        assert lever in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [NotImplementedError("no such kernel"), torch.linalg.LinAlgError("singular")])
def test_other_errors_are_not_called_want_of_memory(tmp_path, error):
    with pytest.raises(type(error), match=str(error)):
        run(tmp_path, fail_at(5, error))


class Faults:
    """Errors of the system at the n-th call of functions that write, from a save on."""

    def __init__(self, monkeypatch, number):
        self.left, self.met = None, False
        for name in ("fsync", "replace", "mkdir", "chmod"):
            monkeypatch.setattr(os, name, self.failing(getattr(os, name), number))

    def failing(self, function, number):
        def call(*args, **kwargs):
            if self.left is not None:
                self.left -= 1
                if self.left == 0:
                    self.met = True
                    raise OSError(number, os.strerror(number))
            return function(*args, **kwargs)

        return call


def test_a_disk_that_fails_at_any_call_of_a_save_costs_no_good_checkpoint(whole, tmp_path, monkeypatch):
    """One call after the other, until a save and the removal of the last checkpoint need no more of them."""
    total = 0
    for call in range(1, 100):
        output, number = tmp_path / str(call), (errno.ENOSPC, errno.EIO)[call % 2]
        shutil.copytree(whole / "checkpoint-4", output / "checkpoint-4")
        shutil.copy(whole / "log.jsonl", output)
        found_at_8 = {}
        with monkeypatch.context() as patch:
            faults = Faults(patch, number)

            def hook(at, loss, faults=faults, call=call, output=output, found=found_at_8):
                faults.left = {7: call, 8: None}.get(at, faults.left)
                if at == 8:
                    found.update((path.name, checkpoint.damage(path)) for path in checkpoint.existing(output))
                return loss

            with optional_warnings() as found:
                run(output, hook, dropout=0.1, resume_from_checkpoint="latest", **{"checkpoint.total_limit": 1})
        assert {*found_at_8.values()} == {None} and len(found_at_8) in (1, 2)
        assert log(output) == log(whole)
        assert all(torch.equal(value, weights(output)[name]) for name, value in weights(whole).items())
        if not faults.met:
            print(f"a full or failing disk at each of the {call - 1} calls of a save: no good checkpoint lost")
            assert total >= 10 and [*found_at_8] == ["checkpoint-8"]
            return
        warned = [line for line in found if os.strerror(number) in line]
        assert warned or "checkpoint-8" in found_at_8  # the error that a folder is there is none
        total += len(warned)


@contextmanager
def optional_warnings():
    lines = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: lines.append(str(message))
        yield lines


@pytest.mark.parametrize("limit", [0, 500, 2000, 5000])
def test_a_full_disk_costs_nothing(whole, tmp_path, limit):
    """The limit of a file's size stands for the disk: any file of a checkpoint, or the log, meets it in its midst."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def hook(at, loss):
        if at in (3, 5):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit if at == 3 else soft, hard))
        return loss

    try:
        with pytest.warns(LatentDiffWarning, match=r"saving checkpoint-4 failed \(File too large\); there is no"):
            run(tmp_path, hook, dropout=0.1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-8", "log.jsonl", "net.safetensors"]
    assert log(tmp_path) == log(whole)
    assert all(torch.equal(value, weights(tmp_path)[name]) for name, value in weights(whole).items())


OPTIMIZERS = [
    *(
        name
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and name not in {*UNFIT, "Adam", "Optimizer"}
    ),
    "adamw_fused",
]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_with_any_optimiser(tmp_path, name):
    """Each keeps other things, some of them others for weights than for biases."""
    options = {"optimizer.name": name, "optimizer.learning_rate": 1e-3}
    if name == "SGD":
        options["optimizer.options"] = {"momentum": 0.9}
    elif name == "AdamW":
        options["optimizer.options"] = {"amsgrad": True}
    run(tmp_path / "whole", **options)
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", tmp_path / "parts" / "checkpoint-4")
    shutil.copy(tmp_path / "whole" / "log.jsonl", tmp_path / "parts")
    run(tmp_path / "parts", resume_from_checkpoint="latest", **options)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_lines_that_wait_for_the_disk_are_in_the_checkpoint(whole, tmp_path, monkeypatch):
    synced = log_module.sync_open

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    def hook(at, loss):
        monkeypatch.setattr(log_module, "sync_open", full if at == 2 else synced)
        if at == 4:
            raise KeyboardInterrupt
        return loss

    with pytest.raises(KeyboardInterrupt), pytest.warns(LatentDiffWarning, match="its lines wait for the next one"):
        run(tmp_path, hook, dropout=0.1)
    (tmp_path / "log.jsonl").write_text("")  # what was written was never on the disk
    run(tmp_path, dropout=0.1, resume_from_checkpoint="latest")
    assert log(tmp_path) == log(whole)


@contextmanager
def disk_of(size):
    """A limit of a file's size, which stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_the_end_costs_the_result_alone(whole, tmp_path):
    """One line; when there is room again, the run goes on from its last checkpoint."""
    with disk_of(500) as fill:

        def hook(at, loss):
            if at == 8:
                fill()
            return loss

        with (
            pytest.warns(LatentDiffWarning, match=r"saving checkpoint-10 failed \(File too large\); go on from check"),
            pytest.raises(InputError, match=r"cannot write .*net\.safetensors: File too large; free some space"),
        ):
            run(tmp_path, hook, dropout=0.1)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-8", "log.jsonl"]
    run(tmp_path, dropout=0.1, resume_from_checkpoint="latest")
    assert names(tmp_path) == names(whole)
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize("size", [0, 600, 3000])
def test_a_disk_that_is_full_at_validation_and_trackers_ends_no_run(data, vae, tmp_path, size, monkeypatch, capfd):
    """Pictures, best weights and TensorBoard's file meet the limit; what is lost of them is said."""
    options = {
        "validation.steps": 1,
        "validation.inference_steps": 1,
        "validation.samples": 4,
    }
    looked = Validation._look

    with disk_of(size) as fill:

        def look(self, step, measured):
            fill()
            return looked(self, step, measured)

        monkeypatch.setattr(Validation, "_look", look)
        monkeypatch.setattr(DiffusionTask, "export", lambda self, folder: None)  # that is the test above
        with optional_warnings() as found:
            toy.train("unconditional", data, vae, tmp_path / "out", **options, report_to="tensorboard", logging_steps=1)
    assert any("writing what validation found at step 1 failed" in line for line in found) == (size < 3000)
    assert any("tensorboard failed" in line for line in found)
    assert all("\n" not in line for line in found) and "Traceback" not in capfd.readouterr().err


def test_another_recipe_is_refused_field_by_field(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    other = {"seed": 1, "ema.decay": 0.5, "optimizer.options": {"eps": 1e-6}, "train_batch_size": 2}
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, resume_from_checkpoint="latest", max_train_steps=12, **other)
    for text in ("ema.decay is 0.5, was 0.9", "seed is 1, was 0", "; optimizer.options.eps is 1e-06, was None"):
        assert text in str(caught.value)
    assert "processes) is 2, was 4" in str(caught.value) and "max_train_steps" not in str(caught.value)
    with pytest.warns(LatentDiffWarning, match=r"but optimizer.learning_rate is 0.01, was 0.05$"):
        run(tmp_path, resume_from_checkpoint="latest", max_train_steps=12, **{"optimizer.learning_rate": 0.01})


@pytest.mark.parametrize(
    ("options", "version", "line"),
    [
        ({}, 1, "FSDP version 1; set fsdp_version to 2"),
        ({"optimizer.name": "torch.optim:AdamW"}, 2, "'torch.optim:AdamW', of another package, whose state is not put"),
    ],
)
def test_what_fsdp_may_be_configured_for(tmp_path, options, version, line):
    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(tmp_path), **options})
    with open_session(recipe) as session, pytest.raises(ConfigError, match=line):
        session.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=version)
        session.accelerator.state.distributed_type = DistributedType.FSDP
        train(Denoise(), items(), recipe, session)


@pytest.mark.parametrize(
    ("options", "config", "line"),
    [
        ({}, {"zero_optimization": {"stage": 3}}, "ZeRO stage 3; give 1 or 2, or FSDP"),
        ({}, {"gradient_accumulation_steps": 2}, "with gradient_accumulation_steps 2, the recipe says 1; give auto"),
        ({}, {"gradient_clipping": 0.5}, "with gradient_clipping 0.5, the recipe says 1.0"),
        ({}, {"train_batch_size": 5}, "with train_batch_size 5, the recipe says 4"),
        ({}, {"optimizer": {"type": "Adam"}}, "with 'optimizer', which the recipe says"),
        ({}, {"scheduler": {"type": "WarmupLR"}}, "with 'scheduler', which the recipe says"),
        ({}, {"bf16": {"enabled": True}}, "configured for bf16, but mixed_precision is 'no'; leave bf16"),
        ({"optimizer.name": "Adafactor"}, {}, "Adafactor', which ZeRO can't cut up"),
    ],
)
def test_what_deepspeed_may_be_configured_for(tmp_path, options, config, line):
    """Said before DeepSpeed is asked for anything, so that it need not be there."""
    recipe = load_recipe(Recipe, None, {**BASE, "output_dir": str(tmp_path), **options})
    try:
        with open_session(recipe) as session, pytest.raises(ConfigError, match=line):
            zero(session.accelerator, 2, **config)
            train(Denoise(), items(), recipe, session)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_shards_that_accelerate_would_ignore_are_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setenv(f"ACCELERATE_USE_{kind}", "true")
    with pytest.raises(ConfigError, match=f"{kind}, which it does not do on CPUs"):
        run(tmp_path)


def test_another_number_of_micro_steps_than_the_launcher_has_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    with pytest.raises(ConfigError, match="gradient_accumulation_steps 2, the recipe says 1"):
        run(tmp_path)


def test_the_command_says_how_to_go_on(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "images" / "a.png")
    model = {"block_out_channels": [8], "norm_num_groups": 4}
    options = {
        "data.train_data_dir": tmp_path / "images",
        "output_dir": tmp_path / "run",
        "data.resolution": 16,
        "report_to": "none",
    }
    options |= {"model": json.dumps(model), "checkpoint.steps": 1, "train_batch_size": 1}
    argv = ["train", "first-stage", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]

    def stop():
        wait_for(lambda: checkpoint.existing(tmp_path / "run"))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert main(argv) == 143
    thread.join()
    error = capsys.readouterr().err
    assert error.startswith("latentdiff: SIGTERM after step ") and error.count("\n") == 1
    assert "by --resume_from_checkpoint latest" in error
    steps = checkpoint.step_of(checkpoint.latest(tmp_path / "run"))
    assert main([*argv, "--max_train_steps", str(steps), "--resume_from_checkpoint", "latest"]) == 0
