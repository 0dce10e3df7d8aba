"""Saves and conversions that are killed at every event of the file system leave a model that loads, and no litter."""

import shutil

import pytest
import torch
from leftovers import NOBODY, killed, leave_behind
from tiny import tiny_unconditional

from latentdiff import DiffusionPipeline, InputError
from latentdiff.cli.main import main
from latentdiff.inspection.model import describe_pipeline
from latentdiff.io.staging import ASIDE, OLD, staging_folder

pytestmark = pytest.mark.thorough

EVERY = pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])  # event of the file system


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return tiny_unconditional(tmp_path_factory.mktemp("saved"))


def bias(pipe):
    return pipe.unet.conv_in.bias


def whole(pipe, first):
    """Whether a pipeline is the first one, but for the bias that tells the saves apart."""
    return all(
        torch.equal(tensor, getattr(first, part).state_dict()[name])
        for part in ("unet", "vae")
        for name, tensor in getattr(pipe, part).state_dict().items()
        if name != "conv_in.bias"
    )


def users_files(folder):
    """Files of a user's own beside a model, whose names look like what is left of a save."""
    (folder / ".notes.old-2024").mkdir()
    (folder / ".notes.old-2024" / "a.txt").write_text("mine")
    (folder / ".env.aside-mine").write_text("mine")
    (folder / ".model.old-20240101").mkdir()
    (folder / ".model.aside-abcdefgh").symlink_to(folder / ".notes.old-2024")
    return {path.name for path in folder.iterdir()}


@EVERY
def test_a_save_that_is_killed_anywhere_leaves_the_old_model_or_the_new_one(saved, tmp_path, every):
    model = tmp_path / "model"
    mine = users_files(tmp_path)
    first = DiffusionPipeline.from_pretrained(saved)
    other = DiffusionPipeline.from_pretrained(saved)
    with torch.no_grad():
        bias(other).add_(1)
    found, event = set(), 1
    first.save_pretrained(model)
    while killed(lambda: other.save_pretrained(model), tmp_path, event):
        loaded = DiffusionPipeline.from_pretrained(model)
        assert whole(loaded, first)
        new = torch.equal(bias(loaded), bias(other))
        assert new or torch.equal(bias(loaded), bias(first))
        found.add(new)
        first.save_pretrained(model)  # which the next round loads
        assert {path.name for path in tmp_path.iterdir()} == {"model", *mine}
        event += every
    print(f"{event // every} kills of save_pretrained, at events of the file system: always a whole model")
    assert found == {False, True} and event > 30
    assert torch.equal(bias(DiffusionPipeline.from_pretrained(model)), bias(other))
    assert (tmp_path / ".notes.old-2024" / "a.txt").read_text() == (tmp_path / ".env.aside-mine").read_text() == "mine"


@EVERY
def test_a_conversion_that_is_killed_anywhere_can_be_made_again(saved, tmp_path, every):
    out, event = tmp_path / "out", 1
    command = ["convert", str(saved), str(out), "--quiet"]
    expected = DiffusionPipeline.from_pretrained(saved)
    while killed(lambda: main(command), tmp_path, event):
        if out.exists():
            assert whole(DiffusionPipeline.from_pretrained(out), expected)
            shutil.rmtree(out)
        assert main(command) == 0
        assert {path.name for path in tmp_path.iterdir()} == {"out"}
        shutil.rmtree(out)
        event += every
    print(f"{event // every} kills of convert, at events of the file system: a whole model or none")
    assert event > 10 and whole(DiffusionPipeline.from_pretrained(out), expected)


@pytest.fixture
def put_aside(saved, tmp_path):
    """A model that a killed process had put aside, to put another in its place."""
    model = tmp_path / "model"
    shutil.copytree(saved, leave_behind(model, OLD) / "model")
    (leave_behind(model, ASIDE) / "unet").mkdir()
    return model


@pytest.mark.parametrize("use", ["load", "info", "link", "component", "convert", "save", "first stage"])
def test_every_use_puts_the_model_back(use, put_aside, saved, tmp_path):
    model = put_aside
    if use == "load":
        DiffusionPipeline.from_pretrained(model)
    elif use == "info":
        assert describe_pipeline(str(model))["task"] == "unconditional"
    elif use == "link":
        (tmp_path / "link").symlink_to(model)
        DiffusionPipeline.from_pretrained(tmp_path / "link")
    elif use == "component":
        shutil.copytree(saved / "vae", leave_behind(tmp_path / "vae", OLD) / "vae")
        assert main(["info", str(tmp_path / "vae")]) == 0
    elif use == "convert":
        assert main(["convert", str(model), str(tmp_path / "out"), "--quiet"]) == 0
    elif use == "save":
        pipe = DiffusionPipeline.from_pretrained(saved)
        (next(staging_folder(model).glob(f"{OLD}*")) / "model" / "README.md").write_text("by hand")
        pipe.save_pretrained(model)
        assert (model / "README.md").read_text() == "by hand"
    else:
        from latentdiff.training.first_stage.autoencoder import load_first_stage

        shutil.copytree(saved / "vae", leave_behind(tmp_path / "vae", OLD) / "vae")
        load_first_stage(str(tmp_path / "vae"))
    assert use in ("component", "first stage") or whole(
        DiffusionPipeline.from_pretrained(model), DiffusionPipeline.from_pretrained(saved)
    )
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert left <= ({staging_folder(model).name} if use in ("component", "first stage") else set())


def test_what_another_process_is_at_work_on_stays(saved, tmp_path):
    model = tmp_path / "model"
    pipe = DiffusionPipeline.from_pretrained(saved)
    pipe.save_pretrained(model)
    at_work = leave_behind(model, ASIDE)
    living = at_work.rename(at_work.with_name(at_work.name.replace(str(NOBODY), "1")))  # the first process of all
    began = __import__("psutil").Process(1).create_time()
    living = living.rename(living.with_name("-".join([*living.name.split("-")[:3], str(int(began)), "0" * 8])))
    pipe.save_pretrained(model)
    DiffusionPipeline.from_pretrained(model)
    assert [path.name for path in staging_folder(model).iterdir()] == [living.name]


def test_foreign_files_in_the_hidden_folder_stay(saved, tmp_path):
    model = tmp_path / "model"
    hidden = leave_behind(model, ASIDE).parent
    (hidden / "notes.txt").write_text("mine")
    (hidden / "aside-mine").mkdir()
    (hidden / f"{OLD}-00000000-1-1-00000000").symlink_to(saved)
    DiffusionPipeline.from_pretrained(saved).save_pretrained(model)
    assert {path.name for path in hidden.iterdir()} == {"notes.txt", "aside-mine", f"{OLD}-00000000-1-1-00000000"}
    assert (saved / "model_index.json").exists()


def test_a_file_in_the_place_of_the_hidden_folder_is_not_touched(saved, tmp_path):
    pipe = DiffusionPipeline.from_pretrained(saved)
    staging_folder(tmp_path / "model").write_text("mine")
    with pytest.raises(InputError, match="is in the way; rename it"):
        pipe.save_pretrained(tmp_path / "model")
    assert staging_folder(tmp_path / "model").read_text() == "mine"
