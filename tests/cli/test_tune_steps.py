"""`latentdiff tune-steps` for the models of all tasks, and what it refuses."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import CLASSES, tiny_text_super_resolution

FAST = ("--steps", 2, "--num-images", 2)


@pytest.fixture
def inputs(tmp_path):
    grey = np.tile(np.arange(8, dtype=np.uint8), (8, 1))
    for name, pixels in (("photos/a", 30 * grey), ("masks/a", 36 * grey), ("maps/a", grey // 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(7 * grey).resize((16, 16)).save(tmp_path / "photos" / "other.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"objects": [{"class": CLASSES[0], "box": [0, 0, 1, 1]}]}))
    (tmp_path / "prompts.txt").write_text("a red apple\na dog\nthe cat\n")


WORDS = {
    "generate": ["--prompts", "prompts.txt"],
    "sample": [],
    "class": ["--guidance-scale", 2],
    "layout": ["boxes.json"],
    "semantic": ["maps"],
    "upscale": ["photos/a.png"],
    "inpaint": ["photos/a.png", "--mask", "masks/a.png"],
}


@pytest.mark.thorough
@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize("command", WORDS)
def test_every_task(run, models, tmp_path, command):
    shutil.copytree(models[command], tmp_path / "model")
    code, out, err = run("tune-steps", "model", *WORDS[command], *FAST)
    assert (code, err) == (0, [])
    config = json.loads((tmp_path / "model" / "scheduler" / "scheduler_config.json").read_text())
    (tuned,) = config["_tuned_timesteps"]
    assert out[-2:] == [f"timesteps: {tuned['timesteps'][0]} {tuned['timesteps'][1]}", out[-1]]
    assert out[-1].endswith("scheduler_config.json")
    shown = {line.split(":")[0].strip(): float(line.split()[-1]) for line in out[1:5]}
    assert shown == {name: pytest.approx(value, abs=5e-5) for name, value in tuned["untuned"].items()}
    scales = {"generate": 5.0, "class": 2.0}
    assert tuned["guidance_scale"] == scales.get(command, 1.0)


@pytest.mark.thorough
@pytest.mark.usefixtures("inputs")
def test_files_take_prompts_in_turn(run, fails, tmp_path):
    model = tiny_text_super_resolution(tmp_path)
    words = ["tune-steps", model, "photos/a.png", *FAST]
    fails("takes prompts; give --prompts FILE", *words)
    assert run(*words, "--prompts", "prompts.txt")[0] == 0


@pytest.mark.thorough
def test_steps_that_were_tuned(run, fails, models, tmp_path):
    shutil.copytree(models["sample"], tmp_path / "model")
    words = ["sample", "--model", "model", "--num-images", 1]
    fails("--steps is 'tuned:2', but this model has no tuned timesteps", *words, "--steps", "tuned:2")
    assert run("tune-steps", "model", *FAST, "--scheduler", "deis")[0] == 0
    fails("tuned: DEISScheduler 2", *words, "--steps", "tuned:2")
    code, out, err = run(*words, "--steps", "tuned:2", "--scheduler", "deis", "-o", "images")
    assert (code, err) == (0, [])
    shown = run("info", out[0].split("\t")[0])[1]
    assert any("--steps tuned:2" in line for line in shown)


@pytest.mark.thorough
def test_a_copy(run, models, tmp_path):
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    code, out, _ = run("tune-steps", models["sample"], *FAST, "--scheduler", "deis", "-o", "copy")
    assert code == 0 and out[-1].startswith("copy")
    config = json.loads((tmp_path / "copy" / "scheduler" / "scheduler_config.json").read_text())
    assert (config["_class_name"], config["_tuned_timesteps"][0]["solver"]) == ("DDIMScheduler", "DEISScheduler")
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.thorough
@pytest.mark.usefixtures("inputs")
@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("sample", ["--prompts", "prompts.txt"], "is a model of the task unconditional and has no use for --prompts"),
        ("sample", ["photos"], "is a model of the task unconditional and has no use for PATH"),
        ("sample", ["--guidance-scale", 2], "has no use for --guidance-scale"),
        ("sample", ["--scheduler", "ddpm"], "DDPMScheduler adds noise"),
        ("sample", ["--steps", 1], "--steps is 1; steps are tuned for 2 to 40"),
        ("sample", ["--steps", "tuned:2"], "--steps: 'tuned:2' is given; it must be an integer"),
        ("generate", [], "takes prompts; give --prompts FILE"),
        ("upscale", [], "give the PATH of files"),
        ("upscale", ["photos"], "several sizes"),
        ("inpaint", ["photos/a.png"], "give --mask"),
        ("upscale", ["photos/a.png", "--mask", "masks"], "has no use for --mask"),
        ("upscale", ["nothing.png"], "nothing.png is no file and no folder"),
    ],
)
def test_what_is_refused(fails, models, command, words, message):
    fails(message, "tune-steps", models[command], *words)


def test_where_no_timesteps_can_be_kept(fails, tmp_path, text_model):
    fails("builtin:emoji is no folder that could keep the timesteps; give --output", "tune-steps", "builtin:emoji")
    shutil.copytree(text_model, tmp_path / "other")
    fails("other exists already; choose another --output", "tune-steps", "builtin:emoji", "-o", "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    fails("full is not empty and holds no pipeline", "tune-steps", "builtin:emoji", "-o", "full")
