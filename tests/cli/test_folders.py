"""Folders in, folders out: sub-folders, what exists, what is damaged, several processes."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
from forked import Forked, all_ended, launched
from PIL import Image

from latentdiff import DiffusionPipeline
from latentdiff.bulk import processes
from latentdiff.cli.batch.sampler import Sampler
from latentdiff.cli.main import main
from latentdiff.io.generated import read_parameters

pytestmark = pytest.mark.thorough

OPTIONS = ("--steps", 2, "--seed", 0, "--batch-size", 2)


def noise_image(path, size=(8, 8), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


def files(folder):
    """Names in a folder to the files' bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path):
    """Five images of two sizes, two of them in a sub-folder, and things that are no input."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("b.png", "a.jpg", "sub/c.webp", "sub/deep/d.bmp", "e.png")):
        noise_image(folder / name, (8, 8) if number != 1 else (12, 10), number)
    noise_image(folder / ".hidden.png")
    noise_image(folder / ".thumbnails" / "b.png")
    (folder / "notes.txt").write_text("notes")
    return folder


MADE = ["out/a.png", "out/b.png", "out/e.png", "out/sub/c.png", "out/sub/deep/d.png"]


def test_a_folder_becomes_a_folder(run, models, photos, tmp_path):
    code, out, err = run("upscale", "photos", "-o", "out", "--model", models["upscale"], *OPTIONS)
    assert (code, err) == (0, [])
    assert sorted(out) == [f"{name}\tseed 0" for name in MADE]
    assert sorted(files(tmp_path / "out")) == [name.removeprefix("out/") for name in MADE]
    assert read_parameters("out/sub/deep/d.png")["image"] == "sub/deep/d.bmp"
    with Image.open("out/a.png") as image:
        assert image.size == (24, 20)


def test_what_exists_is_kept_and_the_rest_is_the_same(run, models, photos, tmp_path):
    command = ("upscale", "photos", "-o", "photos/out", "--model", models["upscale"], *OPTIONS)
    assert run(*command)[0] == 0
    whole = files(photos / "out")
    for name in ("b.png", "sub/c.png"):  # each of a batch of two, whose other is kept
        (photos / "out" / name).unlink()
    (photos / "out/e.png").write_text("kept")
    code, out, err = run(*command)
    assert (code, err) == (0, [])
    assert out == ["photos/out/b.png\tseed 0", "photos/out/sub/c.png\tseed 0", "photos/out: 2 made, 3 existed already"]
    assert files(photos / "out") == {**whole, "e.png": b"kept"}
    assert run(*command, "--overwrite")[0] == 0
    assert files(photos / "out") == whole


def test_no_model_is_loaded_when_all_is_made(run, models, photos, monkeypatch):
    command = ("upscale", "photos", "-o", "out", *OPTIONS)
    assert run(*command, "--model", models["upscale"])[0] == 0
    monkeypatch.setattr(Sampler, "__init__", None)
    assert run(*command, "--model", models["upscale"]) == (0, ["out: 0 made, 5 existed already"], [])


def test_several_seeds_have_files_of_their_own(run, models, photos, tmp_path):
    assert (
        run("upscale", photos / "b.png", "-o", "out", "--model", models["upscale"], "--steps", 2, "--seed", "0-1")[0]
        == 0
    )
    assert sorted(files(tmp_path / "out")) == ["b-seed0.png", "b-seed1.png"]


def test_bad_files_are_reported_and_the_rest_is_done(run, models, photos, tmp_path):
    (photos / "empty.png").write_bytes(b"")
    whole = (photos / "b.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (12000, 9000)).save(photos / "bomb.png")
    command = ("upscale", "photos", "-o", "out", "--model", models["upscale"], *OPTIONS)
    for made in (5, 0):
        code, out, err = run(*command)
        assert (code, len(err)) == (2, 4)
        for line, name in zip(err, ("bomb", "cut", "empty"), strict=False):
            assert line.startswith(f"latentdiff: error: photos/{name}.png ")
        assert err[-1] == "latentdiff: error: 3 of 8 files failed"
        assert len([line for line in out if line.endswith("seed 0")]) == made
        assert sorted(files(tmp_path / "out")) == [name.removeprefix("out/") for name in MADE]


def test_a_file_that_does_not_fit_the_model_is_reported(run, models, tmp_path):
    (tmp_path / "layouts").mkdir()
    for name in ("dog", "dgo", "cat"):
        content = {"objects": [{"class": name, "box": [0, 0, 1, 1]}]}
        (tmp_path / f"layouts/{name}.json").write_text(json.dumps(content))
    (tmp_path / "layouts/list.json").write_text("[]")
    code, out, err = run("layout", "layouts", "-o", "out", "--model", models["layout"], *OPTIONS)
    assert (code, len(out)) == (2, 2)
    assert err[0].startswith("latentdiff: error: layouts/dgo.json: unknown class 'dgo'; did you mean 'dog'")
    assert err[1].startswith("latentdiff: error: layouts/list.json is other JSON than needed")
    assert err[2:] == ["latentdiff: error: 2 of 4 files failed"]


def test_a_missing_mask_is_reported(run, models, photos, tmp_path):
    for name, size in (("a.png", (12, 10)), ("b.png", (8, 8)), ("sub/c.png", (8, 8)), ("e.png", (9, 8))):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 255).save(tmp_path / "masks" / name)
    command = ("inpaint", "photos", "--mask", "masks", "-o", "out", "--model", models["inpaint"], *OPTIONS)
    code, out, err = run(*command)
    assert (code, len(out)) == (2, 3)
    assert err[0].startswith("latentdiff: error: photos/e.png: mask masks/e.png is 9x8 pixels, the image 8x8")
    assert err[1].startswith("latentdiff: error: photos/sub/deep/d.bmp: masks holds no sub/deep/d.bmp for it")
    assert read_parameters("out/sub/c.png")["mask"] == "c.png"


def test_masks_inside_the_folder_of_images_are_no_images(run, models, photos, tmp_path):
    for name, size in (("a", (12, 10)), ("b", (8, 8)), ("e", (8, 8)), ("sub/c", (8, 8)), ("sub/deep/d", (8, 8))):
        (photos / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 255).save(photos / "masks" / f"{name}.png")
    command = ("inpaint", "photos", "--mask", "photos/masks", "-o", "out", "--model", models["inpaint"], *OPTIONS)
    code, out, err = run(*command)
    assert (code, err, sorted(line.split("\t")[0] for line in out)) == (0, [], MADE)


def test_an_image_that_is_too_large_is_reported(run, models, photos, tmp_path, monkeypatch):
    free = type("Memory", (), {"available": 1_000_000})
    noise_image(photos / "large.png", (64, 64))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    code, out, err = run("upscale", "photos", "-o", "out", "--model", models["upscale"], *OPTIONS)
    assert (code, len(out)) == (2, 5)
    assert err[0].startswith("latentdiff: error: photos/large.png: an image of 128x128 needs about")


def start(command, folder, rank, count=2):
    """The command as one of an array of jobs."""
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    return Forked(lambda: main([*map(str, command)]), folder, environment)


@pytest.mark.thorough
def test_two_processes_make_the_files_of_one(run, models, tmp_path):
    options = ("--model", models["class"], "--steps", 2, "-n", 7, "--batch-size", 2)
    results = all_ended([start(("sample", *options, "-o", "two"), tmp_path, rank) for rank in (0, 1)])
    alone, _, _ = run("sample", *options, "-o", "one")
    assert (alone, [process.returncode for process in results]) == (0, [0, 0])
    shares = [[line.split("\t")[0] for line in process.stdout.splitlines()] for process in results]
    assert [len(share) for share in shares] == [4, 3]
    assert not set(shares[0]) & set(shares[1])
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert len(files(tmp_path / "one")) == 7


@pytest.fixture
def half_bad(photos):
    """All that the first of two processes has to do is bad; the second takes much longer."""
    for number in range(5):
        (photos / f"0{number}.png").write_bytes(b"")


@pytest.mark.thorough
def test_a_process_with_bad_files_waits_for_the_others(run, models, half_bad, tmp_path):
    """Else a launcher would stop them."""
    options = ("--model", models["upscale"], "--batch-size", 5, "--steps", 100, "--seed", 0)
    first, second = launched(lambda: main([*map(str, ("upscale", "photos", "-o", "two", *options))]), folder=tmp_path)
    done = first.ended()
    assert done.returncode != 0 and "latentdiff: error: 5 of 5 files failed" in done.stderr
    made = files(tmp_path / "two")
    alone, _, _ = run("upscale", "photos", "-o", "one", *options)
    assert (alone, len(made)) == (2, 5) and made == files(tmp_path / "one")
    assert second.ended().returncode == 0


@pytest.mark.slow
def test_a_launcher_does_not_stop_the_others_for_bad_files(run, models, half_bad, tmp_path):
    """The launcher is the one that `accelerate launch` runs for several devices."""
    options = ("--model", models["upscale"], "--batch-size", 5, "--steps", 300, "--seed", 0)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    argv = [sys.executable, *map(str, (*launch, "-m", "latentdiff", "upscale", "photos", "-o", "two", *options))]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "latentdiff: error: 5 of 5 files failed" in done.stderr
    alone, _, _ = run("upscale", "photos", "-o", "one", *options)
    assert (alone, len(files(tmp_path / "one"))) == (2, 5)
    assert files(tmp_path / "two") == files(tmp_path / "one")


def test_processes_need_a_seed_and_make_no_grid(fails, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    fails("--seed is missing; several processes need one to agree on", "generate", "a dog", "--model", "x")
    fails("--grid is given to several processes", "generate", "a dog", "--model", "x", "--seed", 0, "--grid")
    monkeypatch.setenv("WORLD_SIZE", "two")
    fails("the environment variable WORLD_SIZE is 'two'", "generate", "a dog", "--model", "x")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_the_whole(monkeypatch, count):
    monkeypatch.setenv("WORLD_SIZE", str(count))
    shares = []
    for rank in range(count):
        monkeypatch.setenv("RANK", str(rank))
        shares += processes.share(range(7))
    assert sorted(shares) == list(range(7))


def test_links_to_folders_are_followed_once_and_loops_end(run, models, photos, tmp_path):
    """Real folders come before links, so a file has one name, and a link to a folder around all of them is none."""
    noise_image(tmp_path / "elsewhere" / "x.png", seed=7)
    noise_image(tmp_path / "elsewhere" / "beside.png", seed=8)
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "again").symlink_to(tmp_path / "elsewhere")
    (photos / "a loop").symlink_to(photos)
    (photos / "sub" / "up").symlink_to(tmp_path)
    (photos / "a copy of sub").symlink_to(photos / "sub")
    code, _, err = run("upscale", "photos", "-o", "out", "--model", models["upscale"], *OPTIONS)
    assert (code, err) == (0, [])
    assert sorted(files(tmp_path / "out")) == sorted(
        [*(name.removeprefix("out/") for name in MADE), "again/beside.png", "again/x.png"]
    )


def test_a_pipe_in_a_folder_is_one_line_and_the_others_are_made(run, models, photos, tmp_path):
    os.mkfifo(photos / "c.png")
    code, out, err = run("upscale", "photos", "-o", "out", "--model", models["upscale"], *OPTIONS)
    assert code == 2 and sorted(line.split("\t")[0] for line in out) == MADE
    assert err[0].startswith("latentdiff: error: photos/c.png cannot be read as an image (it is a pipe")
    assert err[1:] == ["latentdiff: error: 1 of 6 files failed"]


@pytest.mark.parametrize("option", ["--prompts", "--palette", "layout"])
def test_a_pipe_in_place_of_a_text_is_one_line(fails, models, tmp_path, option):
    os.mkfifo(tmp_path / "pipe.json")
    noise_image(tmp_path / "map.png")
    argv = {
        "--prompts": ["generate", "--prompts", "pipe.json", "--model", models["generate"]],
        "--palette": ["semantic", "map.png", "--palette", "pipe.json", "--model", models["semantic"]],
        "layout": ["layout", "pipe.json", "--model", models["layout"], "-o", "out"],
    }
    fails("pipe.json cannot be read", *argv[option])


def test_names_of_any_bytes(run, models, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    noise_image(tmp_path / "photos" / name)
    code, out, err = run("upscale", "photos", "-o", "out", "--model", models["upscale"], *OPTIONS)
    assert (code, err) == (0, []) and out == ["out/caf\\udce9.png\tseed 0"]
    assert read_parameters(tmp_path / "out" / name)["image"] == name
    for suffix in ("jpg", "webp"):
        assert run("upscale", f"photos/{name}", "-o", f"a.{suffix}", "--model", models["upscale"], *OPTIONS)[0] == 0
        assert read_parameters(f"a.{suffix}")["image"] == name


def test_a_mask_painted_on_a_transparent_layer(run, models, tmp_path):
    """The command fills what is painted, as with the same mask on black; an erased photo is refused in one line."""
    noise_image(tmp_path / "a.png", (16, 16))
    layer, black = Image.new("RGBA", (16, 16)), Image.new("L", (16, 16))
    layer.paste((255, 255, 255, 255), (4, 4, 12, 12))
    black.paste(255, (4, 4, 12, 12))
    layer.save(tmp_path / "layer.png")
    black.save(tmp_path / "black.png")
    options = ("--model", models["inpaint"], "--steps", 2, "--seed", 0)
    for mask in ("layer", "black"):
        assert run("inpaint", "a.png", "--mask", f"{mask}.png", "-o", f"{mask}-out.png", *options)[0] == 0
    with Image.open("layer-out.png") as one, Image.open("black-out.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    with Image.open("a.png") as photo:
        erased = photo.convert("RGBA")
    erased.paste((0, 0, 0, 0), (4, 4, 12, 12))
    erased.save(tmp_path / "erased.png")
    code, out, err = run("inpaint", "a.png", "--mask", "erased.png", "-o", "c.png", *options)
    assert (code, out, len(err)) == (2, [], 1)
    assert "mask erased.png is transparent in part, and it isn't clear what is to be filled" in err[0]


OTHERS = (["--scheduler", "euler"], ["--steps", 3], ["--dtype", "bfloat16"], ["--model", "m2", "--eta", 0.5])


@pytest.mark.parametrize("other", OTHERS)
def test_images_of_other_options_are_not_counted_as_made(run, models, tmp_path, other):
    """Neither are those of the default where another was given; how much is computed at once makes no difference."""
    shutil.copytree(models["sample"], tmp_path / "m2")
    command = ["sample", "--model", models["sample"], "--steps", 2, "-n", 2, "-o", "out"]
    for first, second in ((command, [*command, *other]), ([*command, *other], command)):
        assert run(*first)[0] == 0
        before = files(tmp_path / "out")
        code, out, err = run(*second)
        assert (code, out, len(err)) == (2, [], 1)
        assert "out/000000.png was made of another model, input or options" in err[0]
        assert files(tmp_path / "out") == before
        assert run(*first, "--batch-size", 1, "--device", "cpu") == (0, ["out: 0 made, 2 existed already"], [])
        assert run(*second, "--overwrite")[0] == 0
        assert files(tmp_path / "out") != before
        shutil.rmtree(tmp_path / "out")


def test_images_of_weights_that_were_trained_again_are_not_mixed(run, models, tmp_path, capsys):
    """A copy is the same model, whatever the times of its files."""
    shutil.copytree(models["sample"], tmp_path / "m", copy_function=shutil.copyfile)
    command = ["sample", "--model", "m", "--steps", 2, "-o", "out", "-n"]
    assert run(*command, 1)[0] == 0
    shutil.rmtree(tmp_path / "m")
    shutil.copytree(models["sample"], tmp_path / "m", copy_function=shutil.copyfile)
    assert run(*command, 2)[1][-1] == "out: 1 made, 1 existed already"
    pipe = DiffusionPipeline.from_pretrained("m")
    with torch.no_grad():
        pipe.unet.conv_out.bias += 0.1
    pipe.save_pretrained("m")
    capsys.readouterr()
    before = files(tmp_path / "out")
    code, out, err = run(*command, 3)
    assert (code, out, len(err)) == (2, [], 1)
    assert "out/000000.png was made of another model, input or options" in err[0]
    assert files(tmp_path / "out") == before


def test_more_images_of_the_same_options_join_those_that_exist(run, models, tmp_path):
    command = ["sample", "--model", models["sample"], "--steps", 2, "-o", "out", "-n"]
    assert run(*command, 2)[0] == 0
    (tmp_path / "out" / "000002.png").write_text("a user's own")
    assert run(*command, 4)[1] == ["out/000003.png\tseed 3", "out: 1 made, 3 existed already"]


def test_classes_and_prompts_are_told_apart(run, models, tmp_path):
    command = ["sample", "--model", models["class"], "--steps", 1, "-n", 2, "-o", "out"]
    assert run(*command, "--label", "dog")[0] == 0
    assert run(*command, "--label", "cat")[0] == 2 and run(*command)[0] == 2
    long = "green " * 7  # of which the names of files have a part
    command = ["generate", "--model", models["generate"], "--steps", 1, "--seed", "0-1", "-o", "texts"]
    assert run(*command, f"{long}dog")[0] == 0
    assert run(*command, f"{long}dog", "a dog")[1][-1] == "texts: 2 made, 2 existed already"
    assert run(*command, f"{long}cat")[0] == 2
