"""A run that is begun again, by mistake or on purpose, in a folder that holds one: nothing of the first is lost."""

import os
import shutil
import signal
import threading
import time

import pytest
import torch
import toy
import yaml
from diffusers import AutoencoderKL
from forked import PATIENCE, Forked, all_ended, wait_for
from leftovers import killed, leave_behind
from tiny_run import assert_same_run, log, run

from latentdiff import CheckpointError, ConfigError, DiffusionPipeline, InputError
from latentdiff.cli.main import main
from latentdiff.config import load_recipe
from latentdiff.errors import LatentDiffError, LatentDiffWarning, TrainingInterrupted
from latentdiff.io.lock import LOCK
from latentdiff.io.staging import ASIDE, OLD, recover_all
from latentdiff.training.classifier import train_classifier
from latentdiff.training.diffusion.task import train_diffusion
from latentdiff.training.engine import checkpoint
from latentdiff.training.engine.belongings import check_start, remove_belongings
from latentdiff.training.engine.dry_run import dry_run
from latentdiff.training.engine.export import export_folder
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import ClassifierRecipe, DiffusionRecipe, FirstStageRecipe

pytestmark = pytest.mark.thorough


def contents(folder):
    """All files below a folder, byte for byte, and where links lead to."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(folder)] = os.readlink(path)
        elif path.is_file():
            found[path.relative_to(folder)] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def finished(data, vae, tmp_path_factory):
    """A run of four steps that has ended, with validation and a tracker."""
    options = {"validation.steps": 2, "validation.inference_steps": 1, "validation.samples": 1}
    return toy.train("unconditional", data, vae, tmp_path_factory.mktemp("finished") / "out", **options)


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out", symlinks=True)


def by_python(recipe):
    values = {name: value if isinstance(value, (bool, int)) else str(value) for name, value in recipe.items()}
    train_diffusion(load_recipe(DiffusionRecipe, None, values))


def by_flags(recipe):
    flags = [word for name, value in recipe.items() for word in (f"--{name}", str(value))]
    assert main(["train", "diffusion", *[word for word in flags if word != "True"]]) == 0


def by_recipe(recipe):
    path = recipe["data.train_data_dir"] / "recipe.yaml"
    nested = {}
    for name, value in recipe.items():
        *parts, last = name.split(".")
        place = nested
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value if isinstance(value, (bool, int)) else str(value)
    path.write_text(yaml.safe_dump(nested))
    try:
        assert main(["train", "diffusion", str(path)]) == 0
    finally:
        path.unlink()


@pytest.fixture(params=[by_python, by_flags, by_recipe])
def again(request, data, finished, out, capsys):
    """Begin again in the folder of a finished run, in each way; gives the error's line, "" if there is none."""

    def begin(**options):
        pipeline = finished / "pipeline"
        base = {"data.train_data_dir": data, "data.resolution": toy.SIDE, "pretrained_model_name_or_path": pipeline}
        base |= {"output_dir": out, "train_batch_size": 4, "max_train_steps": 2, "report_to": "none"}
        try:
            request.param({**base, **options})
            return ""
        except LatentDiffError as error:
            return str(error)
        except AssertionError:
            (line,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
            return line

    return begin


def test_the_same_recipe_again_is_refused_in_one_line_that_names_the_ways_on(again, out):
    before = contents(out)
    line = again()
    assert f"{out} holds an earlier run (checkpoint-2, checkpoint-4, pipeline); go on by" in line
    for way in ("--resume_from_checkpoint latest", "--overwrite_output_dir", "another output_dir"):
        assert way in line
    assert contents(out) == before


def test_to_overwrite_removes_the_run_and_nothing_else(again, out):
    (out / "notes.txt").write_text("mine")
    (out / "pipeline" / "mine.txt").write_text("mine")
    (out / "pipeline" / "unet" / ".mine").write_text("mine")
    (out / "checkpoint-2" / "mine.txt").write_text("mine")
    (out / "validation" / "mine.png").write_text("mine")
    (out / "checkpoint-9").mkdir()
    (out / "checkpoint-9" / "mine.txt").write_text("mine")
    (out / "pipeline" / "README.md").write_text("mine")
    mine = {path: text for path, text in contents(out).items() if text == b"mine"}
    assert len(mine) == 7
    assert again(overwrite_output_dir=True) == ""
    after = contents(out)
    assert {path: text for path, text in after.items() if text == b"mine"} == mine
    assert [path.name for path in checkpoint.existing(out)] == ["checkpoint-2"]
    assert not list(out.glob("logs/**/events*")) and not list(out.glob("validation/samples*"))
    assert not (out / "log.jsonl").exists() and DiffusionPipeline.from_pretrained(out / "pipeline")


@pytest.mark.parametrize(
    "wrong",
    [
        {"data.train_data_dir": "nowhere"},
        {"optimizer.name": "nothing"},
        {"optimizer.lr_scheduler": "nothing"},
        {"pretrained_model_name_or_path": "/nowhere/pipeline"},
        {"data.resolution": 17},
    ],
)
def test_a_run_that_would_overwrite_but_cannot_begin_removes_nothing(finished, data, out, wrong):
    before = contents(out)
    base = {"data.train_data_dir": str(data), "data.resolution": toy.SIDE, "output_dir": str(out)}
    base |= {"pretrained_model_name_or_path": str(finished / "pipeline"), "overwrite_output_dir": True}
    with pytest.raises(LatentDiffError):
        train_diffusion(load_recipe(DiffusionRecipe, None, {**base, **wrong}))
    assert contents(out) == before


@pytest.mark.parametrize("name", ["checkpoint-4", "pipeline", "log.jsonl", "validation", "logs"])
def test_links_are_not_removed(finished, data, vae, out, tmp_path, name):
    (out / name).rename(tmp_path / "elsewhere")
    (out / name).symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=rf"{name} is a link, which overwrite_output_dir does not remove"):
        toy.train("unconditional", data, vae, out, overwrite_output_dir=True)
    assert contents(tmp_path) == before


def test_a_run_does_not_remove_what_it_begins_with(data, out):
    """Nor would a resume find it."""
    options = {"pretrained_model_name_or_path": str(out / "pipeline"), "overwrite_output_dir": True}
    before = contents(out)
    with pytest.raises(ConfigError, match=r"name_or_path is .*, which overwrite_output_dir would remove"):
        toy.train("unconditional", data, None, out, unet={}, noise_schedule={}, **options)
    assert contents(out) == before


def test_latest_is_an_error_where_there_is_none(again, out):
    for path in checkpoint.existing(out):
        shutil.rmtree(path)
    before = contents(out)
    assert f"there is no checkpoint in {out} to go on from" in again(resume_from_checkpoint="latest")
    shutil.rmtree(out)
    assert f"there is no checkpoint in {out} to go on from" in again(resume_from_checkpoint="latest")
    assert before and not out.exists()


def test_resuming_to_fewer_steps_than_were_made_is_refused(data, vae, out):
    before = contents(out)
    with pytest.raises(ConfigError, match="checkpoint-4 has made 4 steps already, and max_train_steps is 3; give more"):
        toy.train("unconditional", data, vae, out, resume_from_checkpoint="latest", max_train_steps=3)
    assert contents(out) == before


@pytest.mark.parametrize("steps", [4, 5])
def test_resuming_to_as_many_steps_or_more_goes_on(data, vae, out, steps):
    weights = (out / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    first = log(out)
    options = {"resume_from_checkpoint": "latest", "logging_steps": 1, "report_to": "none"}
    toy.train("unconditional", data, vae, out, max_train_steps=steps, **options)
    assert (weights == (out / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()) == (steps == 4)
    assert [line for line in log(out) if line["step"] <= 4] == first
    assert [line["step"] for line in log(out)][len(first) :] == list(range(5, steps + 1))


def test_both_ways_on_at_once_are_refused(data, vae, tmp_path):
    with pytest.raises(ConfigError, match="overwrite_output_dir is true, and resume_from_checkpoint is given too"):
        toy.recipe("unconditional", data, vae, tmp_path, resume_from_checkpoint="latest", overwrite_output_dir=True)


def test_a_checkpoint_of_another_run_does_not_take_over_the_folder_of_a_run(data, vae, out, tmp_path):
    """In a new folder it may go on, and has the log from the beginning."""
    before, other = contents(out), tmp_path / "other"
    shutil.copytree(out, other)
    options = {"resume_from_checkpoint": str(other / "checkpoint-4"), "report_to": "none", "max_train_steps": 6}
    with pytest.raises(CheckpointError, match=r"is of another run than the one that .*out holds \(checkpoint-2,"):
        toy.train("unconditional", data, vae, out, **options)
    assert contents(out) == before
    toy.train("unconditional", data, vae, tmp_path / "new", **options)
    assert [line["step"] for line in log(tmp_path / "new") if "loss" in line] == [2, 4, 6]


def test_a_checkpoints_name_is_one_of_the_run_wherever_one_stands(data, vae, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint-4").mkdir()
    (tmp_path / "checkpoint-4" / "manifest.json").write_text("{}")
    toy.train("unconditional", data, vae, out, resume_from_checkpoint="checkpoint-4", report_to="none")


def test_going_on_from_an_earlier_checkpoint_keeps_the_log_of_the_finished_run(data, vae, out):
    first = (out / "log.jsonl").read_bytes()
    with pytest.warns(LatentDiffWarning, match=r"lines of an earlier run; they are kept in log\.jsonl\.1"):
        toy.train("unconditional", data, vae, out, resume_from_checkpoint="checkpoint-2", report_to="none")
    assert (out / "log.jsonl.1").read_bytes() == first
    assert [line["step"] for line in log(out) if "loss" in line] == [2, 4]


def test_another_first_stage_is_refused_though_its_latents_are_gone(data, vae, out, tmp_path):
    torch.manual_seed(1)
    other = toy.write_vae(tmp_path / "vae")
    for cached in (True, False):
        if not cached:
            shutil.rmtree(out / "latents")
        with pytest.raises(ConfigError, match="are of another first stage; resume with the first stage that"):
            toy.train("unconditional", data, other, out, resume_from_checkpoint="latest", max_train_steps=6)
    assert not (out / "latents").exists()
    toy.train("unconditional", data, vae, out, resume_from_checkpoint="latest", max_train_steps=6, report_to="none")


@pytest.mark.parametrize("place", ["output_dir", "pipeline"])
def test_folders_that_are_links_stay_links(data, vae, out, tmp_path, place):
    link = tmp_path / "link" if place == "output_dir" else out / "pipeline"
    if place == "pipeline":
        link.rename(tmp_path / "elsewhere")
    target = out if place == "output_dir" else tmp_path / "elsewhere"
    link.symlink_to(target)
    (target / "mine.txt").write_text("mine")
    output = link if place == "output_dir" else out
    toy.train("unconditional", data, vae, output, resume_from_checkpoint="latest", max_train_steps=6, report_to="none")
    assert link.is_symlink() and (target / "mine.txt").read_text() == "mine"
    assert DiffusionPipeline.from_pretrained(out / "pipeline") and checkpoint.latest(out).name == "checkpoint-6"


@pytest.mark.parametrize("kind", ["file", "folder", "config"])
def test_what_is_no_result_is_not_replaced(data, vae, tmp_path, kind):
    """A folder of a user's that lacks the files of a model takes the model in; one that has them is refused."""
    place = tmp_path / "out" / "pipeline"
    place.parent.mkdir()
    if kind == "file":
        place.write_text("mine")
    else:
        (place / "unet").mkdir(parents=True)
        (place / "unet" / ("config.json" if kind == "config" else "mine.txt")).write_text("mine")
    before = contents(tmp_path)
    if kind == "folder":
        toy.train("unconditional", data, vae, tmp_path / "out", max_train_steps=1, report_to="none")
        assert (place / "unet" / "mine.txt").read_text() == "mine" and DiffusionPipeline.from_pretrained(place)
    else:
        with pytest.raises(InputError, match=r"is not a folder|holds unet/config\.json, but no model_index\.json"):
            toy.train("unconditional", data, vae, tmp_path / "out", max_train_steps=1)
        assert contents(tmp_path) == before


def test_files_and_links_of_the_names_of_checkpoints_stay(data, vae, tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    (out / "checkpoint-2").write_text("mine")
    (elsewhere / "checkpoint").mkdir(parents=True)
    (elsewhere / "latents").mkdir()
    (out / "checkpoint-3").symlink_to(elsewhere / "checkpoint")
    (out / "latents").symlink_to(elsewhere / "latents")
    with pytest.warns(LatentDiffWarning, match=r"checkpoint-2 failed \(File exists\); go on from checkpoint-1"):
        toy.train("unconditional", data, vae, out, report_to="none", **{"checkpoint.steps": 1})
    assert (out / "checkpoint-2").read_text() == "mine" and (out / "latents").is_symlink()
    assert (out / "checkpoint-3").is_symlink() and checkpoint.damage(elsewhere / "checkpoint") is None
    assert [path.name for path in checkpoint.existing(out)] == ["checkpoint-3", "checkpoint-4"]


def first_stage(data, finished, output, **options):
    options |= {"data.train_data_dir": str(data), "data.resolution": toy.SIDE, "model": toy.VAE}
    return train_first_stage(load_recipe(FirstStageRecipe, None, {"output_dir": str(output), **SHORT, **options}))


def classifier(data, finished, output, **options):
    options |= {"data.train_data_dir": str(data), "data.resolution": toy.SIDE}
    network = {"block_out_channels": [8], "attention_levels": [False], "norm_num_groups": 4, "num_head_channels": 8}
    options |= {"pretrained_model_name_or_path": str(finished / "pipeline"), "classifier": network}
    return train_classifier(load_recipe(ClassifierRecipe, None, {"output_dir": str(output), **SHORT, **options}))


def adapter(data, finished, output, **options):
    options |= {"data.train_data_dir": str(data), "data.resolution": toy.SIDE, "lora": {"rank": 2}}
    options |= {"pretrained_model_name_or_path": str(finished / "pipeline")}
    return train_diffusion(load_recipe(DiffusionRecipe, None, {"output_dir": str(output), **SHORT, **options}))


SHORT = {"train_batch_size": 4, "max_train_steps": 2, "report_to": "none", "logging_steps": 1}


@pytest.mark.parametrize(("train", "result"), [(first_stage, "vae"), (classifier, "classifier"), (adapter, "lora")])
def test_the_other_stages_do_the_same(data, finished, tmp_path, train, result):
    out = train(data, finished, tmp_path / "out")
    (out / result / "mine.txt").write_text("mine")
    before = contents(out)
    with pytest.raises(CheckpointError, match=rf"holds an earlier run \(checkpoint-2, {result}\)"):
        train(data, finished, out)
    with pytest.raises(ConfigError, match="has made 2 steps already"):
        train(data, finished, out, resume_from_checkpoint="latest", max_train_steps=1)
    assert contents(out) == before
    train(data, finished, out, resume_from_checkpoint="latest", max_train_steps=3)
    assert [line["step"] for line in log(out)] == [1, 2, 3]
    train(data, finished, out, overwrite_output_dir=True, max_train_steps=1)
    assert [path.name for path in checkpoint.existing(out)] == ["checkpoint-1"] and len(log(out)) == 1
    assert (out / result / "mine.txt").read_text() == "mine"
    for path in checkpoint.existing(out):
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match=rf"holds an earlier run \({result}\)"):
        train(data, finished, out)


def test_hidden_files_of_a_user_stay_and_those_of_a_killed_run_go(data, vae, tmp_path):
    out = tmp_path / "out"
    (out / ".notes.old-2024").mkdir(parents=True)
    (out / ".notes.old-2024" / "a.txt").write_text("mine")
    (out / ".env.aside-mine").write_text("mine")
    (out / ".latentdiff").write_text("mine")
    (out / ".mine.latentdiff").symlink_to(out / ".notes.old-2024")
    for name in ("pipeline", "latents", "checkpoint-2", "log.jsonl", "bad_files.jsonl"):
        (leave_behind(out / name, ASIDE) / "half").write_text("half")
    toy.train("unconditional", data, vae, out, max_train_steps=1, report_to="none")
    assert (out / ".notes.old-2024" / "a.txt").read_text() == (out / ".env.aside-mine").read_text() == "mine"
    hidden = {path.name for path in out.iterdir() if path.name.startswith(".")}
    assert hidden == {".notes.old-2024", ".env.aside-mine", ".latentdiff", ".mine.latentdiff"}


def test_a_result_that_a_killed_run_was_about_to_replace_counts_as_one(data, vae, out):
    for path in checkpoint.existing(out):
        shutil.rmtree(path)
    (out / "pipeline").rename(leave_behind(out / "pipeline", OLD) / "pipeline")
    with pytest.raises(CheckpointError, match=r"holds an earlier run \(pipeline\)"):
        toy.train("unconditional", data, vae, out)
    assert DiffusionPipeline.from_pretrained(out / "pipeline")


def test_a_result_whose_writing_is_killed_anywhere_is_the_old_one_or_the_new_one(vae, tmp_path):
    first, other = AutoencoderKL.from_pretrained(vae), AutoencoderKL.from_pretrained(vae)
    with torch.no_grad():
        other.quant_conv.bias.add_(1)
    found, event, place = set(), 1, tmp_path / "vae"
    export_folder(place, first.save_pretrained)
    (place / "mine.txt").write_text("mine")
    while killed(lambda: export_folder(place, other.save_pretrained), tmp_path, event):
        recover_all(tmp_path)
        bias = AutoencoderKL.from_pretrained(place).quant_conv.bias
        found.add(torch.equal(bias, other.quant_conv.bias))
        assert found <= {True} or torch.equal(bias, (other if True in found else first).quant_conv.bias)
        assert (place / "mine.txt").read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["vae"]
        export_folder(place, first.save_pretrained)
        event += 1
    assert found == {False, True} and event > 10


def test_a_removal_that_is_killed_anywhere_can_be_made_again(data, vae, out, tmp_path):
    """What is left is refused like a whole run, or there is none; a user's files stay."""
    for place in (out / "mine.txt", out / "pipeline" / "mine.txt", out / "checkpoint-4" / "mine.txt"):
        place.write_text("mine")
    recipe = load_recipe(
        DiffusionRecipe, None, {"output_dir": str(out), "data.train_data_dir": "x", "vae": "x", "unet": {"x": 1}}
    )
    mine = {path: text for path, text in contents(out).items() if text == b"mine"}
    kept = {
        path: text for path, text in contents(out).items() if path.parts[0] == "latents" or path.name == "README.md"
    }
    spare, event = shutil.copytree(out, tmp_path / "spare", symlinks=True), 1
    while killed(lambda: remove_belongings(recipe), out, event):
        after = contents(out)
        assert mine.items() <= after.items() and kept.items() <= after.items()
        recover_all(out)
        remove_belongings(recipe)
        assert contents(out) == mine | kept and check_start(recipe) is None
        shutil.rmtree(out)
        shutil.copytree(spare, out, symlinks=True)
        event += 5
    assert event > 20 and contents(out) == mine | kept


@pytest.mark.parametrize("option", [{}, {"resume_from_checkpoint": "latest", "max_train_steps": 3}])
def test_a_dry_run_ends_as_the_run_would(data, vae, out, option):
    before = contents(out)
    with pytest.raises(LatentDiffError, match=r"earlier run|steps already"):
        dry_run(train_diffusion, toy.recipe("unconditional", data, vae, out, **option))
    assert dry_run(train_diffusion, toy.recipe("unconditional", data, vae, out, resume_from_checkpoint="latest"))
    assert contents(out) == before


@pytest.fixture
def at_work(tmp_path):
    """A run of another process that is in the midst of its steps."""
    options = {"max_train_steps": 10**6, "checkpoint.steps": 20}
    process = Forked(lambda: run(tmp_path / "out", lambda at, loss: time.sleep(0.01) or loss, **options))
    wait_for(lambda: checkpoint.existing(tmp_path / "out"), process)
    yield process
    process.end()


@pytest.mark.parametrize("option", [{}, {"resume_from_checkpoint": "latest"}, {"overwrite_output_dir": True}])
def test_of_two_runs_in_one_folder_the_second_is_refused(at_work, tmp_path, option):
    out = tmp_path / "out"
    for folder in (out, tmp_path / "link"):
        if folder != out:
            folder.symlink_to(out)
        with pytest.raises(InputError, match=rf"process {at_work.pid} is at work in {folder}; wait until it has ended"):
            run(folder, max_train_steps=10**6, **option)
    assert at_work.is_alive()
    os.kill(at_work.pid, signal.SIGTERM)
    at_work.ended()
    last = checkpoint.latest(out)
    assert checkpoint.step_of(last) % 20 and (out / LOCK).exists() is False
    run(out, resume_from_checkpoint="latest", max_train_steps=checkpoint.step_of(last) + 1)


def test_of_two_resumes_at_once_one_goes_on(tmp_path):
    whole = run(tmp_path / "whole", dropout=0.1)
    with pytest.raises(TrainingInterrupted):
        run(
            tmp_path / "out",
            lambda at, loss: loss if at != 6 else os.kill(os.getpid(), signal.SIGTERM) or loss,
            dropout=0.1,
        )
    options = {"resume_from_checkpoint": "latest", "dropout": 0.1}
    both = all_ended([Forked(lambda: run(tmp_path / "out", **options)) for _ in range(2)])
    refused = [process.stderr for process in both if process.returncode]
    assert_same_run(whole, tmp_path / "out", ["checkpoint-8", "checkpoint-10"])
    assert len(refused) <= 1  # the second may have begun when the first had ended
    assert all("is at work in" in error for error in refused)


def test_of_two_runs_in_one_process_the_second_is_refused(tmp_path):
    """Though the first is in another thread."""
    begun, ended, found = threading.Event(), threading.Event(), []

    def hook(at, loss):
        begun.set()
        ended.wait(PATIENCE)
        return loss

    thread = threading.Thread(target=lambda: run(tmp_path, hook))
    thread.start()
    begun.wait(PATIENCE)
    try:
        run(tmp_path)
    except InputError as error:
        found.append(str(error))
    ended.set()
    thread.join()
    assert found and "is at work in" in found[0] and len(log(tmp_path)) == 3


def test_a_run_that_failed_leaves_the_folder_free(data, vae, tmp_path):
    for _ in range(2):
        with pytest.raises(ConfigError, match="nothing"):
            toy.train("unconditional", data, vae, tmp_path / "out", **{"optimizer.name": "nothing"})
    assert not (tmp_path / "out" / LOCK).exists()
    toy.train("unconditional", data, vae, tmp_path / "out", max_train_steps=1, report_to="none")


def test_every_run_ends_with_a_checkpoint(tmp_path):
    run(tmp_path, **{"checkpoint.steps": 1000})
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["checkpoint-10"]
    run(tmp_path, max_train_steps=12, resume_from_checkpoint="latest", **{"checkpoint.steps": 1000})
    assert [path.name for path in checkpoint.existing(tmp_path)] == ["checkpoint-10", "checkpoint-12"]
    assert [line["step"] for line in log(tmp_path)] == [3, 6, 9, 12]


def test_a_run_does_not_remove_the_run_that_it_begins_with(data, out):
    """The folder of a run stands for the pipeline in it."""
    before = contents(out)
    for name in (str(out), f"{out}/"):
        options = {"pretrained_model_name_or_path": name, "overwrite_output_dir": True}
        with pytest.raises(ConfigError, match=r"name_or_path is .*, which overwrite_output_dir would remove"):
            toy.train("unconditional", data, None, out, unet={}, noise_schedule={}, **options)
    assert contents(out) == before


@pytest.mark.parametrize("place", ["", "runs/x"])
def test_a_run_among_the_images_is_refused(data, vae, tmp_path, place):
    """Its sheets of samples would be trained on when it goes on; beside them all is well."""
    images = shutil.copytree(data, tmp_path / "images")
    before = contents(images)
    (tmp_path / "link").symlink_to(images)
    for folder in (images, tmp_path / "link"):
        with pytest.raises(InputError, match=r"output_dir .* lies in data\.train_data_dir .*give another output_dir"):
            toy.train("unconditional", images, vae, folder / place, max_train_steps=1)
    with pytest.raises(InputError, match=r"lies in validation\.data_dir"):
        options = {"validation.data_dir": str(images), "validation.steps": 1, "max_train_steps": 1}
        toy.train("unconditional", data, vae, images / place, **options)
    assert contents(images) == before
    toy.train("unconditional", images, vae, tmp_path / "images-run", max_train_steps=1, report_to="none")


@pytest.mark.parametrize("start", ["pipeline", "vae"])
def test_a_run_in_the_folder_of_a_model_is_refused(data, vae, out, tmp_path, start):
    """Its name would stand for the old one."""
    model = out / "pipeline" if start == "pipeline" else shutil.copytree(vae, tmp_path / "vae")
    before = contents(model)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"has (model_index|config)\.json, so its name stands for the model there"):
            toy.train("unconditional", data, vae, model, max_train_steps=1, overwrite_output_dir=overwrite)
    assert contents(model) == before


@pytest.mark.parametrize("changed", ["images", "seed", "task"])
def test_a_resume_that_is_refused_leaves_the_caches_as_they_are(data, vae, out, tmp_path, changed):
    before = contents(out)
    options = {"resume_from_checkpoint": "latest", "max_train_steps": 6, "report_to": "none"}
    fewer = toy.write(tmp_path / "fewer", range(1))
    task, images = ("class-to-image", data) if changed == "task" else ("unconditional", data)
    with pytest.raises(ConfigError, match=r"checkpoint-4 was made with another recipe: .*; use its recipe"):
        toy.train(task, fewer if changed == "images" else images, vae, out, seed=int(changed == "seed"), **options)
    assert contents(out) == before
    toy.train("unconditional", data, vae, out, **options)
