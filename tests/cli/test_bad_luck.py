"""Options that contradict each other, outputs in each other's way, and models that change under a run."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from latentdiff.cli.batch.preview import MARK

TUNED = ("--steps", "tuned:2")


def tune(run, seed):
    assert run("tune-steps", "model", "--steps", 2, "-n", 1, "--seed", seed)[0] == 0


def config_of(tmp_path):
    return tmp_path / "model" / "scheduler" / "scheduler_config.json"


@pytest.fixture
def sample(unconditional_model, tmp_path):
    """The command, on a copy of a model that may be tuned."""
    shutil.copytree(unconditional_model, tmp_path / "model")
    return ("sample", "--model", "model")


@pytest.fixture
def tuned_sample(sample, tmp_path, run):
    tune(run, 0)
    return (*sample, *TUNED)


def test_a_preview_does_not_take_the_place_of_an_image_in_the_folder(sample, run, fails, tmp_path):
    options = (*sample, "--steps", 2, "-n", 2, "--batch-size", 1, "-o", "out")
    for name in ("out/000000.png", "out/000007.png", "./out/sub/../x0.png"):
        fails("lies among the images in out and would count as one", *options, "--preview-file", name)
        assert not (tmp_path / "out").exists()
    assert run(*options, "--preview-file", "outside.png")[0] == 0
    made = [Image.open(tmp_path / "out" / f"00000{number}.png") for number in (0, 1)]
    assert all(MARK not in image.info and image.size == (16, 16) for image in made)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == ["000000.png", "000001.png"]


def test_a_preview_does_not_take_the_place_of_the_only_image_or_the_grid(sample, fails, tmp_path):
    words = (*sample, "--steps", 2, "--preview-file", "sub/../a.png", "-o")
    fails("--preview-file and --output are both a.png; give two files", *words, "a.png")
    named = ("generate", "a dog", "--seed", 0, "--steps", 2)
    fails("--preview-file and --output are both", *named, "--preview-file", "a-dog-seed0.png")
    fails("are both g.png", *named, "-n", 2, "--grid", "-o", "g.png", "--preview-file", "./g.png")
    assert sorted(path.name for path in tmp_path.glob("*.png")) == []


@pytest.mark.thorough
def test_a_spacing_beside_tuned_timesteps_is_refused_as_it_would_do_nothing(tuned_sample, run, fails):
    fails(
        "--timestep-spacing is trailing, but --steps tuned:2 has timesteps of its own; drop one of them",
        *(*tuned_sample, "--timestep-spacing", "trailing"),
    )
    assert run(*tuned_sample, "-o", "a.png")[0] == 0


@pytest.mark.thorough
def test_images_of_timesteps_that_were_tuned_again_are_not_mixed(tuned_sample, run, fails, tmp_path):
    words = (*tuned_sample, "-o", "out", "-n")
    assert run(*words, 1)[0] == 0
    assert run(*words, 2)[0] == 0  # goes on
    assert run("tune-steps", "model", "--steps", 3, "-n", 1)[0] == 0
    assert run(*words, 3)[0] == 0  # those of other steps are no matter
    config = json.loads(config_of(tmp_path).read_text())
    (entry,) = (entry for entry in config["_tuned_timesteps"] if len(entry["timesteps"]) == 2)
    entry["timesteps"][1] -= 1
    config_of(tmp_path).write_text(json.dumps(config))
    fails("000000.png was made of another model, input or options", *words, 4)
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changes",
    [
        *({"options": options} for options in (None, [1])),
        *({"guidance_scale": "x"}, {"solver": 3}, {"untuned": None}),
        *({"timesteps": timesteps} for timesteps in ("98", [99.5, 1], [True, 0], [], {})),
    ],
)
def test_damaged_timesteps_are_one_line_and_told_before_they_are_tuned_again(tuned_sample, fails, tmp_path, changes):
    path = config_of(tmp_path)
    config = json.loads(path.read_text())
    config["_tuned_timesteps"][0] |= changes
    path.write_text(json.dumps(config))
    before = path.read_bytes()
    message = "_tuned_timesteps of the scheduler's config is damaged; take it out of scheduler_config.json"
    fails(message, *tuned_sample, "-o", "a.png")
    fails(message, "tune-steps", "model", "--steps", 2, "-n", 1)
    assert path.read_bytes() == before and not (tmp_path / "a.png").exists()


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.fromarray(np.full((16, 16, 3), 50 * number, np.uint8)).save(tmp_path / "images" / f"{number}.png")


@pytest.mark.thorough
@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("words", [("evaluate", "pairs", "images", "images", "--metrics", "psnr"), ("bench",)])
def test_reports_have_files_of_their_own_which_is_told_before_the_work(run, fails, tmp_path, sample, words):
    words = (*words, "model", "--steps", 2, "--rounds", 1, "--batch-size", 1) if words == ("bench",) else words
    fails("cannot write images: it is a folder; choose another output path", *words, "--json", "images")
    fails("images/../a is given for two files", *words, "--json", "a", "--markdown", "images/../a")
    assert not (tmp_path / "a").exists() and len(list((tmp_path / "images").iterdir())) == 4
    assert run(*words, "--json", "a", "--markdown", "b")[0] == 0


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize("option", [("--dtype", "float32"), ("--compile", "no"), ("--revision", "main")])
@pytest.mark.parametrize("command", ["samples", "neighbours"])
def test_an_option_of_the_model_of_samples_that_are_there_is_no_crash(run, option, command):
    code, _, err = run("evaluate", command, "images", "images", *option, "--features", "nope")
    assert code == 2 and len(err) == 1
    assert "is given, but images is sampled already" in err[0] or "unknown feature extractor" in err[0]


@pytest.mark.thorough
@pytest.mark.usefixtures("images")
def test_a_model_is_sampled_in_the_precision_that_is_asked_for(run, sample, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    words = ("evaluate", "samples", "model", "images", "--features", "efficientnet_lite0", "--cache", "cache")
    options = ("--metrics", "frechet", "--count", 2, "--steps", 2, "--dtype", "bfloat16")
    assert run(*words, *options)[0] == 0
    assert json.loads((tmp_path / "samples" / "sampling.json").read_text())["dtype"] == "bfloat16"
