"""`latentdiff evaluate`: numbers on the terminal and in files, presets, models that are sampled first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from latentdiff.evaluation.image_sets import open_images
from latentdiff.evaluation.protocols import PRESETS

pytest.importorskip("efficientnet_lite_pytorch")
FEATURES = ("--features", "efficientnet_lite0", "--cache", "cache")


def make(folder, count, seed=0, size=16):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")


@pytest.mark.thorough
def test_samples_as_text_json_markdown_and_model_index(run, tmp_path):
    make(tmp_path / "fake", 6, 1), make(tmp_path / "real", 5, 2)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    files = ("--json", "o.json", "--markdown", "o.md", "--card", "README.md", "--dataset", "owner/set")
    code, out, err = run("evaluate", "samples", "fake", "real", *FEATURES, *files)
    name = "frechet[efficientnet_lite0, bicubic-antialias, 6, real]"
    assert code == 0 and out[0].startswith(name) and not any("fid" in line for line in out)
    assert len(err) == 1 and "frechet is of 5 images and 1280 features, and too high" in err[0]
    report = json.loads((tmp_path / "o.json").read_text())
    first = report["results"][0]
    assert (first["name"], first["metric"]) == (name, "frechet") and f"{first['value']:.6g}" in out[0]
    assert report["facts"]["reference_count"] == 5 and "kid left out" in report["notes"][0]
    assert f"| {name} | {first['value']:.6g} |" in (tmp_path / "o.md").read_text()
    metadata = yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])
    (result,) = metadata["model-index"][0]["results"]
    assert metadata["license"] == "mit" and result["dataset"]["type"] == "owner/set"
    assert {"type": "frechet", "value": first["value"], "name": name}.items() <= result["metrics"][0].items()
    code, again, _ = run("evaluate", "samples", "fake", "real", *FEATURES, *files)
    assert (code, again) == (0, out)
    assert (tmp_path / "README.md").read_text().count(name) == 1


@pytest.mark.thorough
def test_a_model_is_sampled_first_and_goes_on_where_it_stopped(run, fails, tmp_path, unconditional_model):
    make(tmp_path / "real", 5, 2)
    command = ("evaluate", "samples", unconditional_model, "real", *FEATURES, "--metrics", "frechet", "--steps", 2)
    code, out, _ = run(*command, "--count", 4, "--samples-dir", "made")
    assert code == 0 and out[0].startswith("frechet[efficientnet_lite0, bicubic-antialias, 4, real]")
    assert sorted(path.name for path in (tmp_path / "made").glob("*.png")) == [f"{n:06d}.png" for n in range(4)]
    before = (tmp_path / "made" / "000001.png").stat().st_mtime_ns
    (tmp_path / "made" / "000002.png").unlink()
    assert run(*command, "--count", 4, "--samples-dir", "made")[1] == out
    assert (tmp_path / "made" / "000001.png").stat().st_mtime_ns == before
    fails("has samples with steps 2, but this run has 3", *command[:-1], 3, "--count", 4, "--samples-dir", "made")
    fails("has other files; choose another --samples-dir", *command, "--count", 4, "--samples-dir", "real")
    fails("--count is missing", *command)
    code, _, err = run("evaluate", "samples", "builtin:emoji", "real", *FEATURES, "--count", 4, "--samples-dir", "new")
    assert code == 2 and "builtin:emoji has TextToImagePipeline, which latentdiff generate uses" in err[0]
    assert run(*command, "--count", 4, "--samples-dir", "new")[1] == out
    fails("--num-images is given; here --count", *command, "--count", 4, "-n", 5)


@pytest.mark.thorough
def test_the_folder_of_a_run_is_sampled_as_the_model_that_it_made(run, fails, tmp_path, unconditional_model):
    make(tmp_path / "real", 5, 2), (tmp_path / "runs").mkdir()
    shutil.copytree(unconditional_model, tmp_path / "runs" / "x" / "pipeline")
    (tmp_path / "runs" / "x" / "log.jsonl").write_text("{}\n")
    make(tmp_path / "runs" / "x" / "validation", 6, 3)  # pictures of the run, no samples
    command = ("real", *FEATURES, "--metrics", "frechet")
    model = ("--steps", 2, "--count", 4, "--samples-dir")
    expected = run("evaluate", "samples", unconditional_model, *command, *model, "a")[:2]
    assert run("evaluate", "samples", "runs/x", *command, *model, "b")[:2] == expected and expected[0] == 0
    fails("--count is missing", "evaluate", "samples", "runs/x", *command)
    code, out, _ = run("evaluate", "first-stage", "runs/x", "real", "--metrics", "psnr")
    assert code == 0 and out[0].startswith("psnr[5, real]")
    shutil.rmtree(tmp_path / "runs" / "x" / "pipeline")
    fails("runs/x is a training run without pipeline/; give one that has it", "evaluate", "samples", "runs/x", *command)


@pytest.mark.thorough
def test_two_processes_of_torchrun_give_the_numbers_of_one(run, tmp_path, unconditional_model):
    make(tmp_path / "real", 5, 2)
    command = ("evaluate", "samples", unconditional_model, "real", "--features", "efficientnet_lite0", "--steps", "2")
    command = (*command, "--metrics", "frechet", "--count", "4", "--batch-size", "2", "--device", "cpu")
    code, out, _ = run(*command, "--cache", "one", "--samples-dir", "made1", "--json", "one.json")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    rest = ["--cache", "two", "--samples-dir", "made2", "--json", "two.json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([*launcher, "-m", "latentdiff", *command, *rest], cwd=tmp_path, env=environment,
                         capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert (code, ran.returncode) == (0, 0), ran.stderr
    assert ran.stdout.splitlines() == out
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["results"] == two["results"]


@pytest.mark.thorough
def test_the_last_job_of_an_array_gives_the_numbers(run, tmp_path, monkeypatch):
    make(tmp_path / "fake", 6, 1), make(tmp_path / "real", 5, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ("evaluate", "samples", "fake", "real", *FEATURES, "--metrics", "frechet")
    monkeypatch.setenv("RANK", "1")
    code, out, _ = run(*command)
    assert code == 0 and "1 parts of the features are still missing" in out[0]
    monkeypatch.setenv("RANK", "0")
    assert run(*command)[1][0].startswith("frechet[efficientnet_lite0")


@pytest.mark.thorough
def test_first_stage(run, tmp_path, unconditional_model):
    make(tmp_path / "data", 5)
    code, out, _ = run("evaluate", "first-stage", unconditional_model, "data", *FEATURES, "-o", "made")
    assert code == 0 and [line.split("[")[0] for line in out[:3]] == ["rfrechet", "psnr", "ssim"]
    assert len(list((tmp_path / "made").glob("*.png"))) == 5


def test_pairs(run, fails, tmp_path):
    make(tmp_path / "a", 3), make(tmp_path / "b", 3, 1), make(tmp_path / "c", 4, 1)
    code, out, err = run("evaluate", "pairs", "a", "b", "--preset", "super-resolution", "--json", "o.json")
    assert (code, err) == (0, []) and [line.split("[")[0] for line in out] == ["psnr", "ssim"]
    assert json.loads((tmp_path / "o.json").read_text())["facts"]["preset"] == "super-resolution"
    fails("a has 3 images, c 4; pairs need as many of both", "evaluate", "pairs", "a", "c")
    fails("preset inpainting needs --masks", "evaluate", "pairs", "a", "b", "--preset", "inpainting")


def test_wrong_command_lines_are_one_line(fails, tmp_path):
    make(tmp_path / "a", 3)
    (tmp_path / "file").write_text("")
    samples = ("evaluate", "samples", "a", "a")
    fails("--steps is given, but a is sampled already", *samples, "--steps", 3)
    fails("unknown preset 'uncond'; did you mean 'unconditional'", *samples, "--preset", "uncond")
    fails("evaluates pairs, not samples", *samples, "--preset", "inpainting")
    fails("--count is given, but the preset (table 1) fixes it", *samples, "--preset", "unconditional", "--count", 9)
    fails("50000 images of a are asked for; it has 3", *samples, "--preset", "unconditional", *FEATURES)
    fails("--card and --dataset go together", *samples, "--card", "README.md")
    fails("README.md cannot be read as a model card", *samples, "--card", "README.md", "--dataset", "x")
    fails("cannot write file/o.json", *samples, "--json", "file/o.json")
    fails("unknown metric 'fdi'; did you mean 'fid'", *samples, "--metrics", "fdi", *FEATURES)
    fails("no folder of a CLIP is given", *samples, "--metrics", "cmmd", *FEATURES)
    fails("required: COMMAND", "evaluate")


def test_every_preset_computes_what_it_names():
    known = {"samples": {"fid", "sfid", "is", "precision", "recall"}, "pairs": {"psnr", "ssim", "lpips"},
             "first-stage": {"rfid", "psnr", "psim", "ssim"}}  # fmt: skip
    assert all(set(preset.metrics) <= known[preset.evaluates] for preset in PRESETS.values())


def test_importing_the_commands_imports_no_torch():
    code = "import sys, latentdiff.cli.commands.evaluate; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_images_of_a_folder_keep_their_pixels(tmp_path):
    make(tmp_path / "a", 2)
    pixels = open_images(tmp_path / "a").pixels(1)
    assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "a" / "001.png")))
