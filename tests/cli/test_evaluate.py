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
from forked import all_ended, launched
from PIL import Image
from small_features import SmallFeatures
from tiny import WORDS

from latentdiff.cli.commands import EVALUATE_COMMANDS
from latentdiff.cli.main import main
from latentdiff.evaluation.image_sets import open_images
from latentdiff.evaluation.protocols import PRESETS
from latentdiff.io.generated import read_parameters
from latentdiff.registry import FEATURE_EXTRACTORS

FEATURES = ("--features", "small", "--cache", "cache")

REAL = ("--features", "efficientnet_lite0", "--cache", "cache")


@pytest.fixture(autouse=True)
def small_features(monkeypatch):
    """A small extractor by the name "small", since a network for photos takes most of a test's time."""
    monkeypatch.setitem(FEATURE_EXTRACTORS._entries, "small", SmallFeatures)


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
    name = "frechet[small, none, 6, real]"
    assert code == 0 and out[0].startswith(name) and not any("fid" in line for line in out)
    assert len(err) == 2 and "frechet is of 5 images and 6 features, and too high" in err[0]
    assert "frechet_spatial is of 5 images and 8 features, and too high" in err[1]
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
    card = (tmp_path / "README.md").read_text()
    assert card.count(f"name: {name}") == card.count(f"| {name} | {first['value']:.6g} | owner/set |") == 1
    assert card.count("## Evaluation") == 1 and card.count(name) == 2 and "# A model\n" in card


@pytest.mark.thorough
def test_a_model_is_sampled_first_and_goes_on_where_it_stopped(run, fails, tmp_path, unconditional_model):
    make(tmp_path / "real", 5, 2)
    command = ("evaluate", "samples", unconditional_model, "real", *FEATURES, "--metrics", "frechet", "--steps", 2)
    code, out, _ = run(*command, "--count", 4, "--samples-dir", "made")
    assert code == 0 and out[0].startswith("frechet[small, none, 4, real]")
    assert sorted(path.name for path in (tmp_path / "made").glob("*.png")) == [f"{n:06d}.png" for n in range(4)]
    before = (tmp_path / "made" / "000001.png").stat().st_mtime_ns
    (tmp_path / "made" / "000002.png").unlink()
    assert run(*command, "--count", 4, "--samples-dir", "made")[1] == out
    assert (tmp_path / "made" / "000001.png").stat().st_mtime_ns == before
    fails("has samples with steps 2, but this run has 3", *command[:-1], 3, "--count", 4, "--samples-dir", "made")
    fails("has other files; choose another --samples-dir", *command, "--count", 4, "--samples-dir", "real")
    fails("--count is missing", *command)
    text = ("evaluate", "samples", "builtin:emoji", "real", *FEATURES, "--count", 4, "--samples-dir", "new")
    fails("builtin:emoji shows captions, of which real has none; give --conditions DATA that has some", *text)
    lacking = ("evaluate", "samples", unconditional_model, "real", "--features", "inception:none.pth", "--count", 4)
    fails("none.pth cannot be read (No such file or directory); give a file of weights", *lacking)
    fails("absent is not a folder", *lacking[:3], "absent", *FEATURES, "--count", 4)  # and nothing was sampled for it
    fails("is unconditional and has no use for --conditions", *command, "--count", 4, "--conditions", "real")
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
def test_two_processes_that_know_of_one_another_give_the_numbers_of_one(run, tmp_path, unconditional_model):
    make(tmp_path / "real", 5, 2)
    command = ("evaluate", "samples", unconditional_model, "real", "--features", "small", "--steps", "2")
    command = (*command, "--metrics", "frechet", "--count", "4", "--batch-size", "2", "--device", "cpu")
    code, out, _ = run(*command, "--cache", "one", "--samples-dir", "made1", "--json", "one.json")
    rest = ["--cache", "two", "--samples-dir", "made2", "--json", "two.json"]
    ran = all_ended(launched(lambda: main([*command, *rest]), folder=tmp_path))
    assert [code, *(process.returncode for process in ran)] == [0, 0, 0], ran
    assert [line for process in ran for line in process.stdout.splitlines()] == out
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
    assert one["results"] == two["results"]


@pytest.mark.thorough
def test_the_last_job_of_an_array_gives_the_numbers(run, tmp_path, monkeypatch):
    make(tmp_path / "fake", 6, 1), make(tmp_path / "real", 5, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ("evaluate", "samples", "fake", "real", *FEATURES, "--metrics", "frechet")
    monkeypatch.setenv("RANK", "1")
    code, out, _ = run(*command)
    assert code == 0 and "features are still missing" in out[0]
    monkeypatch.setenv("RANK", "0")
    assert run(*command)[1][0].startswith("frechet[small")


@pytest.mark.thorough
def test_the_last_job_of_an_array_goes_on_with_samples_and_reconstructions(
    run, tmp_path, monkeypatch, unconditional_model
):
    make(tmp_path / "real", 9, 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    samples = ("evaluate", "samples", unconditional_model, "real", *FEATURES, "--metrics", "frechet", "--steps", 1)
    stage = ("evaluate", "first-stage", unconditional_model, "real", *FEATURES, "--metrics", "rfrechet")
    for command, told, name in (
        ((*samples, "--count", 4, "--batch-size", 2), "2 samples are still missing", "frechet["),
        (stage, "8 reconstructions are still missing", "rfrechet["),
    ):
        monkeypatch.setenv("RANK", "1")
        code, out, _ = run(*command)
        assert code == 0 and told in out[0]
        monkeypatch.setenv("RANK", "0")
        assert run(*command)[1][0].startswith(name)


@pytest.mark.slow
def test_two_processes_of_torchrun_share_captions_reconstructions_and_neighbours(run, tmp_path, text_model):
    pytest.importorskip("efficientnet_lite_pytorch")
    make(tmp_path / "real", 12, 2)
    lines = [{"file_name": f"{number:03d}.png", "text": f"a {word}"} for number, word in enumerate(3 * WORDS[-4:])]
    (tmp_path / "real" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shared = ("--features", "efficientnet_lite0", "--device", "cpu")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words, folder in (
        (("neighbours", text_model, "real", "--steps", "1", "--batch-size", "2", "-k", "2"), "--samples-dir"),
        (("first-stage", text_model, "real", "--metrics", "rfrechet", "psnr"), "--output"),
    ):
        command = ("evaluate", *words, *shared)
        single = ("--cache", "one", folder, f"one{folder}", "--json", "one.json")
        several = ["--cache", "two", folder, f"two{folder}", "--json", "two.json"]
        pictures = [["-o", name] if words[0] == "neighbours" else [] for name in ("one.png", "two.png")]
        assert run(*command, *single, *pictures[0])[0] == 0
        ran = subprocess.run([*launcher, "-m", "latentdiff", *command, *several, *pictures[1]], cwd=tmp_path,
                             env=environment, capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        one, two = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "two.json"))
        assert one["results"] == two["results"]
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.thorough
def test_first_stage(run, tmp_path, unconditional_model):
    make(tmp_path / "data", 5)
    code, out, _ = run("evaluate", "first-stage", unconditional_model, "data", *FEATURES, "-o", "made")
    assert code == 0 and [line.split("[")[0] for line in out[:3]] == ["rfrechet", "psnr", "ssim"]
    assert len(list((tmp_path / "made").glob("*.png"))) == 5


CONDITIONED = ("--features", "small", "--cache", "cache", "--metrics", "frechet", "--steps", 1)


@pytest.mark.thorough
def test_a_text_model_shows_the_captions_of_the_reference(run, fails, tmp_path, text_model):
    make(tmp_path / "real", 3, 2)
    texts = ["a red apple", "a blue star", "a green pear " + 20 * "big "]  # the last one is too long, and cut
    lines = [{"file_name": f"{number:03d}.png", "text": [text, "a dog"]} for number, text in enumerate(texts)]
    (tmp_path / "real" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ("evaluate", "samples", text_model, "real", *CONDITIONED)
    code, out, _ = run(*command)
    assert code == 0 and out[0].startswith("frechet[small, none, 3, real]")
    written = [json.loads(line) for line in (tmp_path / "samples" / "metadata.jsonl").read_text().splitlines()]
    assert written == [{"file_name": f"{number:06d}.png", "text": text} for number, text in enumerate(texts)]
    before = [path.stat().st_mtime_ns for path in sorted((tmp_path / "samples").iterdir())]
    assert run(*command)[1] == out  # nothing is made twice
    assert [path.stat().st_mtime_ns for path in sorted((tmp_path / "samples").iterdir())] == before
    (tmp_path / "real" / "metadata.jsonl").write_text("\n".join(map(json.dumps, reversed(lines))))
    fails("has samples with conditions", *command)
    prompt = ("--steps", 1, "--seed", 1, "--model", text_model, "-o", "alone.png")
    assert run("generate", "a blue star", *prompt)[0] == 0
    alone, made = (np.asarray(Image.open(tmp_path / name)) for name in ("alone.png", "samples/000001.png"))
    assert np.abs(alone.astype(int) - made).max() <= 1
    fails("the preset takes 30000 conditions; real has 3", "evaluate", "samples", text_model, "real",
          "--preset", "text-to-image", "--features", "small", "--samples-dir", "new")  # fmt: skip


@pytest.mark.thorough
def test_prompts_of_a_file_are_shown_in_turn(run, fails, tmp_path, text_model):
    make(tmp_path / "real", 3, 2)
    (tmp_path / "prompts.txt").write_text("a red apple\n# a comment\na dog\n")
    (tmp_path / "odd.txt").write_text("a red apple\nxyzzy\n")
    command = ("evaluate", "samples", text_model, "real", *CONDITIONED, "--conditions")
    code, out, _ = run(*command, "prompts.txt", "--count", 3)
    assert code == 0 and "[small, none, 3, real]" in out[0]
    lines = (tmp_path / "samples" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a red apple", "a dog", "a red apple"]
    code, out, err = run(*command, "odd.txt", "--samples-dir", "odd")
    assert code == 2 and "prompt 'xyzzy' has no word that the model's vocabulary knows" in err[-1]
    assert not list((tmp_path / "odd").glob("*.png"))  # found before the first image was made
    fails("real has none", *command, "real", "--samples-dir", "new")
    fails("--conditions is given, but real is sampled already", "evaluate", "samples", "real", "real", *CONDITIONED[:4],
          "--conditions", "prompts.txt")  # fmt: skip


@pytest.mark.thorough
def test_layouts_are_those_of_the_reference_and_classes_those_of_the_conditions(run, fails, tmp_path, models):
    make(tmp_path / "real", 3, 2)
    boxes = [[{"class": "dog", "box": [0, 0, 8, 8]}], [], [{"class": "cat", "box": [4, 0, 12, 16]}]]
    lines = [
        {"file_name": f"{number:03d}.png", "objects": objects, "label": label}
        for number, (objects, label) in enumerate(zip(boxes, ["dog", "cat", "dog"], strict=True))
    ]
    (tmp_path / "real" / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ("evaluate", "samples", models["layout"], "real", *CONDITIONED)
    code, out, _ = run(*command)
    assert code == 0 and "[small, none, 2, real]" in out[0]  # one has no objects
    shown = [read_parameters(path)["objects"] for path in sorted((tmp_path / "samples").glob("*.png"))]
    assert shown == [[{"class": "dog", "box": [0, 0, 0.5, 0.5]}], [{"class": "cat", "box": [0.25, 0, 1, 1]}]]
    of_classes = ("evaluate", "samples", models["class"], "real", *CONDITIONED, "--samples-dir", "classes")
    assert run(*of_classes, "--conditions", "real")[0] == 0
    labels = [read_parameters(path)["label"] for path in sorted((tmp_path / "classes").glob("*.png"))]
    assert labels == ["dog", "cat", "dog"]
    fails("has samples with conditions", *of_classes, "--count", 3)
    for name, told in (("upscale", "latentdiff upscale"), ("inpaint", "latentdiff inpaint")):
        fails(f"fill a folder with {told}, and evaluate that", "evaluate", "samples", models[name], "real",
              *CONDITIONED, "--samples-dir", "new", "--count", 2)  # fmt: skip


@pytest.mark.thorough
def test_neighbours_of_a_folder_and_of_a_model(run, fails, tmp_path, unconditional_model):
    make(tmp_path / "fake", 4, 1), make(tmp_path / "train", 6, 2)
    shutil.copy(tmp_path / "train" / "004.png", tmp_path / "fake" / "002.png")
    command = ("train", *FEATURES, "-k", 3, "--rows", 2)
    code, out, err = run("evaluate", "neighbours", "fake", *command, "--json", "o.json", "--markdown", "o.md")
    assert (code, err) == (0, [])
    assert [line.split("[")[0] for line in out[:3]] == ["memorisation", "distance_ratio_median", "copies"]
    assert out[3] == "note: 002.png has the ratio 0 to 004.png" and len(out) == 5
    assert out[2].split() == ["copies[small,", "none,", "4,", "train]", "1"]
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["facts"]["training_count"] == 6 and report["results"][0]["value"] >= 0.25
    assert "| copies[" in (tmp_path / "o.md").read_text()
    assert Image.open(tmp_path / "neighbours.png").width == 4 + 4 * 132
    fails("neighbours.png exists already; choose another --output", "evaluate", "neighbours", "fake", *command)
    fails("ends in .png", "evaluate", "neighbours", "fake", *command, "-o", "a.gif")
    fails("--count is missing", "evaluate", "neighbours", unconditional_model, *command, "-o", "b.png")
    model = ("--count", 3, "--steps", 1, "-o", "b.png")
    code, out, _ = run("evaluate", "neighbours", unconditional_model, *command, *model)
    assert code == 0 and out[0].startswith("memorisation[small, none, 3, train]")


@pytest.mark.thorough
def test_pairs(run, fails, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    make(tmp_path / "a", 3), make(tmp_path / "b", 3, 1), make(tmp_path / "c", 4, 1)
    sets = ("--metrics", "psnr", "ssim", "frechet", *REAL)
    code, out, err = run("evaluate", "pairs", "a", "b", *sets, "--json", "o.json")
    assert code == 0 and [line.split("[")[0] for line in out] == ["psnr", "ssim", "frechet"]
    assert len(err) == 1 and "frechet is of 3 images and 1280 features, and too high" in err[0]
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["facts"]["features"] == "efficientnet_lite0" and len(report["results"]) == 3
    fails("the features are efficientnet_lite0; fid and sfid are of the published Inception's", "evaluate", "pairs",
          "a", "b", "--preset", "super-resolution", *REAL)  # fmt: skip
    fails("a has 3 images, c 4; pairs need as many of both", "evaluate", "pairs", "a", "c")
    fails("preset inpainting needs --masks", "evaluate", "pairs", "a", "b", "--preset", "inpainting")


@pytest.mark.thorough
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
    known = {"samples": {"fid", "sfid", "is", "precision", "recall"}, "pairs": {"psnr", "ssim", "lpips", "fid", "is"},
             "first-stage": {"rfid", "psnr", "psim", "ssim"}}  # fmt: skip
    assert all(set(preset.metrics) <= known[preset.evaluates] for preset in PRESETS.values())


def test_importing_the_commands_imports_no_torch():
    commands = ", ".join(entry.partition(":")[0] for entry, _ in EVALUATE_COMMANDS.values())
    code = f"import sys, {commands}; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_images_of_a_folder_keep_their_pixels(tmp_path):
    make(tmp_path / "a", 2)
    pixels = open_images(tmp_path / "a").pixels(1)
    assert np.array_equal(pixels, np.asarray(Image.open(tmp_path / "a" / "001.png")))
