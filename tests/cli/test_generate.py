import os
import shlex
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from latentdiff import TextToImagePipeline, __version__
from latentdiff.io.generated import read_parameters
from latentdiff.registry import SCHEDULERS


@pytest.fixture
def generate(run, text_model):
    """Runs `generate` with two steps of the tiny model; returns the lines it prints."""

    def call(*argv, model=text_model):
        code, out, err = run("generate", *argv, "--model", model, "--steps", 2)
        assert (code, err) == (0, [])
        return out

    return call


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_image_at_the_given_path(generate, tmp_path):
    assert generate("a red apple", "--seed", 7, "-o", "new/apple.png") == ["new/apple.png\tseed 7"]
    assert files(tmp_path) == ["new/apple.png"]
    assert pixels("new/apple.png").shape == (16, 16, 3)


def test_the_pixels_are_those_of_the_pipeline(generate, text_model):
    generate("a red apple", "--seed", 7, "-o", "a.png", "--guidance-scale", 3, "--size", "16x32")
    pipeline = TextToImagePipeline.from_pretrained(text_model)
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "seed": [7], "height": 32, "width": 16}
    assert (pixels("a.png") == np.asarray(pipeline("a red apple", **call).images[0])).all()


def test_the_default_names(generate, tmp_path):
    generate("A dog!", "--seed", 3)
    generate("a dog", "a cat", "--seed", 3, "-n", 2)
    assert files(tmp_path) == [
        "a-dog-seed3.png",
        "images/00000-a-dog-seed3.png",
        "images/00001-a-dog-seed4.png",
        "images/00002-a-cat-seed3.png",
        "images/00003-a-cat-seed4.png",
    ]


def test_an_image_does_not_depend_on_the_others(generate):
    generate("a dog", "a red cat", "--seed", "0-2", "-o", "whole")
    generate("a dog", "a red cat", "--seed", "0-2", "-o", "parts", "--batch-size", 4)
    generate("a red cat", "--seed", 1, "-o", "alone.png")
    whole = [pixels(f"whole/{name}") for name in sorted(os.listdir("whole"))]
    parts = [pixels(f"parts/{name}") for name in sorted(os.listdir("parts"))]
    assert len(whole) == len(parts) == 6
    assert all(abs(a - b).max() <= 1 for a, b in zip(whole, parts, strict=True))
    assert abs(whole[4] - pixels("alone.png")).max() <= 1
    assert abs(whole[4] - whole[1]).max() > 10
    assert abs(whole[4] - whole[5]).max() > 10


def test_a_grid_has_a_row_for_each_prompt(generate, tmp_path):
    generate("a dog", "a cat", "--seed", "0-2", "-o", "single")
    lines = generate("a dog", "a cat", "--seed", "0-2", "--grid", "-o", "grid.png", "--batch-size", 4)
    assert lines == ["grid.png\tseed 0-2"]
    grid = pixels("grid.png")
    assert grid.shape == (32, 48, 3)
    assert abs(grid[16:, 16:32] - pixels("single/00004-a-cat-seed1.png")).max() <= 1
    assert read_parameters("grid.png")["prompt"] == ["a dog", "a cat"]


def test_parameters_are_embedded(generate, text_model):
    generate("a dog", "--seed", 3, "-o", "a.png", "--negative-prompt", "a cat")
    assert read_parameters("a.png") == {
        "command": "generate",
        "prompt": "a dog",
        "negative_prompt": "a cat",
        "model": text_model,
        "dtype": "float32",
        "seed": 3,
        "steps": 2,
        "scheduler": "ddim",
        "eta": 0.0,
        "guidance_scale": 5.0,
        "guidance_interval": [0.0, 1.0],
        "guidance_rescale": 0.0,
        "size": "16x16",
        "version": __version__,
    }


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        ["a dog"],
        ["a dog", "--eta", "1", "--guidance-interval", "0", "0.5", "--guidance-rescale", "0.7"],
        ["a dog", "--scheduler", "dpmpp_2m_sde", "--size", "32x16", "--negative-prompt=-the cat"],
        ["a dog", "--guidance-scale", "1"],
        ["a dog", "--guidance-scale", "-2"],
        ["a dog", "-n", "2", "--grid"],
    ],
)
def test_the_command_in_an_image_makes_it_again(run, generate, options):
    generate("-o", "first.png", *options)
    _, out, _ = run("info", "first.png")
    command = shlex.split(out[-1].removeprefix("command: "))
    assert command[:2] == ["latentdiff", "generate"]
    assert run(*command[1:2], "-o", "again.png", *command[2:])[0] == 0
    assert (pixels("first.png") == pixels("again.png")).all()
    assert read_parameters("first.png") == read_parameters("again.png")


@pytest.mark.thorough
@pytest.mark.parametrize("name", SCHEDULERS.names())
def test_every_scheduler(generate, name):
    generate("a dog", "--seed", 0, "--scheduler", name, "-o", "a.png")
    assert read_parameters("a.png")["scheduler"] == name


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_close(generate, dtype):
    generate("a dog", "--seed", 0, "-o", "full.png")
    generate("a dog", "--seed", 0, "--dtype", dtype, "-o", "half.png")
    assert 0 < abs(pixels("full.png") - pixels("half.png")).mean() < 10


def test_an_unconditional_model_takes_no_prompt(generate, unconditional_model, tmp_path):
    lines = generate("--seed", "4-5", model=unconditional_model)
    assert lines == ["images/00000-image-seed4.png\tseed 4", "images/00001-image-seed5.png\tseed 5"]
    assert "guidance_scale" not in read_parameters("images/00000-image-seed4.png")


def test_a_flag_may_be_written_otherwise_and_the_last_one_counts(generate):
    generate("a dog", "--seed", 1, "--seed=2", "--guidance_scale", "-2", "--guidance-rescale=0.5", "-oa.png")
    parameters = read_parameters("a.png")
    assert [parameters[name] for name in ("seed", "guidance_scale", "guidance_rescale")] == [2, -2.0, 0.5]


def test_a_random_seed_is_told(generate):
    (line,) = generate("a dog", "-o", "a.png")
    assert line == f"a.png\tseed {read_parameters('a.png')['seed']}"


def test_prompts_of_a_file(generate, tmp_path):
    (tmp_path / "prompts.txt").write_text("# animals\na dog\n\na cat\n")
    assert len(generate("--prompts", "prompts.txt", "--seed", 0)) == 2


def test_quiet_and_overwrite(generate, run, text_model, tmp_path):
    generate("a dog", "--seed", 0, "-o", "a.png")
    before = pixels("a.png")
    assert generate("a dog", "--seed", 1, "-o", "a.png", "--overwrite", "--quiet") == []
    assert (pixels("a.png") != before).any()


WRONG_WHATEVER_THE_MODEL = {
    "--steps: '0' is given; it must be an integer of at least 1": ["--steps", "0"],
    "--steps: 'many'": ["--steps", "many"],
    "--steps: it takes 1 value, 0 given": ["--steps"],
    "one that begins with a dash is given as --negative-prompt=-...": ["--negative-prompt", "-x"],
    "--eta: '2' is given; it must be a number from 0 to 1": ["--eta", "2"],
    "--guidance-scale: 'nan' is given; it must be a number (": ["--guidance-scale", "nan"],
    "--guidance-rescale: '-1'": ["--guidance-rescale", "-1"],
    "--guidance-interval: '0 2' is given; it must be a number from 0 to 1": ["--guidance-interval", "0", "2"],
    "(see latentdiff generate --help)": ["--steps", "0"],
    "unknown argument '-x'": ["-x"],
    "--quiet: 'maybe' is given; it must be true or false": ["--quiet=maybe"],
    "--guidance-interval is 0.5 0.5; it must start before": ["--guidance-interval", "0.5", "0.5"],
    "--guidance-interval: it takes 2 values, 1 given": ["--guidance-interval", "0.5"],
    "--negative-prompt has no effect at --guidance-scale 1": ["--guidance-scale", "1", "--negative-prompt", "x"],
    "--scheduler: 'dimd' is given; did you mean 'ddim'": ["--scheduler", "dimd"],
    "--dtype: 'float33' is given; did you mean 'float32'": ["--dtype", "float33"],
    "device 'cudaa' cannot be used": ["--device", "cudaa"],
    "device 'meta' cannot be used": ["--device", "meta"],
    "--size: '64x' is given": ["--size", "64x"],
    "--size: '0x64' is given": ["--size", "0x64"],
    "--size: '99999' is given; it must be like 64 or 96x64, 67108864 pixels at most": ["--size", "99999"],
    "--num-images: '0'": ["-n", "0"],
    "--batch-size: '0'": ["--batch-size", "0"],
    "a range such as 0-7": ["--seed", "one"],
    "--num-images 2 and the seeds 0-3 are both given": ["--seed", "0-3", "-n", "2"],
    "over 100000 images": ["--seed", "0-999999999999999999"],
    "--seed is 9223372036854775808": ["--seed", str(2**63)],
    "prompt 'a dog' and --prompts are both given": ["--prompts", "file"],
    "give a name that ends in .png, .jpg or .webp": ["-o", "a.gif"],
    "is one file, a.png, for 2 images; give a folder or --grid": ["-o", "a.png", "-n", "2"],
    "a grid is one image file": ["--grid", "-o", "folder"],
    "exists already; choose another --output, or allow it with --overwrite": ["-o", "old.png"],
    "old.png is not a folder": ["-o", "old.png/new.png"],
    "cannot write taken.png: it is a folder": ["-o", "taken.png", "--overwrite"],
    "too long": ["-o", "x" * 300 + ".png"],
}

WRONG_FOR_THE_MODEL = {
    "--revision is 'main', but": ["--revision", "main"],
    "unknown model 'nothing'": ["--model", "nothing"],
    "unknown model 'builtin:nothing'": ["--model", "builtin:nothing"],
    "taken.png holds no model_index.json": ["--model", "taken.png"],
    "--steps is 1001; it must be an integer from 1 to 1000": ["--steps", "1001"],
    "the width of --size is 17; it must be a multiple of 4": ["--size", "17x16"],
    "has no --eta, but 0.5 was given": ["--scheduler", "euler", "--eta", "0.5"],
}


@pytest.fixture
def taken(tmp_path):
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "taken.png").mkdir()
    yield
    assert (tmp_path / "old.png").read_text() == "old"


@pytest.mark.thorough
@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("message", WRONG_WHATEVER_THE_MODEL)
def test_wrong_options_are_told_before_the_model_is_looked_for(fails, message):
    fails(message, "generate", "a dog", "--model", "nothing", *WRONG_WHATEVER_THE_MODEL[message])


@pytest.mark.usefixtures("taken")
@pytest.mark.parametrize("message", WRONG_FOR_THE_MODEL)
def test_options_that_do_not_fit_the_model_are_one_line(fails, text_model, message):
    fails(message, "generate", "a dog", "--model", text_model, "--steps", "2", *WRONG_FOR_THE_MODEL[message])


def test_wrong_prompts_are_one_line(fails, text_model, unconditional_model, tmp_path):
    (tmp_path / "empty.txt").write_text("\n# nothing\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    fails("missing.txt cannot be read (No such file", "generate", "--prompts", "missing.txt")
    fails("empty.txt holds no prompt", "generate", "--prompts", "empty.txt")
    fails("latin.txt is not UTF-8", "generate", "--prompts", "latin.txt")
    fails("prompt is empty", "generate", " ", "--model", "nothing")
    fails("has the character U+0007", "generate", "a\adog", "--model", "nothing")
    fails("does not fit, shorten it", "generate", "a " * 20, "--model", text_model)
    fails("put values together", "generate", "a dog", "--seed", "0", "a cat")
    fails("makes images of prompts; give a PROMPT", "generate", "--model", text_model)
    unconditional = ["generate", "--model", unconditional_model]
    fails("is unconditional and has no use for a prompt", *unconditional, "a dog")
    fails("has no use for --guidance-scale", *unconditional, "--guidance-scale", "2")


def test_a_damaged_model_is_one_line(fails, text_model, tmp_path):
    model = shutil.copytree(text_model, tmp_path / "model")
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    fails("is damaged", "generate", "a dog", "--model", model)


def test_an_interrupted_run_leaves_whole_files_only(run, text_model, tmp_path):
    def interrupt(signal_number, frame):
        if len(list(tmp_path.glob("out/0*.png"))) >= 3:
            signal.setitimer(signal.ITIMER_REAL, 0)  # once: a second one would interrupt the cleaning up
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        options = ["--seed", "0-999", "--batch-size", 2, "--steps", 10]
        code, out, err = run("generate", "a dog", "--model", text_model, "-o", "out", *options)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (code, err) == (130, [])
    written = files(tmp_path)
    assert 3 <= len(written) < 1000
    assert written[: len(out)] == [line.split("\t")[0] for line in out]
    assert all(pixels(name).shape == (16, 16, 3) for name in written)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(text_model):
    command = [sys.executable, "-m", "latentdiff", "info", text_model]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("latentdiff: error: [Errno 28] No space left on device")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that nobody can write to")
def test_a_folder_without_permission_is_one_line(fails):
    fails("cannot write /proc/a.png", "generate", "a dog", "--model", "nothing", "-o", "/proc/a.png")
