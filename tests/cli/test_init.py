"""`latentdiff init`, and `latentdiff train RECIPE...` with what it wrote."""

import numpy as np
import pytest
import yaml
from PIL import Image

TINY = {
    "model": {
        "block_out_channels": [8, 8, 8],
        "norm_num_groups": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
    },
    "unet": {
        "block_out_channels": [8, 8],
        "layers_per_block": 1,
        "attention_levels": [False, False],
        "num_head_channels": 8,
        "norm_num_groups": 4,
    },
}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def shrunk(tmp_path, **options):
    """The recipes that were written, with networks that take no time."""
    for name in ("photos-1-first-stage.yaml", "photos-2-diffusion.yaml"):
        values = yaml.safe_load((tmp_path / name).read_text())
        values |= {key: value for key, value in TINY.items() if key in values}
        values |= {"train_batch_size": 2, "mixed_precision": "no", "report_to": "none", **options}
        values["validation"].pop("metrics", None)
        values["validation"].pop("count", None)
        (tmp_path / name).write_text(yaml.safe_dump(values))
    return tmp_path / "photos-1-first-stage.yaml", tmp_path / "photos-2-diffusion.yaml"


@pytest.mark.thorough
def test_two_commands_train_a_model_and_again_do_nothing(run, photos, tmp_path):
    code, out, err = run("init", "photos", "--unmeasured")
    assert (code, err) == (0, [])
    assert out[0] == "16 images: RGB of 8 bits, shorter sides of 20 to 30 pixels"
    assert out[-1] == "next: latentdiff train photos-1-first-stage.yaml photos-2-diffusion.yaml"
    first, second = shrunk(tmp_path)
    words = ("--max_train_steps", 2, "--validation.steps", 2)
    code, out, err = run("train", second, first, *words)
    assert code == 0 and out[0] == f"{first}: begins in runs/photos/first-stage"
    assert out[1] == f"{second}: begins in runs/photos/diffusion"
    named = [line.split(" | ")[2] for line in out if line.startswith("| runs")]
    assert named == ["loss", "psnr", "ssim"]
    pictures = [line.removeprefix("picture: ") for line in out if line.startswith("picture: ")]
    assert [Image.open(tmp_path / path).format for path in pictures] == ["PNG", "PNG"]
    assert out[-1] == "next: latentdiff sample --model runs/photos/diffusion -n 16 -o samples"
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    code, again, err = run("train", first, second, *words)
    assert (code, err) == (0, []) and again[2:] == out[2:]
    assert again[0] == f"{first}: has ended, in runs/photos/first-stage"
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    code, out, err = run("train", first, second, "--max_train_steps", 3, "--validation.steps", 3)
    assert (code, out) == (2, []) and "has begun with what" in err[0]  # other latents than it was trained in
    code, out, err = run("train", second, "--max_train_steps", 3, "--validation.steps", 3)
    assert code == 0 and out[0] == f"{second}: goes on in runs/photos/diffusion"


@pytest.mark.thorough
def test_steps_are_measured_and_hours_divided(run, photos, tmp_path):
    code, out, err = run("init", "photos", "--hours", "0.02", "--size", "tiny", "--resolution", 16)
    assert (code, err) == (0, [])
    assert [line.partition(":")[0] for line in out[-3:]] == ["first stage", "diffusion model", "next"]
    assert "4.6 million parameters" in out[-2] and out[-2].endswith(" here")
    text = (tmp_path / "photos-2-diffusion.yaml").read_text()
    assert "as measured here, without validation." in text
    steps = [yaml.safe_load((tmp_path / name).read_text())["max_train_steps"] for name in out[-1].split()[-2:]]
    assert all(f" {count:,} steps, " in line for count, line in zip(steps, out[-3:-1], strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "photos",
        "photos-1-first-stage.yaml",
        "photos-2-diffusion.yaml",
    ]


def test_wrong_input_is_one_line_and_leaves_nothing(fails, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    fails("empty holds no images", "init", "empty")
    fails("nowhere is not a folder", "init", "nowhere")
    fails("unknown argument '--siz'", "init", "photos", "--siz", "tiny")
    fails("did you mean", "init", "photos", "--size", "tinny")
    fails("task is 'classes'; did you mean 'class-to-image'", "init", "photos", "--task", "classes", "--unmeasured")
    fails("nothing of that kind is known", "init", "photos", "--task", "text-to-image", "--unmeasured")
    fails("resolution is 'big'", "init", "photos", "--resolution", "big")
    fails("--hours is given, and --unmeasured too", "init", "photos", "--hours", 1, "--unmeasured")
    fails("name is '../x'", "init", "photos", "--name", "../x")
    (tmp_path / "photos-2-diffusion.yaml").write_text("mine")
    fails("photos-2-diffusion.yaml exists, and nothing is overwritten", "init", "photos")
    (tmp_path / "runs" / "other").mkdir(parents=True)
    fails("runs/other exists, and nothing is overwritten", "init", "photos", "--name", "other")
    for i in range(13):
        (photos / f"{i}.png").write_text("no image")
    fails("13 of 16 images that were looked at can't be used", "init", "photos", "--name", "x")
    (photos / "15.png").unlink()
    fails("holds 15 images, too few", "init", "photos", "--name", "x")


def test_recipes_that_do_not_belong_together_are_one_line(run, fails, photos, tmp_path, monkeypatch):
    assert run("init", "photos", "--unmeasured", "--quiet") == (0, [], [])
    first, second = shrunk(tmp_path)
    with monkeypatch.context() as launcher:
        launcher.setenv("WORLD_SIZE", "2")
        fails(f"one recipe at a time, and 2 are left; give {first} first", "train", second, first)
    fails("vae is runs/photos/first-stage/vae, which isn't there; give the recipe that makes it", "train", second)
    fails("is given twice", "train", first, first)
    fails("none.yaml cannot be read", "train", first, "none.yaml")
    fails("max_train_steps is 0; it must be at least 1", "train", first, second, "--max_train_steps", 0)
    fails("unknown argument '--max_train_step'", "train", first, second, "--max_train_step", 1)
    fails("unknown argument '--output_dir'", "train", first, second, "--output_dir", "x")
    values = yaml.safe_load(second.read_text())
    second.write_text(yaml.safe_dump({**values, "vae": "runs/other/vae"}))
    fails("is for the first stage runs/other/vae, and", "train", first, second)
    second.write_text(yaml.safe_dump({**values, "conditioning": "text-to-image"}))
    fails("has no captions", "train", first, second)  # before the first stage is trained
    second.write_text(yaml.safe_dump({**values, "output_dir": "runs/photos/first-stage"}))
    fails("both have the output_dir", "train", first, second)
