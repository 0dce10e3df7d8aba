"""Latents that are encoded in shards: the same bytes whoever encodes them, and little that a killed worker loses."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import psutil
import pytest
import torch
import toy
from forked import Forked
from leftovers import kill_when, killed
from PIL import Image

from latentdiff.bulk.shards import missing
from latentdiff.cli.main import main
from latentdiff.data import encoding
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.encoding import LatentEncoding
from latentdiff.data.images import ImageFolder
from latentdiff.data.views import Views
from latentdiff.evaluation.first_stage import first_stage_of
from latentdiff.pipelines import precision

IMAGES, SIDE = 23, 16


def silent(told):
    pass


def write_images(folder, count):
    folder.mkdir()
    rng = np.random.default_rng(count)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return toy.write_vae(tmp_path_factory.mktemp("stage") / "vae")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Few images, of which one can't be decoded."""
    folder = write_images(tmp_path_factory.mktemp("few") / "data", IMAGES)
    (folder / "0007.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Enough images for six shards."""
    return write_images(tmp_path_factory.mktemp("many") / "data", 1300)


@pytest.fixture
def work(vae, data):
    """Makes the work of encoding the few images into a folder."""
    stage = first_stage_of(str(vae))

    def make(folder, **options):
        images = ImageFolder(data, SIDE)
        images.views = Views(SIDE, flip=options.pop("random_flip", True))
        options = {"shard": 5, **options}
        return LatentEncoding(folder, stage, images, BadFiles(None, len(images), 0.1), **options)

    return make


@pytest.fixture
def whole(work, tmp_path):
    """The files of a cache that one process has made."""
    made = work(tmp_path / "whole")
    made.begin(replace=False)
    with pytest.warns(UserWarning, match="0007"):
        made.do(made.shards(), silent)
    assert made.finish()
    return contents(tmp_path / "whole")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_any_number_of_processes_and_threads_makes_the_same_bytes(work, whole, tmp_path, processes):
    before = torch.get_num_threads()
    for rank in reversed(range(processes)):
        torch.set_num_threads(1 + rank % 2)
        part = work(tmp_path / "shared")
        part.begin(replace=False)
        assert not part.finish() and part.cache() is None
        part.do(missing(part, part.shards()[rank::processes]), silent)
    torch.set_num_threads(before)
    assert part.finish()
    assert contents(tmp_path / "shared") == whole
    assert not (tmp_path / "shared.partial").exists()


@pytest.mark.filterwarnings("ignore:left out")
def test_rows_are_those_of_the_images_and_their_mirror_images(work, whole, vae, data, tmp_path):
    cache, stage = work(tmp_path / "whole").cache(), first_stage_of(str(vae))
    images = ImageFolder(data, SIDE)
    assert set(cache.bad) == {7} and len(cache) == 2 * IMAGES
    for row in (0, 4, 5, 22, IMAGES, 2 * IMAGES - 1):
        pixels = images[row % IMAGES][None]
        with torch.no_grad():
            moments = stage.encode(pixels if row < IMAGES else pixels.flip(-1)).latent_dist.parameters[0]
        assert torch.allclose(cache[row], moments, rtol=2e-3, atol=2e-3)
    assert not cache.moments[7].any() and not cache.moments[IMAGES + 7].any()


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:left out")
def test_a_worker_that_is_killed_anywhere_loses_a_shard_at_most(work, whole, tmp_path):
    place = tmp_path / "cut"
    event = kills = 0
    while True:
        event += 1

        def encode():
            part = work(place)
            part.begin(replace=False)
            part.do(missing(part, part.shards()), silent)
            part.finish()

        before = len(list(place.with_name("cut.partial").glob("shards/*.json")))
        if not killed(encode, place, event):
            break
        kills += 1
        marks = sorted(path.name for path in place.with_name("cut.partial").glob("shards/*.json"))
        assert marks == [f"{number:05d}.json" for number in range(len(marks))]
        assert len(marks) >= before or work(place).cache() is not None
    assert {name: whole[name] for name in whole} == {name: contents(place)[name] for name in whole}
    assert kills > 5


@pytest.mark.thorough
def test_after_a_kill_minus_9_the_same_command_makes_the_same_bytes(vae, many, tmp_path):
    def command(name):
        return ["encode", str(vae), str(many), str(tmp_path / name), "--resolution", str(SIDE), "--quiet"]

    def worker(rank, until=None):
        """The exit code of one of an array of jobs, which may be killed on the way."""

        def work():
            if until is not None:
                kill_when(until)
            return main(command("two"))

        return Forked(work, environment={"RANK": rank, "WORLD_SIZE": 2}).ended().returncode

    assert main(command("one")) == 0
    marks = tmp_path / "two.partial" / "shards"
    assert worker(0, until=lambda: list(marks.glob("0*.json"))) == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in marks.glob("0*.json")}
    assert list(done) == ["00000.json"]
    assert worker(1) == 0
    assert not (tmp_path / "two").exists() and len(list(marks.glob("0*.json"))) == 4
    assert (marks / "00000.json").stat().st_mtime_ns == done["00000.json"]  # it is kept, and not made anew
    assert worker(0) == 0
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.slow
def test_an_actor_of_ray_that_is_killed_is_replaced(vae, many, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install latentdiff[ray]")
    argv = [sys.executable, "-m", "latentdiff", "encode", str(vae), str(many)]
    options = ["--resolution", str(SIDE)]
    assert main([*argv[3:], str(tmp_path / "one"), *options, "--quiet"]) == 0
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    ray = [*argv, str(tmp_path / "two"), *options, "--engine", "ray", "--workers", "1"]
    driver = subprocess.Popen(ray, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    marks = tmp_path / "two.partial" / "shards"
    while not list(marks.glob("*.json")):
        assert driver.poll() is None, driver.stderr.read()
        time.sleep(0.001)
    children = psutil.Process(driver.pid).children(recursive=True)
    (actor,) = [child for child in children if "MapWorker" in " ".join(child.cmdline())]
    actor.kill()
    assert len(list(marks.glob("0*.json"))) < 6  # it had work left
    out, err = driver.communicate(timeout=300)
    assert driver.returncode == 0 and "latentdiff" not in err  # Ray's own core may say something there
    assert out.splitlines()[-1].startswith(f"{tmp_path / 'two'}: 1300 rows")  # Ray says that a worker has died
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_without_ray_one_line_says_what_to_install(vae, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = str(tmp_path / "out")
    for command in (["encode", str(vae), str(data), out], ["sample", "--model", "x", "-o", out]):
        assert main([*command, "--engine", "ray"]) == 2
        message = "latentdiff: error: --engine ray needs Ray; install latentdiff[ray], or leave --engine out\n"
        assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


FAULTS = {
    "workers of no engine": (["--workers", "2"], {}, "--workers 2 is given without --engine ray; give both or none"),
    "Ray in several processes": (["--engine", "ray"], {"WORLD_SIZE": "2"}, "--engine ray is given to 2 processes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_engines_that_do_not_go_together_are_one_line(vae, data, tmp_path, monkeypatch, capsys, fault):
    words, environment, message = FAULTS[fault]
    monkeypatch.setitem(sys.modules, "ray", os)  # any module: it is not imported
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["encode", str(vae), str(data), str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resolution", [SIDE - 1, SIDE + 1])
def test_a_resolution_that_the_first_stage_cannot_halve_is_one_line(vae, data, tmp_path, capsys, resolution):
    out = tmp_path / "out"
    assert main(["encode", str(vae), str(data), str(out), "--resolution", str(resolution)]) == 2
    message = f"latentdiff: error: resolution is {resolution}; this first stage needs a multiple of 2\n"
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:left out")
def test_latents_of_something_else_are_not_written_over(vae, data, tmp_path, capsys, whole, work):
    command = ["encode", str(vae), str(data), "--resolution", str(SIDE)]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert main([*command, str(tmp_path / "mine")]) == 2
    assert "mine exists already and holds no finished latents; choose another OUTPUT\n" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "whole")]) == 2  # that has mirror images
    begun = work(tmp_path / "begun")
    begun.begin(replace=False)
    assert main([*command, str(tmp_path / "begun")]) == 2
    assert "begun.partial holds latents of another first stage, data or options" in capsys.readouterr().err
    assert contents(tmp_path / "whole") == whole and (tmp_path / "begun.partial" / "plan.json").exists()


def test_bfloat16_is_refused_where_it_is_emulated(vae, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: False)
    words = ["encode", str(vae), str(data), str(tmp_path / "out"), "--resolution", str(SIDE), "--dtype", "bfloat16"]
    assert main([*words, "--device", "cpu"]) == 2
    assert "--dtype is bfloat16, which cpu only emulates here; leave it out" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:left out")
@pytest.mark.parametrize(("able", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_in_bf16_encodes_in_it_where_the_device_has_it(work, tmp_path, monkeypatch, able, expected):
    monkeypatch.setattr(encoding, "has_bfloat16", lambda device: able)
    made = work(tmp_path / "made", bfloat16=True)
    made.begin(replace=False)
    made.do(made.shards(), silent)
    assert made.finish()
    assert json.loads((tmp_path / "made" / "meta.json").read_text())["precision"] == expected


def test_images_of_which_none_can_be_decoded_are_one_line(vae, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["encode", str(vae), str(tmp_path / "data"), str(tmp_path / "out"), "--resolution", "16"]) == 2
    assert "no image can be decoded, the first: " in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
