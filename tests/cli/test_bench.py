"""`latentdiff bench`: tables on the terminal and in files, options that don't go together."""

import json

import numpy as np
import pytest
from PIL import Image
from small_features import SmallFeatures
from tiny import WORDS

from latentdiff.bench import flops
from latentdiff.registry import FEATURE_EXTRACTORS


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(flops, "SIDES", (16,))
    monkeypatch.setattr(flops, "CHANNELS", (2,))
    monkeypatch.setitem(FEATURE_EXTRACTORS._entries, "small", SmallFeatures)


@pytest.fixture
def reference(tmp_path):
    (tmp_path / "train").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for number, word in enumerate(WORDS[5:9]):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "train" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": word}))
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(lines))
    return "train"


@pytest.mark.thorough
def test_everything_as_text_json_markdown_and_picture(run, tmp_path, text_model, reference):
    files = ("--json", "o.json", "--markdown", "o.md", "--plot", "o.png")
    table = ("--reference", reference, "--features", "small", "--count", 4, "--target", "ddim:4", "--cache", "cache")
    command = (
        "bench",
        text_model,
        "--solvers",
        "ddim,euler",
        "--steps",
        "2,3",
        "--rounds",
        1,
        "--against",
        "diffusers",
    )
    code, out, err = run(*command, *table, *files)
    assert (code, err) == (0, [])
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["facts"]["solver"] == "ddim" and report["facts"]["steps"] == 3
    assert report["facts"]["guidance_scale"] == 5.0 and report["speed"]["load_seconds"] > 0
    assert report["against"]["pipeline"] == "StableDiffusionPipeline" and report["against"]["difference"] < 1e-4
    cells = report["quality"]["cells"]
    assert [(cell["solver"], cell["steps"]) for cell in cells] == [("ddim", 2), ("ddim", 3), ("euler", 2), ("euler", 3)]
    row = f"{cells[0]['distance']:.5g} {cells[1]['distance']:.5g}"
    assert any(" ".join(line.split()) == f"ddim {row}" for line in out)
    assert f"| ddim | {row.replace(' ', ' | ')} |" in (tmp_path / "o.md").read_text()
    assert any("the fewest steps that reach it" in line for line in out)
    with Image.open(tmp_path / "o.png") as picture:
        assert picture.width > 500
    assert sorted(path.name for path in (tmp_path / "bench").glob("*-*") if path.is_dir()) == [
        "ddim-2", "ddim-3", "ddim-4", "euler-2", "euler-3",
    ]  # fmt: skip
    again = run("bench", text_model, "--solvers", "ddim", "euler", "--steps", 2, 3, *table, "--json", "2.json")
    assert again[0] == 0 and json.loads((tmp_path / "2.json").read_text())["quality"] == report["quality"]


@pytest.mark.thorough
def test_the_speed_of_a_model_alone(run, models):
    code, out, err = run(
        "bench", models["class"], "--steps", 3, "--rounds", 1, "--batch-size", 2, "--dtype", "bfloat16"
    )
    assert (code, err) == (0, []) and "ddim 3 steps, bfloat16" in out[0]
    assert any(line.startswith("samples a second, 2 at once") for line in out)
    assert any(line.startswith("class embedder, keys of the context") for line in out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 1), "steps is 1; the seconds of a step are those of all but the first, give 2"),
        (("--steps", 1001), "steps is 1001; it must be an integer from 1 to 1000"),
        (
            ("--steps", "5,x"),
            "--steps: '5,x' is given; it must be integers of at least 1, separated by commas or blanks",
        ),
        (("--steps", "5,0"), "it must be integers of at least 1"),
        (("--solvers", "dimm"), "--solvers: 'dimm' is given; did you mean 'ddim'"),
        (("--steps", "5,10"), "several numbers of steps: that is for the table of quality, which needs a reference"),
        (("--solvers", "ddim,euler"), "several solvers: that is for the table of quality, which needs a reference"),
        (("--count", 4), "--count is for the table of quality, which needs --reference DATA"),
        (("--target", "ddim:9"), "--target is for the table of quality, which needs --reference DATA"),
        (("--plot", "p.png"), "--plot is for the table of quality, which needs --reference DATA"),
        (("--reference", "train"), "--count is missing; say how many images"),
        (("--reference", "nowhere", "--count", 4), "nowhere"),
        (("--against", "torch"), "--against: 'torch' is given; known: diffusers"),
        (("--guidance-scale", 2), "--guidance-scale is 2, but this model has no condition to drop; leave it out"),
        (("--against", "diffusers"), "diffusers has no network of these weights (UNet2DModel has heads of one width"),
        (("--revision", "main"), "--revision is 'main', but"),
        (("--device", "gpu"), "device 'gpu' cannot be used"),
    ],
)
def test_what_does_not_go_together_is_one_line(fails, unconditional_model, words, message):
    fails(message, "bench", unconditional_model, *words)


def test_a_folder_with_other_files_is_no_place_for_samples(fails, text_model, reference):
    table = ("--reference", reference, "--features", "small", "--count", 4)
    fails("train is no folder, or has other files; choose another --samples-dir", "bench", text_model, *table,
          "--samples-dir", "train")  # fmt: skip


def test_a_model_that_is_not_there(fails):
    fails("unknown model 'nowhere'", "bench", "nowhere")


def test_several_processes_are_refused(fails, monkeypatch, unconditional_model):
    monkeypatch.setenv("WORLD_SIZE", "2")
    fails("bench measures one process; 2 are started, start one", "bench", unconditional_model)
