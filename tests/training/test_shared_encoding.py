"""Latents that all processes of a run encode, or that were encoded before it; and how long a step waits for data."""

import json
import os
import re
import shutil
import time

import numpy as np
import pytest
import tiny_run
import toy
from PIL import Image
from processes import Runs

from latentdiff import ConfigError
from latentdiff.cli.main import main
from latentdiff.data.encoding import LatentEncoding
from latentdiff.training.engine.gradient import GradientAccumulator

pytestmark = pytest.mark.thorough


def latents(output):
    return {path.name: path.read_bytes() for path in (output / "latents").iterdir()}


def test_two_processes_of_a_run_encode_the_latents_of_one(vae, tmp_path):
    """Of more than a shard of images."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for number in range(300):
        pixels = rng.integers(0, 256, (toy.SIDE, toy.SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{number}.png")
    job = {"call": "pipeline", "task": "unconditional", "data": str(tmp_path / "data"), "vae": str(vae)}
    job |= {"shards": None, "validation.steps": 0, "report_to": "none", "max_train_steps": 1}
    runs = Runs()
    try:
        for count in (1, 2):
            assert runs(tmp_path / str(count), count, **job)[0] == [0] * count
    finally:
        runs.close()
    assert latents(tmp_path / "1") == latents(tmp_path / "2")
    assert set(latents(tmp_path / "2")) == {"moments.npy", "meta.json"}


def test_latents_that_were_encoded_before_are_read(data, vae, tmp_path):
    options = {"max_train_steps": 1, "logging_steps": 1, "data.random_flip": True}
    toy.train("unconditional", data, vae, tmp_path / "run", **options)
    words = ["--resolution", str(toy.SIDE), "--random_flip", "true", "--quiet"]
    assert main(["encode", str(vae), str(data), str(tmp_path / "before"), *words]) == 0
    given = toy.train("unconditional", data, vae, tmp_path / "given", latents_dir=str(tmp_path / "before"), **options)
    for name, content in latents(tmp_path / "run").items():
        assert (tmp_path / "before" / name).read_bytes() == content
    assert not (given / "latents").exists()
    assert tiny_run.log(given) == tiny_run.log(tmp_path / "run")


def test_latents_of_something_else_are_refused(data, vae, tmp_path):
    words = ["--resolution", str(toy.SIDE), "--quiet"]
    assert main(["encode", str(vae), str(data), str(tmp_path / "before"), *words]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()}
    options = {"latents_dir": str(tmp_path / "before"), "data.random_flip": True}
    message = "which holds latents with another random_flip; make those of these images by this first stage with"
    with pytest.raises(ConfigError, match=message):
        toy.train("unconditional", data, vae, tmp_path / "run", **options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "before").iterdir()} == before


@pytest.mark.parametrize(("loading", "computing", "share"), [(3, 1, 0.75), (1, 3, 0.25), (0, 1, 0.0)])
def test_the_log_has_the_share_of_waiting_for_data(tmp_path, monkeypatch, loading, computing, share):
    """By a clock that goes on while a batch is loaded and while a loss is computed, and at no other time."""
    now = [0.0]
    batches = GradientAccumulator._batches

    def slow_batches(self, *args):
        for batch in batches(self, *args):
            now[0] += loading
            yield batch

    def slow_loss(step, loss):
        now[0] += computing
        return loss

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(GradientAccumulator, "_batches", slow_batches)
    output = tiny_run.run(tmp_path, slow_loss, logging_steps=5)
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [line["data_wait"] for line in lines][1:] == [pytest.approx(share)]
    assert lines[1]["images_per_second"] == pytest.approx(4 / (loading + computing))


@pytest.fixture
def encode(data, vae, tmp_path, capsys):
    """Encodes the data to the folder `made`; the exit code and the error."""

    def call():
        code = main(["encode", str(vae), str(data), str(tmp_path / "made"), "--resolution", str(toy.SIDE), "--quiet"])
        return code, capsys.readouterr().err

    return call


@pytest.mark.parametrize("bad", [[], 5, None, {"x": "y"}, {"24": "none of them"}, {"-1": "nor this"}])
def test_a_finished_encoding_whose_list_of_bad_images_is_damaged_is_refused(encode, tmp_path, bad):
    assert encode()[0] == 0
    meta = tmp_path / "made" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "bad": bad}))
    code, err = encode()
    assert code == 2 and err.count("\n") == 1
    assert "exists already and holds damaged latents (" in err and "choose another OUTPUT, or remove it" in err
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "bad": {"23": "the last image"}}))
    assert encode()[0] == 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda folder: os.truncate(folder / "moments.npy", 200), r"holds damaged latents \(.*\)"),
        (lambda folder: os.truncate(folder / "moments.npy", 0), r"holds damaged latents \(.*\)"),
        (lambda folder: (folder / "moments.npy").unlink(), r"holds damaged latents \(.*No such file.*\)"),
        (lambda folder: (folder / "meta.json").write_text("{"), "has a meta.json that is damaged"),
        (lambda folder: (folder / "meta.json").unlink(), "holds no finished latents"),
        (lambda folder: edit(folder, first_stage="0"), "holds latents of another first stage"),
        (lambda folder: edit(folder, random_flip=True), "holds latents with another random_flip"),
        (lambda folder: edit(folder, images="0"), "holds latents of other images, or of another resolution or crop"),
        (lambda folder: edit(folder, shapes=5), r"holds damaged latents \(.*\)"),
        (shutil.rmtree, "doesn't exist"),
    ],
)
def test_what_is_wrong_with_a_folder_of_latents_is_said(encode, data, vae, tmp_path, capsys, change, fault):
    assert encode()[0] == 0
    change(tmp_path / "made")
    with pytest.raises(ConfigError, match=rf"^latents_dir is .*made, which {fault}; make those of these images"):
        toy.train("unconditional", data, vae, tmp_path / "run", latents_dir=str(tmp_path / "made"), max_train_steps=1)
    code, err = encode()
    assert (code, err) == (0, "") if change is shutil.rmtree else re.search(f"made exists already and {fault}; ", err)


def edit(folder, **values):
    meta = folder / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **values}))


@pytest.mark.parametrize("output", ["made", "made/../made", "link", "made/run"])
def test_a_run_does_not_write_among_the_latents_that_it_reads(encode, data, vae, tmp_path, output):
    assert encode()[0] == 0
    (tmp_path / "link").symlink_to(tmp_path / "made")
    before = sorted((tmp_path / "made").iterdir())
    options = {"latents_dir": str(tmp_path / "made"), "max_train_steps": 1}
    if output == "made/run":
        toy.train("unconditional", data, vae, tmp_path / output, **options)
        return
    with pytest.raises(ConfigError, match=r"output_dir is .*, the folder of latents_dir; give a folder of the run"):
        toy.train("unconditional", data, vae, tmp_path / output, **options)
    assert sorted((tmp_path / "made").iterdir()) == before


def interrupt(encode, monkeypatch, tmp_path):
    """Encode all, but end before the result has its name; the folder in which it lies."""

    def stop(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LatentEncoding, "finish", stop)
        assert encode()[0] == 130
    return tmp_path / "made.partial"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"0":', b'{"99": "none of the shard"}'])
def test_a_shard_whose_mark_is_damaged_is_encoded_again(encode, monkeypatch, tmp_path, content):
    assert encode()[0] == 0
    whole = (tmp_path / "made" / "moments.npy").read_bytes()
    (tmp_path / "made").rename(tmp_path / "before")
    partial = interrupt(encode, monkeypatch, tmp_path)
    (mark,) = (partial / "shards").iterdir()
    mark.write_bytes(content)
    assert encode()[0] == 0
    assert (tmp_path / "made" / "moments.npy").read_bytes() == whole


@pytest.mark.parametrize("size", [None, 0, 200])
def test_unfinished_rows_that_are_cut_off_are_told_and_nothing_is_made_of_them(encode, monkeypatch, tmp_path, size):
    partial = interrupt(encode, monkeypatch, tmp_path)
    rows = partial / "moments.npy"
    content = rows.read_bytes()
    rows.unlink() if size is None else rows.write_bytes(content[:size])
    code, err = encode()
    assert code == 2 and "has a moments.npy that is damaged or missing; remove the folder" in err
    assert not (tmp_path / "made").exists()
    rows.write_bytes(content)
    assert encode()[0] == 0


def test_a_file_where_unfinished_latents_would_go_is_told(encode, tmp_path):
    (tmp_path / "made.partial").write_text("mine")
    code, err = encode()
    assert code == 2 and "made.partial is a file, and unfinished latents would go there; remove it" in err
    assert (tmp_path / "made.partial").read_text() == "mine"
